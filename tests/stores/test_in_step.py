"""`sync`: an index in step with rows, folders and files, on both engines."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from late_interaction import (
    AstraStore,
    LateInteractionModel,
    LateInteractionPipeline,
    ReadOptions,
    SyncPipeline,
)
from late_interaction.cli.delete import _is_of
from late_interaction.evaluation import load_beir
from late_interaction.folders import FolderSync
from late_interaction.reading.kinds import Kind
from late_interaction.syncing import Progress, file_hash
from tests.stores.astra import QUICK
from tests.support import pdfs
from tests.support.colours import ColourModel, picture
from tests.support.folders import close_folder
from tests.support.models import HashModel
from tools.data_api import DataApiServer, run_in_thread

Open = Callable[..., SyncPipeline]


class Counting(HashModel):
    """Counts the documents that it encodes."""

    n_encoded = 0

    def encode_documents(self, documents: Any, **options: Any) -> Any:
        self.n_encoded += len(documents)
        return super().encode_documents(documents, **options)


@pytest.fixture(scope="module")
def data_api() -> Iterator[DataApiServer]:
    with run_in_thread() as server:
        yield server


@pytest.fixture(params=["folder", "astra"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens pipelines on one index of the test's own."""
    pipelines: list[SyncPipeline] = []
    name = f"t{abs(hash(request.node.nodeid)):x}"

    def made(model: LateInteractionModel | None = None, **options: Any) -> SyncPipeline:
        db: Any = tmp_path / "db"
        if request.param == "astra":
            database = request.getfixturevalue("data_api").async_database()
            db = AstraStore(database, name, limits=QUICK)
        pipelines.append(SyncPipeline(db, model or Counting(), **options))
        return pipelines[-1]

    yield made
    for pipeline in pipelines:
        pipeline.close()


@pytest.fixture
def index(make: Open) -> SyncPipeline:
    return make()


def row(doc_id: str, content: str, **metadata: Any) -> dict[str, Any]:
    return {"doc_id": doc_id, "content": content, **metadata}


def ids(index: SyncPipeline) -> list[str]:
    return sorted(document.doc_id for document in index.find())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "one"
    (made / "in").mkdir(parents=True)
    (made / "a.txt").write_text("the wing is thin\n")
    (made / "in" / "b.md").write_text("# Head\n\nthe flow is fast\n")
    (made / "c.zip").write_bytes(b"PK")
    return made


def test_rows_come_into_step(index: SyncPipeline) -> None:
    first = index.sync([row("a", "wing", n=1), row("b", "flow"), row("c", "heat")])
    assert (first.new, first.removed) == (("a", "b", "c"), ())
    index.index_documents([row("hand", "made")])
    index.model.n_encoded = 0  # type: ignore[attr-defined]
    again = index.sync(iter([row("a", "wing", n=2), row("b", "flows")]))
    assert (again.changed, again.unchanged, again.removed, again.deleted) == (("a", "b"), (), ("c",), ())
    assert index.model.n_encoded == 1  # type: ignore[attr-defined]
    assert index.get_documents(["a"])[0].metadata == {"n": 2}
    assert ids(index) == ["a", "b", "c", "hand"]
    pruned = index.sync([row("a", "wing", n=2), row("b", "flows")], prune=True)
    assert (pruned.unchanged, pruned.deleted) == (("a", "b"), ("c",))
    assert str(pruned) == "0 new, 0 changed, 2 unchanged, 1 removed"
    assert ids(index) == ["a", "b", "hand"]


def test_an_async_iterable_will_do(tmp_path: Path) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield row("a", "wing")

    async def run() -> tuple[str, ...]:
        async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
            return (await pipeline.sync(rows())).new

    assert asyncio.run(run()) == ("a",)


def test_scopes_do_not_touch_each_other(index: SyncPipeline) -> None:
    index.sync([row("a", "wing")], scope="x")
    other = index.sync([row("b", "flow"), row("a", "other")], scope="y", prune=True)
    assert other.new == ("b",)
    assert [failure.doc_id for failure in other.failed] == ["a"]  # type: ignore[attr-defined]
    assert index.get_documents(["a"])[0].content == "wing"


@pytest.mark.parametrize("scope", ["", "products"])
def test_files_in_the_scope_of_rows_do_not_remove_them(index: SyncPipeline, folder: Path, scope: str) -> None:
    index.sync([row("a", "wing")], scope=scope)
    assert index.sync(folder, scope=scope, prune=True).removed == ()


def test_equal_ids_are_told_and_the_first_is_kept(index: SyncPipeline) -> None:
    report = index.sync([row("a", "wing"), row("a", "flow"), {"content": "no id"}])
    assert [str(one) for one in report.failed] == [
        "row 1 (doc_id 'a'): row 1 has the id of row 0, which is kept.",
        "row 2: it has no doc_id, by which it could be compared.",
    ]
    assert index.get_documents(["a"])[0].content == "wing"


def test_documents_of_other_calls_are_compared_by_content(index: SyncPipeline) -> None:
    index.index_documents([row("a", "wing"), row("b", "flow")])
    index.model.n_encoded = 0  # type: ignore[attr-defined]
    report = index.sync([row("a", "wing"), row("b", "flows")])
    assert (report.unchanged, report.changed) == (("a",), ("b",))
    assert index.model.n_encoded == 1  # type: ignore[attr-defined]


def test_what_sync_keeps_is_no_metadata(index: SyncPipeline, tmp_path: Path) -> None:
    index.sync([row("a", "wing", n=1)])
    assert index.search("wing")[0].metadata == {"n": 1}
    index.update_metadata("a", {"m": 2}, replace=True)
    assert index.get_documents(["a"])[0].metadata == {"m": 2}
    with SyncPipeline(tmp_path / "copy", Counting()) as copied:
        index.copy_to(copied)
        assert copied.sync([], prune=True).removed == ("a",)
    with pytest.raises(ValueError, match="reserved"):
        index.index_documents([row("b", "x", _sync={})])


def test_a_failed_row_is_not_removed(index: SyncPipeline) -> None:
    index.sync([row("a", "wing")])
    report = index.sync([{"doc_id": "a", "content": 5}], prune=True)
    assert (len(report.failed), report.removed) == (1, ())


def test_only_changed_files_are_read(index: SyncPipeline, folder: Path) -> None:
    first = index.sync(folder)
    assert first.new == ("a.txt#1", "in/b.md#1")
    assert str(first) == "2 new, 0 changed, 0 unchanged, 0 removed, 1 left out (.zip 1)"
    assert first.files == {"indexed": 2, "unchanged": 0, "left_out": 1, "failed": 0}
    assert {document.metadata["source"] for document in index.find()} == {"a.txt", "in/b.md"}
    index.model.n_encoded = 0  # type: ignore[attr-defined]
    (folder / "a.txt").write_text("the wing is thick\n")
    again = index.sync(str(folder))
    assert (again.changed, again.unchanged) == (("a.txt#1",), ("in/b.md#1",))
    assert index.model.n_encoded == 1  # type: ignore[attr-defined]
    assert index.get_documents(["a.txt#1"])[0].content == "the wing is thick"


def test_links_are_read_as_their_names_say(index: SyncPipeline, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "3f2a").write_text("# Head\n\nthe heat\n")
    (tmp_path / "data.txt").write_text("id,text\n7,the lift\n")
    (folder / "link.md").symlink_to(tmp_path / "3f2a")
    (folder / "table.csv").symlink_to(tmp_path / "data.txt")
    report = index.sync(folder)
    assert (report.new, report.failed) == (("a.txt#1", "in/b.md#1", "link.md#1", "7"), ())
    assert index.get_documents(["link.md#1"])[0].metadata["heading"] == "Head"
    assert len(index.sync(folder / "link.md").unchanged) == 1


def test_a_file_that_is_gone_or_shorter(index: SyncPipeline, folder: Path) -> None:
    lines = '{"text": "one wing"}\n', '{"text": "two wings"}\n'
    (folder / "long.jsonl").write_text("".join(lines))
    reading = ReadOptions(headings=False)
    assert len(index.sync(folder, reading=reading).new) == 4
    (folder / "long.jsonl").write_text(lines[0])
    (folder / "a.txt").unlink()
    report = index.sync(folder, reading=reading)
    assert (tuple(sorted(report.removed)), report.deleted) == (("a.txt#1", "long.jsonl:2"), ("long.jsonl:2",))
    assert index.sync(folder, reading=reading, prune=True).deleted == ("a.txt#1",)
    assert ids(index) == ["in/b.md#1", "long.jsonl:1"]


def test_a_moved_folder_changes_nothing(
    index: SyncPipeline, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.sync(folder)
    moved = folder.rename(folder.with_name("two"))
    index.model.n_encoded = 0  # type: ignore[attr-defined]
    report = index.sync(moved, prune=True)
    assert (report.changed, report.unchanged, report.removed) == ((), ("a.txt#1", "in/b.md#1"), ())
    assert index.model.n_encoded == 0  # type: ignore[attr-defined]
    assert "taken for one that was indexed before: of the 2 files of that one, 2 are here" in caplog.text
    caplog.clear()
    assert not index.sync(moved).failed
    assert caplog.text == ""


@pytest.mark.parametrize(("n_files", "n_changed", "is_known"), [(9, 1, False), (10, 1, True), (20, 3, False)])
def test_a_folder_is_known_by_nine_tenths_of_its_files(
    tmp_path: Path, n_files: int, n_changed: int, *, is_known: bool
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    for n in range(n_files):
        (folder / f"{n}.txt").write_text(f"wing {n}\n")
    with SyncPipeline(tmp_path / "db", Counting()) as index:
        index.sync(folder)
        moved = folder.rename(tmp_path / "two")
        for n in range(n_changed):
            (moved / f"{n}.txt").write_text(f"flow {n}\n")
        report = index.sync(moved, prune=True)
        assert len(report.failed) == (0 if is_known else n_files)
        assert len(report.changed) == (n_changed if is_known else 0)
        if is_known:
            return
        # The message says how to name it.
        told = str(report.failed[0])
        [scope] = re.findall(r'moved and changed since, give scope="(.+)"\.$', told)
        again = index.sync(moved, scope=scope, prune=True)
        assert (len(again.changed), len(again.unchanged), again.failed) == (
            n_changed,
            n_files - n_changed,
            (),
        )
        assert not index.sync(moved).failed  # as all of it is unchanged now


def test_two_projects_with_the_same_licence_are_two_folders(index: SyncPipeline, tmp_path: Path) -> None:
    for name, own in (("p1", "whales"), ("p2", "bees")):
        (tmp_path / name).mkdir()
        for shared in ("LICENSE.txt", "CONTRIBUTING.md"):
            (tmp_path / name / shared).write_text(f"{shared} of all\n")
        (tmp_path / name / "README.md").write_text(f"about {own}\n")
        (tmp_path / name / f"{own}.md").write_text(f"a guide to {own}\n")
    index.sync(tmp_path / "p1", prune=True)
    before = [asdict(document) for document in index.find()]
    report = index.sync(tmp_path / "p2", prune=True)
    assert (report.new, report.changed, report.removed) == (("bees.md#1",), (), ())
    assert [failure.doc_id for failure in report.failed] == [  # type: ignore[attr-defined]
        "CONTRIBUTING.md#1",
        "LICENSE.txt#1",
        "README.md#1",
    ]
    assert "another folder's README.md, which is kept: sync both folders with a root=" in str(
        report.failed[2]
    )
    assert [asdict(one) for one in index.find() if one.doc_id != "bees.md#1"] == before
    # What the second one loses is its own, too.
    for shared in ("LICENSE.txt", "README.md"):
        (tmp_path / "p2" / shared).unlink()
    assert index.sync(tmp_path / "p2", prune=True).deleted == ()
    assert len(index.sync(tmp_path / "p1").unchanged) == 4


def test_two_folders_keep_out_of_each_others_way(index: SyncPipeline, folder: Path, tmp_path: Path) -> None:
    index.sync(folder)
    other = tmp_path / "deep" / "one"
    other.mkdir(parents=True)
    (other / "a.txt").write_text("quite another text\n")
    (other / "d.txt").write_text("heat\n")
    report = index.sync(other, prune=True)
    assert (report.new, report.removed) == (("d.txt#1",), ())
    assert "another folder's a.txt" in str(report.failed[0])
    assert report.files == {"indexed": 1, "unchanged": 0, "left_out": 0, "failed": 1}
    together = index.sync([folder, other], root=tmp_path)
    assert {"one/a.txt#1", "deep/one/a.txt#1"} <= {*together.new}


def test_one_file_does_not_remove_its_neighbours(index: SyncPipeline, folder: Path) -> None:
    index.sync(folder)
    assert index.sync(folder / "a.txt", prune=True).unchanged == ("a.txt#1",)
    assert len(ids(index)) == 2


def test_equal_ids_of_two_files_name_both(index: SyncPipeline, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name in "ab":
        (files / f"{name}.csv").write_text(f"id,text\n1,the {name} wing\n")
    report = index.sync(files)
    assert report.new == ("1",)
    assert f"{files / 'b.csv'}:2 has the id of {files / 'a.csv'}:2" in str(report.failed[0])
    assert report.files == {"indexed": 1, "unchanged": 0, "left_out": 0, "failed": 1}


def test_two_files_of_one_name_in_one_scope_are_told_in_each_call(
    index: SyncPipeline, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "two"
    other.mkdir()
    (other / "a.txt").write_text("another wing\n")
    for indexed in (2, 0):
        report = index.sync([folder, other], scope="both", prune=True)
        reason = f"has the name of {folder / 'a.txt'} in this scope, which is kept: give a root= above both"
        assert [str(one) for one in report.failed] == [f"{other / 'a.txt'}: {reason}"]
        assert report.files == {"indexed": indexed, "unchanged": 2 - indexed, "left_out": 1, "failed": 1}
        assert index.get_documents(["a.txt#1"])[0].content == "the wing is thin"
    together = index.sync([folder, other], scope="both", root=tmp_path, prune=True)
    assert (len(together.new), together.failed) == (3, ())


def test_an_id_stays_with_the_file_that_has_it(index: SyncPipeline, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name in "ab":
        (files / f"{name}.csv").write_text(f"id,text\n1,the {name} wing\n")
    index.sync(files)
    again = index.sync(files)  # a.csv is unchanged, and b.csv is read again
    assert str(again.failed[0]).endswith("b.csv:2 has the id of a document of a.csv, which is kept.")
    assert (again.changed, again.files["failed"]) == ((), 1)
    assert index.get_documents(["1"])[0].content == "the a wing"
    # A row that moves to another file goes with it.
    (files / "a.csv").write_text("id,text\n2,another wing\n")
    moved = index.sync(files)
    assert (moved.new, moved.changed, moved.failed) == (("2",), ("1",), ())
    (files / "b.csv").rename(files / "z.csv")
    assert index.sync(files, prune=True).removed == ()
    # To one that is read before the other only when the other has given it up.
    (files / "z.csv").write_text("id,text\n3,a third wing\n")
    (files / "a.csv").write_text("id,text\n2,another wing\n1,the b wing\n")
    assert len(index.sync(files).failed) == 1
    assert index.sync(files).failed == ()
    assert ids(index) == ["1", "2", "3"]


def test_an_interrupted_call_goes_on(
    index: SyncPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(60):
        (folder / f"f{n:02}.txt").write_text(f"wing {n}\n")
    encode = Counting.encode_documents

    def fail(self: Counting, documents: Any, **options: Any) -> Any:
        if self.n_encoded > 20:
            raise KeyError("out of memory")
        return encode(self, documents, **options)

    monkeypatch.setattr(Counting, "encode_documents", fail)
    with pytest.raises(KeyError):
        index.sync(folder)
    kept = len(ids(index))
    assert 0 < kept < 62
    monkeypatch.undo()
    index.model.n_encoded = 0  # type: ignore[attr-defined]
    assert len(index.sync(folder).new) == 62 - kept
    assert index.model.n_encoded == 62 - kept  # type: ignore[attr-defined]


class StoppedError(Exception):
    """Stands for a kill, Ctrl-C or a lost connection."""


def stop_before(store: Any, n: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Let `n` writes of a store through, and stop before the next one; return what was called."""
    called: list[str] = []

    def stopped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*given: Any, **options: Any) -> Any:
            if len(called) == n:
                raise StoppedError
            called.append(name)
            return call(*given, **options)

        return before

    for name in ("upsert", "update_metadata", "delete"):
        patch.setattr(store, name, stopped(name, getattr(store, name)))
    return called


@pytest.mark.slow
def test_a_call_that_is_stopped_before_any_write_goes_on_where_it_was(
    make: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moved folder, of which a file is changed, one shorter, one gone, one new, and of one a column."""
    index = make()
    lines = [json.dumps({"id": f"r{n}", "text": f"row {n}", "n": n}) for n in range(40)]
    names = [f"same{n}.txt" for n in range(27)]

    def before() -> Path:
        index.clear()
        (folder / "rows.jsonl").write_text("\n".join(lines))
        for name in (*names, "gone.txt", "changed.txt"):
            (folder / name).write_text(f"the text of {name}")
        (folder / "new.txt").unlink(missing_ok=True)
        index.sync(folder)
        moved = folder.rename(folder.with_name("moved"))
        (moved / "changed.txt").write_text("quite another text")
        (moved / "gone.txt").unlink()
        (moved / "new.txt").write_text("a new text")
        other = [line.replace('"n": 3', '"n": 4') for line in lines[:25]]
        (moved / "rows.jsonl").write_text("\n".join(other))
        return moved

    def state() -> list[str]:
        return sorted(json.dumps([asdict(document) for document in [one]]) for one in index.find())

    moved = before()
    with monkeypatch.context() as patch:
        calls = stop_before(index._pipeline.store, 10_000, patch)
        index.sync(moved, prune=True)
    wanted = state()
    assert {*calls} == {"upsert", "update_metadata", "delete"}
    for n in range(0, len(calls), max(1, len(calls) // 4)):
        moved = moved.rename(folder)
        moved = before()
        with monkeypatch.context() as patch:
            stop_before(index._pipeline.store, n, patch)
            with pytest.raises(StoppedError):
                index.sync(moved, prune=True)
        index.model.n_encoded = 0  # type: ignore[attr-defined]
        report = index.sync(moved, prune=True)
        assert not report.failed
        assert state() == wanted
        assert index.model.n_encoded <= 2  # type: ignore[attr-defined]


def test_progress_names_the_file_and_moves_with_what_was_encoded(
    index: SyncPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"text": f"row number {n}"}) for n in range(100)]
    (folder / "z.jsonl").write_text("\n".join(lines))
    seen: list[tuple[int, int, str]] = []
    show = FolderSync._show

    def spy(self: FolderSync, bar: Any, n: int, progress: Progress) -> None:
        show(self, bar, n, progress)
        encoded = index.model.n_encoded  # type: ignore[attr-defined]
        seen.append((encoded, bar.n, f"{n} {progress.file} {bar.postfix}"))

    monkeypatch.setattr(FolderSync, "_show", spy)
    index.sync(folder, show_progress=True)
    assert seen[0][1:] == (0, "0 a.txt 0 documents, file 1 of 3, a.txt")
    assert seen[-1][2] == "101 z.jsonl 101 documents, file 3 of 3, z.jsonl"
    assert [n for _, n, _ in seen] == sorted(n for _, n, _ in seen)
    total = sum(
        file.stat().st_size for file in folder.rglob("*.*") if file.suffix != ".zip" and file.is_file()
    )
    assert total / 2 < seen[-1][1] < total
    # What is said to be done is encoded, but for the batch that is being gathered.
    assert all(n - encoded <= 16 for n, (encoded, _, _) in enumerate(seen[:17]))
    assert max(encoded for encoded, _, _ in seen) > 16


def test_the_name_of_a_file_is_no_command_to_the_terminal(
    index: SyncPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    show = FolderSync._show

    def spy(self: FolderSync, bar: Any, n: int, progress: Progress) -> None:
        show(self, bar, n, progress)
        shown.append(bar.postfix)

    monkeypatch.setattr(FolderSync, "_show", spy)
    (folder / f"{'long' * 20}\x1b[31m.txt").write_text("x y z")
    index.sync(folder, show_progress=True)
    assert f"0 documents, file 1 of 3, …{('long' * 20)[-31:]} [31m.txt"[-40:] in " ".join(shown)
    assert not any("\x1b" in line for line in shown)


def test_a_file_that_cannot_be_read_is_a_failure(
    index: SyncPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_, closed = Path.open, folder / "closed.txt"
    closed.write_text("secret")

    def refuse(self: Path, *given: Any, **options: Any) -> Any:
        if self.name == closed.name:
            raise PermissionError(13, "Permission denied")
        return open_(self, *given, **options)

    def refused(path: Any) -> str:
        return file_hash(path) if Path(path).name != closed.name else refuse(Path(path))

    monkeypatch.setattr("late_interaction.folders.file_hash", refused)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", lambda self: refuse(self, "rb").read())
    report = index.sync(folder)
    assert [str(problem) for problem in report.failed] == [f"{closed}: Permission denied"]
    assert report.files == {"indexed": 2, "unchanged": 0, "left_out": 1, "failed": 1}


def test_files_of_another_root_are_told_once(
    index: SyncPipeline, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "LICENSE.txt").write_text("of all\n")
    (folder.parent / "two").mkdir()
    (folder.parent / "two" / "LICENSE.txt").write_text("of all\n")
    index.sync(folder)
    assert caplog.text == ""
    index.sync(folder / "in")
    index.sync(folder / "in")
    index.sync(folder, root=folder.parent)
    index.sync(folder.parent / "two")  # the same name is a failure that is told anyway
    told = [record.getMessage() for record in caplog.records]
    assert [re.sub(r" of the new .* root: |\. Each .*", " ", one) for one in told] == [
        "1 b.md is there as in/b.md ",
        "3 one/LICENSE.txt is there as LICENSE.txt ",
        "1 LICENSE.txt is there as one/LICENSE.txt ",
    ]
    assert told[0].endswith("late-interaction delete --source in/b.md")


@pytest.mark.parametrize("root", [None, "above"])
def test_what_is_in_a_closed_folder_is_kept(
    index: SyncPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch, root: str | None
) -> None:
    options: dict[str, Any] = {"prune": True, "gitignore": False, "root": root and folder.parent}
    (folder / "in" / "deeper").mkdir()
    (folder / "in" / "deeper" / "c.txt").write_text("the heat\n")
    (folder / "inner.txt").write_text("another\n")
    (folder / "drive").symlink_to(folder.parent / "drive")
    (folder.parent / "drive").mkdir()
    (folder.parent / "drive" / "d.txt").write_text("on a drive\n")
    before = index.sync(folder, **options).new
    assert len(before) == 5
    close_folder(monkeypatch, "in")
    (folder / "inner.txt").unlink()
    (folder.parent / "drive").rename(folder.parent / "not mounted")
    report = index.sync(folder, **options)
    assert [doc_id.rpartition("/")[2] for doc_id in report.deleted] == ["inner.txt#1"]
    assert report.left_out == {"folder": 1, "without a suffix": 1, ".zip": 1}
    monkeypatch.undo()
    (folder / "drive").unlink()
    assert [doc_id.rpartition("/")[2] for doc_id in index.sync(folder, **options).deleted] == ["d.txt#1"]


def test_what_needs_an_extra_that_is_not_here_is_kept(
    index: SyncPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "page.html").write_text("a page")
    monkeypatch.setattr("late_interaction.reading.finding.importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("late_interaction.folders.kind_of", lambda file: Kind.TEXT)
    monkeypatch.setattr("late_interaction.reading.files.kind_of", lambda file: Kind.TEXT)
    assert "page.html#1" in index.sync(folder).new
    monkeypatch.setattr("late_interaction.reading.finding.importlib.util.find_spec", lambda name: None)
    assert index.sync(folder, prune=True).deleted == ()


def test_documents_are_known_by_the_file_that_they_are_of(index: SyncPipeline, folder: Path) -> None:
    (folder / "table.csv").write_text("id,text,source\n1,ferry,Reuters\n2,bus,a%c\n")
    (folder / "2024-05-01").mkdir()
    (folder / "2024-05-01" / "x_y.txt").write_text("of May")
    (folder / "2024-05-01T00:00:00.txt").write_text("of May, too")
    index.sync(folder)
    index.index_documents([row("day", "x", source="2024-05-01T00:00:00"), row("other", "x", source="abc")])
    counted = {
        name: index.count(_is_of(name)) for name in ("table.csv", "Reuters", "2024-05-01", "a%c", "a_c")
    }
    assert counted == {"table.csv": 2, "Reuters": 1, "2024-05-01": 1, "a%c": 1, "a_c": 0}
    assert index.count(_is_of("2024-05-01/x_y.txt")) == 1
    assert index.count(_is_of("b\\c")) == 0


def test_a_pattern_of_gitignore_that_is_none_is_a_failure(index: SyncPipeline, folder: Path) -> None:
    (folder / ".gitignore").write_text("c.zip\nin\\\n")
    report = index.sync(folder)
    assert [str(one) for one in report.failed] == [
        f"{folder / '.gitignore'}:2: the pattern leaves nothing out: nothing is behind its backslash"
    ]
    assert report.files == {"indexed": 2, "unchanged": 0, "left_out": 1, "failed": 0}


def test_ids_of_an_earlier_release_are_replaced(index: SyncPipeline, folder: Path) -> None:
    path = (folder / "a.txt").resolve()
    index.index_documents([row(f"{path}#1", "the wing is thin", source=str(path))])
    linked = folder.with_name("linked")
    linked.symlink_to(folder)  # those ids had the paths without links
    report = index.sync(linked)
    assert report.deleted == (f"{path}#1",)
    assert ids(index) == ["a.txt#1", "in/b.md#1"]


def test_ids_of_an_earlier_release_at_another_place_are_told(
    index: SyncPipeline, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, there = tmp_path / "old", tmp_path / "there" / "a.txt"
    there.parent.mkdir()
    there.write_text("of another folder\n")
    for path in (old / "in" / "b.md", old / "x.txt", there):
        index.index_documents([row(f"{path}#1", "the flow is fast", source=str(path))])
    index.index_documents([row("b.md", "by hand", source=str(old / "in" / "b.md"))])
    with caplog.at_level(logging.WARNING):
        report = index.sync(folder, prune=True)
    assert (len(report.new), report.removed) == (2, ())  # Who knows whose they are?
    [told] = [record.getMessage() for record in caplog.records if "earlier release" in record.getMessage()]
    assert f"earlier release (1) whose ids begin with {old}," in told
    assert told.endswith(f"late-interaction delete --source {old}")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a photo, a fax of two pages, a report, and rows that name photos."""
    pytest.importorskip("PIL", reason="the colpali extra is not installed")
    folder = tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    picture("red").save(folder / "in" / "red.png")
    picture("blue").save(folder / "in" / "fax.tif", save_all=True, append_images=[picture("green")])
    if find_spec("pypdfium2"):
        (folder / "report.pdf").write_bytes(pdfs.pdf(pdfs.DRAWING))
    beside = [
        {"id": "beside", "image": "red.png"},
        {"id": "above", "image": "../in/red.png", "text": "with a caption"},
        {"id": "absolute", "image": str(folder / "in" / "red.png"), "content_type": "photo"},
    ]
    (folder / "in" / "rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in beside))
    (folder / "note.txt").write_text("red red\n")
    return folder


@pytest.mark.parametrize("store_images", ["reference", "thumbnail", "full"])
def test_no_path_of_a_machine_is_stored(
    make: Open, pictures: Path, tmp_path: Path, store_images: str
) -> None:
    index = make(ColourModel(), store_images=store_images)
    report = index.sync(pictures)
    assert not report.failed
    documents = {document.doc_id: document for document in index.find()}
    for document in documents.values():
        said = json.dumps(asdict(document))
        assert str(tmp_path) not in said
        assert str(tmp_path.resolve()) not in said
    pages = {"report.pdf#1"} if find_spec("pypdfium2") else set()
    photos = {"in/red.png", "in/fax.tif#1", "in/fax.tif#2", "beside", "above", "absolute"}
    assert {*documents} == {"note.txt#1", *photos, *pages}
    if store_images != "full":
        images = {doc_id: one.metadata.get("image") for doc_id, one in documents.items() if doc_id in photos}
        pages_of_fax = {f"in/fax.tif#{page}": f"in/fax.tif#page={page}" for page in (1, 2)}
        assert images == dict.fromkeys(photos, "in/red.png") | pages_of_fax
    assert documents["in/red.png"].content == "in/red.png"
    assert documents["above"].content == "with a caption"


def test_pictures_of_a_moved_folder_are_found_and_not_encoded(make: Open, pictures: Path) -> None:
    index = make(model := ColourModel())
    rows = pictures / "in" / "rows.jsonl"
    rows.write_text("".join(line for line in rows.open() if str(pictures) not in line))
    n_documents = len(index.sync(pictures).new)
    before = index.find()
    moved = pictures.rename(pictures.with_name("elsewhere"))
    model.batches.clear()
    report = index.sync(moved, prune=True)
    assert (report.new, report.changed, report.removed, report.failed) == ((), (), (), ())
    assert len(report.unchanged) == n_documents
    assert model.batches == []
    assert sorted(map(_said, index.find())) == sorted(map(_said, before))
    assert index.search("green")[0].doc_id == "in/fax.tif#2"


def _said(document: Any) -> str:
    return json.dumps([document.doc_id, document.content, document.metadata])


def test_paths_that_an_earlier_layout_stored_of_images_are_replaced(
    make: Open, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make(model := ColourModel())
    monkeypatch.setattr("late_interaction.folders._READING", 1)
    index.sync(pictures)
    monkeypatch.undo()
    index.update_metadata("in/red.png", {"image": str(pictures / "in" / "red.png")})
    model.batches.clear()
    assert index.sync(pictures).changed == ("in/red.png",)
    assert model.batches == []
    assert index.get_documents(["in/red.png"])[0].metadata["image"] == "in/red.png"


def test_images_of_rows_are_from_their_root(make: Open, pictures: Path, tmp_path: Path) -> None:
    index = make(ColourModel(), image_root=pictures)
    index.index_documents([{"doc_id": "a", "image": "in/red.png"}])
    assert index.get_documents(["a"])[0].metadata["image"] == "in/red.png"
    index.index_documents(index.get_documents(["a"]))  # as they were stored
    assert index.search("red")[0].doc_id == "a"


def test_a_folder_of_beir_is_its_corpus(index: SyncPipeline, tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text('{"_id": "1", "title": "Wing", "text": "is thin"}\n')
    (beir / "queries.jsonl").write_text('{"_id": "1", "text": "what is thin?"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n")
    report = index.sync(beir)
    assert report.new == ("1",)
    # One rule for what is searched and what is measured.
    assert index.get_documents(["1"])[0].content == load_beir(beir).documents["1"] == "Wing is thin"
    assert report.files == {"indexed": 1, "unchanged": 0, "left_out": 2, "failed": 0}
