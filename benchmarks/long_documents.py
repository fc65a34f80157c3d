"""Compare ways to index documents that are longer than the model reads: quality, room and encoding time.

    python benchmarks/long_documents.py [--collection cranfield] [--parts 6]

A long document is made of unrelated abstracts of a judged collection, joined with a space in the order of their ids.
Two abstracts that answer one query are never in the same document, so that a document is relevant as its part is. The
ways: `long_documents="windows"` and "truncate" of `ColBERTModel`; `passages`, of which the best one counts; and BM25
over whole documents. Scores are exact MaxSim on pooled and packed vectors, with the p-value of a paired randomisation
test beside truncation and windows; bytes are those of a document. With `--parts 1` the collection is as it is.
Needs the demo and eval extras, and the collection in `../shared/data`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.encoded import collection, demo_model
from late_interaction import ColBERTModel, RaggedTokens, passages
from late_interaction.evaluation import JudgedCollection, Run, bm25_run, compare, evaluate
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack
from late_interaction.pooling import pool_document
from late_interaction.types import FloatMatrix

BATCH = 32
Rows = list[dict[str, str]]
REFERENCES = ("truncated", "windows")


def joined(judged: JudgedCollection, n_parts: int) -> JudgedCollection:
    """Join documents that no query has in common, `n_parts` each."""
    queries: dict[str, set[str]] = {}
    for query_id, grades in judged.qrels.items():
        for doc_id, grade in grades.items():
            if grade > 0:
                queries.setdefault(doc_id, set()).add(query_id)
    members: list[list[str]] = []
    answered: list[set[str]] = []
    for doc_id in np.random.default_rng(0).permutation(list(judged.documents)).tolist():
        own = queries.get(doc_id, set())
        place = next(
            (i for i, group in enumerate(members) if len(group) < n_parts and not (answered[i] & own)),
            len(members),
        )
        if place == len(members):
            members.append([])
            answered.append(set())
        members[place].append(doc_id)
        answered[place] |= own
    home = {doc_id: f"long{i}" for i, group in enumerate(members) for doc_id in group}
    documents = {
        f"long{i}": " ".join(judged.documents[doc_id] for doc_id in sorted(group))
        for i, group in enumerate(members)
    }
    qrels = {
        query_id: {home[doc_id]: grade for doc_id, grade in grades.items() if grade > 0}
        for query_id, grades in judged.qrels.items()
    }
    return JudgedCollection(f"{judged.name} joined by {n_parts}", documents, judged.queries, qrels)


def whole(judged: JudgedCollection) -> Rows:
    return [
        {"doc_id": doc_id, "content": text, "source": doc_id} for doc_id, text in judged.documents.items()
    ]


def cut(judged: JudgedCollection, model: ColBERTModel, **options: int) -> Rows:
    return [
        {"doc_id": f"{doc_id}#{n}", "content": passage.text, "source": doc_id}
        for doc_id, text in judged.documents.items()
        for n, passage in enumerate(passages(text, model=model, **options))
    ]


def encode(model: ColBERTModel, rows: Rows, name: str) -> tuple[list[FloatMatrix], float]:
    """Return the matrices, and the seconds that the processor took for them."""
    started, matrices = time.process_time(), []
    for first in tqdm(range(0, len(rows), BATCH), desc=name, unit="batch"):
        matrices += model.encode_documents([row["content"] for row in rows[first : first + BATCH]])
    return matrices, time.process_time() - started


def search(
    rows: Rows,
    matrices: Sequence[FloatMatrix],
    queries: dict[str, FloatMatrix],
    factor: float,
    reads: int | None,
) -> tuple[Run, int]:
    """Return the score of each source's best row for each query, and the bytes of all packed matrices."""
    blobs = [pack(pool_document(matrix, factor, read_at_once=reads)) for matrix in matrices]
    sources = [row["source"] for row in rows]
    stored = RaggedTokens.from_matrices([unpack(blob) for blob in blobs])
    run: Run = {}
    for query_id, query in queries.items():
        scores = run[query_id] = {}
        for source, score in zip(sources, maxsim(query, stored).tolist(), strict=True):
            scores[source] = max(score, scores.get(source, score))
    return run, sum(map(len, blobs))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to index long documents.")
    parser.add_argument(
        "--collection", default="cranfield", help="a folder of ../shared/data (default: cranfield)"
    )
    parser.add_argument("--parts", type=int, default=6, help="abstracts in a document (default: 6)")
    arguments = parser.parse_args()

    judged = joined(collection(arguments.collection), arguments.parts)
    windows, truncating = demo_model(), demo_model(long_documents="truncate")
    texts = list(judged.documents.values())
    n_tokens, n_cut = np.mean(windows.count_tokens(texts)), truncating.count_truncated(texts)
    title = f"{judged.name}: {len(texts)} documents of {n_tokens:,.0f} tokens; {n_cut} are longer than the model reads"
    table = Table(title=title, title_justify="left")
    for heading in (
        "way",
        "rows",
        "pooling",
        "nDCG@10",
        *(f"p, {way}" for way in REFERENCES),
        "bytes",
        "CPU s",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    bm25 = evaluate(bm25_run(judged), judged.qrels)["ndcg@10"]
    table.add_row("BM25", f"{len(texts)}", "", f"{bm25:.4f}")

    encoded = windows.encode_queries(list(judged.queries.values()))
    queries = dict(zip(judged.queries, encoded, strict=True))
    reads = windows.document_length
    poolings: dict[str, tuple[float, int | None]] = {"none": (1, None), "default": (2, reads)}
    found: dict[tuple[str, str], Run] = {}
    for name, model, rows in (
        ("truncated", truncating, whole(judged)),
        ("windows", windows, whole(judged)),
        ("best passage", windows, cut(judged, windows)),
        ("best passage, overlap 1", windows, cut(judged, windows, overlap=1)),
    ):
        matrices, seconds = encode(model, rows, name)
        alike = {"2, all alike": (2, None)} if name == "windows" else {}
        for pooling, (factor, longer_than) in (poolings | alike).items():
            run, size = search(rows, matrices, queries, factor, longer_than)
            found[name, pooling] = run
            # Beside the references as they are by default, or unpooled if this is.
            beside = [found.get((way, "none" if pooling == "none" else "default")) for way in REFERENCES]
            p_values = [
                "" if other in (None, run) else f"{compare(run, other, judged.qrels).p_value:.4f}"
                for other in beside
            ]
            ndcg = evaluate(run, judged.qrels)["ndcg@10"]
            row = (
                name,
                f"{len(rows)}",
                pooling,
                f"{ndcg:.4f}",
                *p_values,
                f"{size / len(texts):,.0f}",
                f"{seconds:.0f}",
            )
            tqdm.write(" ".join(row))
            table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
