"""Rankings as files, two rankings beside each other, and the figure."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from late_interaction import LateInteractionError, MissingExtraError
from late_interaction.evaluation import (
    Evaluation,
    JudgedCollection,
    compare,
    evaluate,
    read_run,
    run_name,
    write_runs,
)
from late_interaction.evaluation.figure import check_figure, draw

RUN = {"q1": {"a": 1.2345678, "b": 1.2345677}, "q2": {"é": 2.0}}
COLLECTION = JudgedCollection(
    "my set", {"a": "A", "b": "B", "é": "E"}, {"q1": "1", "q2": "2"}, {"q1": {"b": 1}, "q2": {"é": 1}}
)


def evaluation(method: str, factor: float | None = 2, packed_bytes: int | None = 1000) -> Evaluation:
    metrics = evaluate(RUN, COLLECTION.qrels)
    return Evaluation(method, factor, metrics, packed_bytes=packed_bytes, run=RUN)


def test_runs_come_back_from_their_files_and_give_the_same_metrics(tmp_path: Path) -> None:
    rows = [
        evaluation("BM25", None, None),
        evaluation("exact, as encoded", 1, None),
        evaluation("two-stage"),
        evaluation("two-stage", 2.5),
        evaluation("two-stage, best passage"),
    ]
    written = write_runs(tmp_path / "new" / "runs", COLLECTION, rows)
    assert [path.name for path in written] == [
        "my set.bm25.trec",
        "my set.exact-as-encoded.trec",
        "my set.two-stage-pool-2.trec",
        "my set.two-stage-pool-2.5.trec",
        "my set.two-stage-best-passage-pool-2.trec",
    ]
    assert [path.name for path in written] == [run_name(COLLECTION, row) for row in rows]
    first, second, _ = written[0].read_text(encoding="utf-8").splitlines()
    assert first.split() == ["q1", "Q0", "a", "1", "1.2345678", "late-interaction"]
    assert second.split()[2:4] == ["b", "2"]
    for path in written:
        assert read_run(path) == RUN
        assert evaluate(read_run(path), COLLECTION.qrels) == rows[0].metrics


@pytest.mark.parametrize("doc_id", ["a b", "a\u00a0b", "\n"])
def test_an_id_that_a_run_cannot_hold_is_named(tmp_path: Path, doc_id: str) -> None:
    collection = JudgedCollection("x", {doc_id: "A"}, {"q": "1"}, {"q": {doc_id: 1}})
    with pytest.raises(LateInteractionError, match="has white space"):
        write_runs(tmp_path, collection, [])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LateInteractionError, match="cannot be written"):
        write_runs(tmp_path / "file", COLLECTION, [])


@pytest.mark.parametrize("content", [b"", b"q1 Q0 a 1\n", b"q1 Q0 a 1 high tag\n", b"q1 Q0 \xff 1 2.0 tag\n"])
def test_what_is_no_run_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.trec"
    path.write_bytes(content)
    with pytest.raises(LateInteractionError, match=r"run\.trec cannot be read as a run"):
        read_run(path)


def test_a_run_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LateInteractionError, match="none cannot be read as a run"):
        read_run(tmp_path / "none")


def test_compare_tests_all_ways_to_swap_the_values_of_each_query() -> None:
    qrels = {f"q{n}": {"good": 1} for n in range(8)}
    right, wrong = {"good": 1.0}, {"bad": 1.0}
    found = compare(dict.fromkeys(qrels, right), dict.fromkeys(qrels, wrong), qrels)
    assert (found.difference, found.wins, found.losses) == (1, 8, 0)
    assert found.p_value == pytest.approx(2 / 2**8)
    mixed = {name: wrong if name == "q0" else right for name in qrels}
    found = compare(mixed, {"q0": right, "q1": wrong} | dict.fromkeys(list(qrels)[2:], right), qrels)
    assert (found.difference, found.wins, found.losses, found.p_value) == (0, 1, 1, 1)
    assert next(iter(found.by_query.items())) == ("q0", -1)
    assert list(found.by_query.items())[-1] == ("q1", 1)
    same = compare(mixed, mixed, qrels)
    assert (same.difference, same.p_value, same.wins, same.losses) == (0, 1, 0, 0)


def test_compare_counts_a_query_without_results_as_zero() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    found = compare({"q1": {"a": 1.0}}, {"q1": {"a": 1.0}, "q2": {"a": 1.0}}, qrels)
    assert found.by_query == {"q2": -1, "q1": 0}


def test_one_query_scores_of_numpy_and_no_query() -> None:
    qrels = {"q1": {"a": 1}}
    found = compare({"q1": {"a": np.float32(2)}}, {"q1": {"b": 1.0, "a": 0.5}}, qrels)  # type: ignore[dict-item]
    assert (found.wins, found.losses, found.p_value) == (1, 0, 1.0)
    for wrong in (evaluate, partial(compare, {})):
        with pytest.raises(ValueError, match="no judged query"):
            wrong({}, {})


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["svg", "png", "PDF"])
def test_a_figure_names_every_method(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    path = tmp_path / f"figure.{suffix}"
    check_figure(path)
    draw(
        path, "my set", [evaluation("BM25", None, None), evaluation("two-stage"), evaluation("two-stage", 3)]
    )
    start = {"svg": b"<?xml", "png": b"\x89PNG", "PDF": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)
    if suffix == "svg":
        for text in ("my set", "BM25", "two-stage, pool 2", "two-stage, pool 3", "nDCG@10"):
            assert f"<!-- {text} -->" in path.read_text()


def test_what_cannot_be_drawn_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    with pytest.raises(LateInteractionError, match=r"must end in .*svg"):
        check_figure(tmp_path / "figure.txt")
    with pytest.raises(LateInteractionError, match="folder does not exist"):
        check_figure(tmp_path / "none" / "figure.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(LateInteractionError, match="cannot be written"):
        draw(tmp_path / "folder.svg", "x", [evaluation("BM25", None, None)])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"late-interaction\[plots\]"):
        check_figure(tmp_path / "figure.svg")
