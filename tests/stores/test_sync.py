"""SyncPipeline: the methods of the pipeline for callers of all kinds, also after a fork."""

import asyncio
import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import sync
from late_interaction.errors import DocumentError, LateInteractionError
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.portal import LoopPortal
from late_interaction.sync import SyncPipeline
from tests.support.forks import in_child, needs_fork, portal_threads
from tests.support.models import HashModel
from tests.support.sync import ROWS, make


@pytest.fixture
def portal() -> Iterator[LoopPortal]:
    with LoopPortal() as portal:
        yield portal


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[SyncPipeline]:
    with make(tmp_path) as pipeline:
        yield pipeline


@pytest.fixture
def filled(pipeline: SyncPipeline) -> SyncPipeline:
    pipeline.index_documents(ROWS)
    return pipeline


def public_methods(of: type) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if inspect.isfunction(value) and name[0] != "_"}


def test_it_has_the_methods_of_the_async_pipeline() -> None:
    ours, theirs = public_methods(SyncPipeline), public_methods(LateInteractionPipeline)
    assert ours.keys() - theirs.keys() == {"close", "run", "arun"}
    assert theirs.keys() <= ours.keys()
    for name in theirs.keys() - {"copy_to", "aclose"}:
        assert inspect.signature(ours[name]) == inspect.signature(theirs[name])
        docs, docs_too = inspect.getdoc(ours[name]) or "", inspect.getdoc(theirs[name]) or "none"
        own_example = docs.removeprefix(docs_too)
        assert own_example == "" or own_example.startswith("\n\nExample:\n    >>> "), name
        assert not docs.startswith("As ")
        assert ours[name].__qualname__ == f"SyncPipeline.{name}"
        assert not inspect.iscoroutinefunction(ours[name])
    (other, *options), (others, *theirs_too) = (
        list(inspect.signature(methods["copy_to"]).parameters.values())[1:] for methods in (ours, theirs)
    )
    assert other.name == others.name
    assert options == theirs_too
    ours_made, theirs_made = (
        dict(inspect.signature(of).parameters) for of in (SyncPipeline, LateInteractionPipeline)
    )
    assert ours_made.pop("portal").kind is inspect.Parameter.KEYWORD_ONLY
    assert ours_made == theirs_made


def test_every_method(pipeline: SyncPipeline, tmp_path: Path) -> None:
    assert pipeline.index_document({"doc_id": "a", "content": "alpha beta", "n": 1}) == "a"
    assert pipeline.index_documents([{"doc_id": "b", "content": "beta gamma", "n": 2}], batch_size=5) == ["b"]
    assert pipeline.index_documents(iter([{"doc_id": "c", "content": "delta"}]), skip_existing=True) == ["c"]
    (vectors,) = HashModel().encode_documents(["epsilon zeta"])
    assert pipeline.index_embeddings(iter([{"doc_id": "e", "content": "given"}]), iter([vectors])) == ["e"]
    pipeline.optimize()
    assert [
        doc_id for doc_id, _, _ in pipeline.search("alpha", k=1, n_ann_tokens=50, n_maxsim_candidates=5)
    ] == ["a"]
    assert [found[0].doc_id for found in pipeline.search_many(["alpha", "gamma"], 1)] == ["a", "b"]
    assert pipeline.search("beta", filter={"n": {"$gt": 1}}, exact=True)[0].doc_id == "b"
    assert pipeline.search_with_embeddings(vectors, k=1)[0].doc_id == "e"
    assert np.allclose(pipeline.encode_queries(["epsilon zeta"]), [vectors])
    assert np.allclose(pipeline.get_matrices(["x", "e"])["e"], vectors, atol=0.02)
    assert [document.doc_id for document in pipeline.get_documents(["c", "x", "a"])] == ["c", "a"]
    assert [document.doc_id for document in pipeline.find({"n": {"$exists": True}}, limit=1)] == ["a"]
    assert pipeline.update_metadata("a", {"n": 3})
    assert pipeline.count({"n": 3}) == 1
    assert pipeline.delete_document("c")
    assert pipeline.delete_documents({"n": 3}) == 1
    assert pipeline.delete_documents(["e", "x"]) == 1
    assert pipeline.count() == 1
    assert pipeline.copy_to(tmp_path / "copy") == 1
    with make(tmp_path / "other") as other:
        assert pipeline.copy_to(other) == 1
        assert other.count() == 1
    pipeline.clear()
    assert pipeline.count() == 0
    pipeline.drop()
    assert not list(tmp_path.glob("*/documents.sqlite3"))[1:]
    assert pipeline.count() == 0


def test_copy_needs_one_portal(filled: SyncPipeline, portal: LoopPortal, tmp_path: Path) -> None:
    with make(tmp_path / "other", portal=portal) as other, pytest.raises(ValueError, match="one portal"):
        filled.copy_to(other)


async def test_inside_a_running_loop_and_from_async_code(filled: SyncPipeline) -> None:
    assert filled.search("word7", k=1)[0].doc_id == "d7"
    found = await asyncio.gather(
        *(filled.arun(lambda pipeline, n=n: pipeline.search(f"word{n}", k=1)) for n in range(30))
    )
    assert [results[0].doc_id for results in found] == [row["doc_id"] for row in ROWS]


def test_from_threads_and_other_loops(filled: SyncPipeline) -> None:
    def search(n: int) -> str:
        if n % 2:
            return asyncio.run(filled.arun(lambda pipeline: pipeline.search(f"word{n}", k=1)))[0].doc_id
        return filled.search(f"word{n}", k=1)[0].doc_id

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(search, range(30))) == [row["doc_id"] for row in ROWS]


async def test_opened_and_closed_by_async_code(tmp_path: Path) -> None:
    async with make(tmp_path) as pipeline:
        assert await pipeline.arun(lambda pipeline: pipeline.count()) == 0
    await pipeline.aclose()
    with pytest.raises(LateInteractionError, match="closed"):
        await pipeline.arun(lambda pipeline: pipeline.count())


def test_the_last_pipeline_closes_the_shared_portal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One of its own: other tests may have left pipelines on the process's.
    monkeypatch.setattr(sync, "shared_portal", type(sync.shared_portal)())
    before = portal_threads()
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    first.initialize()
    second.initialize()
    assert len(portal_threads()) == len(before) + 1
    first.close()
    first.close()
    with pytest.raises(LateInteractionError, match="closed"):
        first.count()
    with pytest.raises(LateInteractionError, match="closed"):
        first.index_documents(ROWS)
    assert second.count() == 0
    second.close()
    assert portal_threads() == before
    for use in (SyncPipeline.count, lambda closed: closed.index_documents(ROWS)):
        with pytest.raises(LateInteractionError, match=r"SyncPipeline\(.* is closed; make a new one"):
            use(second)
    with make(tmp_path / "first") as again:
        assert again.count() == 0


def test_a_given_portal_stays_open(portal: LoopPortal, tmp_path: Path) -> None:
    with make(tmp_path, portal=portal) as pipeline:
        assert pipeline.count() == 0
    assert portal.run(asyncio.sleep, 0, "open") == "open"


def test_a_context_that_cannot_open_lets_go(tmp_path: Path) -> None:
    before = portal_threads()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((LateInteractionError, OSError)), make(tmp_path / "file"):
        pass
    assert portal_threads() == before


def test_errors_come_through(pipeline: SyncPipeline) -> None:
    with pytest.raises(DocumentError) as caught:
        pipeline.index_documents([ROWS[0], {"content": None}, ROWS[1]])
    assert caught.value.indexed == ["d0", "d1"]
    with pytest.raises(ValueError, match="k must be"):
        pipeline.search("x", k=0)


# --- the pipeline after a fork ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_fork
def test_a_child_opens_the_index_anew(filled: SyncPipeline) -> None:
    def search() -> list[Any]:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda n: filled.search(f"word{n}", k=1)[0].doc_id, range(4)))
        return [*found, filled.count()]

    assert filled.search("word3", k=1)[0].doc_id == "d3"
    assert in_child(search) == repr(["d0", "d1", "d2", "d3", 30])
    assert in_child(filled.close) == "None"
    filled.index_document({"doc_id": "later", "content": "later"})
    assert in_child(lambda: filled.search("later", k=1)[0].doc_id) == "'later'"
    assert filled.count() == 31


@needs_fork
def test_a_child_of_a_pipeline_that_was_not_open(tmp_path: Path) -> None:
    pipeline = make(tmp_path)

    def use() -> list[object]:
        return [*pipeline.index_documents(iter(ROWS[:2])), pipeline.count()]

    assert in_child(use) == "['d0', 'd1', 2]"
    with pipeline:
        assert pipeline.count() == 2
