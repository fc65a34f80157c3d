"""`late-interaction eval`, as a person or a script uses it."""

import json
from pathlib import Path

import pytest

from tests.support.commands import run, run_json

pytestmark = pytest.mark.slow


@pytest.fixture
def model(text_model: Path) -> str:
    return str(text_model)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """A collection of three documents and three queries, each a document's text."""
    folder = tmp_path / "toy"
    folder.mkdir()
    texts = ["flow over a wing", "heat in the boundary layer", "the cat and the dog"]
    for name in ("corpus", "queries"):
        lines = [json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "qrels.tsv").write_text(
        "query\tdocument\tgrade\n" + "".join(f"{n}\t{n}\t1\n" for n in range(3))
    )
    return folder


def test_eval(judged: Path, model: str) -> None:
    arguments = ("eval", judged, "--model", model, "--bm25", "--pool-factor", 1, "--pool-factor", 2)
    report = run_json(*arguments)
    assert (report["collection"], report["documents"], report["queries"]) == ("toy", 3, 3)
    methods = [(row["method"], row["pool_factor"]) for row in report["results"]]
    assert methods == [
        ("BM25", None),
        ("exact, as encoded", 1),
        ("two-stage", 1),
        ("exact", 1),
        ("two-stage", 2),
        ("exact", 2),
    ]
    assert report["results"][0]["metrics"] == {"ndcg@10": 1, "recall@100": 1, "mrr@10": 1}
    table = run(*arguments, "--limit", 2).stdout
    assert "toy: 2 documents, 2 queries" in table
    assert "nDCG@10" in table
    assert "0 of 2 documents and 1 of 2 queries were cut: they are longer than" in table


def test_eval_by_words_and_by_both(judged: Path, model: str) -> None:
    arguments = (
        "eval",
        judged,
        "--model",
        model,
        "--pool-factor",
        2,
        "--mode",
        "hybrid",
        "--mode",
        "lexical",
    )
    report = run_json(*arguments, "--lexical-weight", 0.1, "--lexical-weight", 1)
    rows = {row["method"]: row for row in report["results"]}
    assert list(rows) == ["exact, as encoded", "two-stage", "hybrid 0.1", "hybrid 1", "lexical", "exact"]
    for method in ("hybrid 1", "lexical"):
        assert rows[method]["metrics"]["mrr@10"] == 1
        assert rows[method]["query_ms"] > 0
    assert rows["lexical"]["n_scored"] == 0
    assert rows["hybrid 1"]["n_scored"] == 3
    told = run("eval", judged, "--model", model, "--lexical-weight", 0.1)
    assert told.exit_code == 2
    assert "--mode hybrid" in told.output


def test_eval_says_what_it_does(judged: Path, model: str) -> None:
    told = run("eval", judged, "--model", model, "--bm25", "--pool-factor", 2, "--passages").stderr
    for stage in (
        "BM25S Retrieve",
        "Encoding queries",
        "Encoding documents",
        "Two-stage search, pool factor 2",
        "Exact MaxSim, pool factor 2",
        "Encoding passages",
    ):
        assert stage in told


def test_eval_counts_what_was_cut(judged: Path, model: str) -> None:
    texts = ["wing", "wing " * 100, "heat " * 100]
    lines = [json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(texts)]
    (judged / "queries.jsonl").write_text("\n".join(lines))
    arguments = ("eval", judged, "--model", model, "--pool-factor", 2)
    assert "0 of 3 documents and 2 of 3 queries were cut: they are longer" in run(*arguments, code=0).stdout
    assert {row["n_cut_queries"] for row in run_json(*arguments)["results"]} == {2}
    (judged / "queries.jsonl").write_text("\n".join(lines[:1]))
    assert "0 of 3 documents and 0 of 1 queries were cut." in run(*arguments, code=0).stdout


def test_eval_keeps_its_rankings_and_compares_with_earlier_ones(
    judged: Path, model: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    arguments = ("eval", judged, "--model", model, "--pool-factor", 2, "--pool-factor", 3)
    run(*arguments, "--bm25", "--runs", runs, code=0)
    assert {path.name for path in runs.iterdir()} == {
        "toy.bm25.trec", "toy.exact-as-encoded.trec", "toy.two-stage-pool-2.trec", "toy.exact-pool-2.trec",
        "toy.two-stage-pool-3.trec", "toy.exact-pool-3.trec",
    }  # fmt: skip
    (runs / "toy.two-stage-pool-2.trec").write_text("0 Q0 0 1 1.0 x\n1 Q0 2 1 2.0 x\n1 Q0 1 2 1.0 x\n")
    (runs / "toy.exact-pool-3.trec").unlink()
    (runs / "another.exact-pool-3.trec").write_text("q Q0 d 1 1.0 x\n")
    compared = {
        (row["method"], row["pool_factor"]): row.get("comparison")
        for row in run_json(*arguments, "--against", runs)["results"]
    }
    assert compared["exact", 3] is None
    assert compared["exact", 2] == {
        "difference": 0, "p_value": 1, "wins": 0, "losses": 0, "by_query": {"0": 0, "1": 0, "2": 0}
    }  # fmt: skip
    found = compared["two-stage", 2]
    assert (found["wins"], found["losses"]) == (2, 0)
    assert found["by_query"] == {"0": 0, "1": pytest.approx(0.36907), "2": 1}
    one = runs / "toy.two-stage-pool-2.trec"
    told = run(*arguments, "--against", one, code=0).stdout
    assert told.count(" +0.4564 ") == 5, "every method is compared with the one file"
    assert "+1.0000 │ 2: the cat and the dog" in told


@pytest.mark.parametrize("content", [None, "no run\n", "elsewhere Q0 d 1 1.0 x\n"])
def test_eval_refuses_a_ranking_of_something_else_before_it_encodes(
    judged: Path, model: str, tmp_path: Path, content: str | None
) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    if content is not None:
        (earlier / "toy.bm25.trec").write_text(content)
    for against in (earlier, *earlier.iterdir()):
        told = run("eval", judged, "--model", model, "--against", against, code=1).stderr
        assert "cannot be read as a run" in told or "has no ranking for a query of toy" in told
        assert "Encoding" not in told


def test_eval_draws_a_figure(judged: Path, model: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    arguments = ("eval", judged, "--model", model, "--pool-factor", 2, "--plot")
    run(*arguments, tmp_path / "eval.svg", code=0)
    assert "two-stage, pool 2" in (tmp_path / "eval.svg").read_text()
    told = run(*arguments, tmp_path / "eval.txt", code=1).stderr
    assert "must end in the name of a format" in told
    assert "Encoding" not in told


def test_eval_refuses_ids_that_runs_cannot_hold_before_it_encodes(judged: Path, model: str) -> None:
    corpus = judged / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + "\n" + json.dumps({"_id": "a b", "text": "wing"}))
    told = run("eval", judged, "--model", model, "--runs", judged / "runs", code=1).stderr
    assert "the id 'a b' has white space in it" in told
    assert "Encoding" not in told
