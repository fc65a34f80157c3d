"""Folders of every shape: each file is indexed, unchanged, left out or failed, and nothing is counted twice."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction import SyncPipeline
from late_interaction.reading.finding import find
from late_interaction.reading.kinds import KINDS
from late_interaction.syncing import SyncReport
from tests.support.models import HashModel

FILES = {
    "a.txt": b"the wing is thin\n",
    "same.txt": b"the wing is thin\n",
    "empty.txt": b"",
    "blank.md": b"  \n\n",
    "binary.txt": bytes(range(256)) * 20,
    "ids.jsonl": b'{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n',
    "twice.jsonl": b'{"id": "3", "text": "one"}\n{"id": "3", "text": "two"}\n',
    "bad.jsonl": b'{"id": "4", "text": "good"}\nnot json\n',
    "ids.csv": b"id,text\n1,another one\n",
    "no text.csv": b"a,b\n1,2\n",
    "data.json": b'{"a": [1, 2]}',
    "broken.pdf": b"%PDF-1.7 nothing",
    "photo.png": b"\x89PNG",
    "archive.zip": b"PK",
    "README": b"no suffix",
    "UPPER.TXT": b"an upper case suffix",
    ".hidden.txt": b"no part of the folder",
    "unencodable.txt": b"this is unencodable\n",
    "vanishes.txt": b"there while the folder is listed, and not when it is read",
    "changes.txt": b"one text at first",
}
FOLDERS = ["", "in", "in/deeper", "other", ".git", "in/.hidden"]
LINKS = ["none", "a link to a file", "a link to a folder", "a circle", "a broken link"]

trees = st.fixed_dictionaries(
    {folder: st.sets(st.sampled_from(sorted(FILES)), max_size=7) for folder in FOLDERS}
)


def plant(root: Path, tree: dict[str, set[str]], links: set[str]) -> None:
    for folder, names in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / name).write_bytes(FILES[name])
    if "a link to a file" in links and (root / "in" / "a.txt").exists():
        (root / "z link.txt").symlink_to(root / "in" / "a.txt")
    if "a link to a folder" in links:
        (root / "z linked").symlink_to(root / "other")
    if "a circle" in links:
        (root / "in" / "circle").symlink_to(root)
    if "a broken link" in links:
        (root / "z broken.txt").symlink_to(root / "nowhere")


def counted(root: Path) -> Counter[str]:
    """Count by hand what a folder holds: what can be read once each, the rest by name, a broken link for itself."""
    kept: set[str] = set()
    left = 0
    seen: set[str] = set()

    def walk(folder: Path) -> None:
        nonlocal left
        if (real := os.path.realpath(folder)) in seen:
            return
        seen.add(real)
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                walk(path)
            elif path.is_file() and path.suffix.lower() in {*KINDS} - {".png"}:
                kept.add(os.path.realpath(path))
            else:
                left += 1

    walk(root)
    return Counter(kept=len(kept), left_out=left)


def check(report: SyncReport, root_count: Counter[str]) -> None:
    files = report.files
    assert set(files) == {"indexed", "unchanged", "left_out", "failed"}
    assert files["indexed"] + files["unchanged"] + files["failed"] == root_count["kept"]
    assert files["left_out"] == root_count["left_out"] == sum(report.left_out.values())


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(trees, st.sets(st.sampled_from(LINKS)), trees)
def test_the_summary_adds_up_on_any_folder(
    tree: dict[str, set[str]], links: set[str], later: dict[str, set[str]]
) -> None:
    place = Path(tempfile.mkdtemp())
    try:
        root = place / "root"
        plant(root, tree, links)
        (root / "always.txt").write_text("there is something to read")
        with SyncPipeline(place / "db", HashModel()) as index, pytest.MonkeyPatch.context() as patch:
            count = counted(root)
            vanish(patch)
            first = index.sync(root)
            check(first, count)
            patch.undo()
            assert {document.doc_id for document in index.find()} == {*first.new}
            # Again: what was indexed is unchanged, what failed fails again or is there now.
            for path in root.rglob("changes.txt"):
                path.write_text("another text now")
            plant(root, later, set())
            second = index.sync(root, prune=True)
            check(second, counted(root))
            third = index.sync(root, prune=True)
            check(third, counted(root))
            assert (third.new, third.changed, third.removed) == ((), (), ())
            there = {document.doc_id for document in index.find()}
            assert {*third.unchanged} <= there
    finally:
        shutil.rmtree(place)


def vanish(patch: pytest.MonkeyPatch) -> None:
    """Let each vanishes.txt vanish when its folder was compared with the index."""
    from late_interaction.folders import FolderSync

    run = FolderSync.run

    async def after(self: FolderSync, *given: Any, **options: Any) -> SyncReport:
        for file in self.found.files:
            if file.name == "vanishes.txt":
                file.unlink()
        return await run(self, *given, **options)

    patch.setattr(FolderSync, "run", after)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_left_out_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in folder.txt")
    os.mkfifo(tmp_path / "named.txt")
    (tmp_path / "a.txt").write_text("the wing")
    found = find([tmp_path / "named.txt", tmp_path])
    assert [file.name for file in found.files] == ["a.txt"]
    assert found.left_out == {"which are no files, but pipes or devices": {".txt": 3}}
    with pytest.raises(ValueError, match=r"1 left out \(\.txt 1\), which are no files, but pipes or devices"):
        find([tmp_path / "named.txt"])
