"""Which files of folders are read: links, patterns, .gitignore; and what is left out is counted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from late_interaction.reading import finding
from late_interaction.reading.finding import Found, find
from late_interaction.reading.kinds import Kind, kind_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "docs"


def make(folder: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def names(found: Found, folder: Path) -> list[str]:
    return [file.relative_to(folder.resolve()).as_posix() for file in found.files]


def test_what_is_not_read_is_counted_by_suffix(folder: Path) -> None:
    make(folder, "a.txt", "b.zip", "c.ZIP", "d/e.mp3", "Makefile", ".hidden.zip", ".git/x.zip")
    found = find([folder])
    assert names(found, folder) == ["a.txt"]
    assert found.left_out == {finding.UNKNOWN: {".zip": 2, ".mp3": 1, "without a suffix": 1}}
    assert found.n_left_out == 4
    assert str(found) == "4 left out (.zip 2, .mp3 1, without a suffix 1), of kinds that are not read"


def test_one_folder_with_nothing_to_read_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    make(folder, "a.txt")
    make(tmp_path / "other", "b.zip")
    found = find([tmp_path / "other", folder, tmp_path / "other" / "b.zip"])
    assert names(found, folder) == ["a.txt"]
    assert found.n_left_out == 2


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    make(folder, "a.txt", "sub/b.txt")
    make(tmp_path / "other", "c.txt")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "to").symlink_to(tmp_path / "other")
    (folder / "to_again").symlink_to(tmp_path / "other")
    (folder / "z.txt").symlink_to(folder / "a.txt")
    (folder / "nowhere.txt").symlink_to(folder / "gone.txt")
    (tmp_path / "other" / "back").symlink_to(folder)
    found = find([folder])
    assert [file.name for file in found.files] == ["a.txt", "b.txt", "c.txt"]
    assert found.left_out == {finding.BROKEN: {".txt": 1}}


def test_a_link_has_its_own_name_and_kind(folder: Path, tmp_path: Path) -> None:
    make(tmp_path, "store/3f2a9c", "store/data.txt")
    make(folder, "z.csv")
    for name, target in (
        ("notes.md", "store/3f2a9c"),
        ("table.csv", "store/data.txt"),
        ("again.txt", "store/data.txt"),
    ):
        (folder / name).symlink_to(tmp_path / target)
    (folder / "a.txt").symlink_to(folder / "z.csv")
    (folder / "no suffix").symlink_to(tmp_path / "store" / "data.txt")
    found = find([folder])
    # A file's own name comes before that of a link, and of several links the first one counts.
    assert names(found, folder) == ["z.csv", "again.txt", "notes.md"]
    assert [kind_of(file) for file in found.files] == [Kind.CSV, Kind.TEXT, Kind.MARKDOWN]
    assert found.names[folder / "notes.md"] == (folder, "notes.md")
    assert found.left_out == {finding.UNKNOWN: {"without a suffix": 1}}
    table = find([folder / "table.csv"])
    assert (table.files, table.named) == ((folder / "table.csv",), {folder / "table.csv"})
    # Named by a link, and found in a folder.
    both = find([folder / "a.txt", folder])
    assert both.named == {folder / "z.csv"}


def test_a_folder_that_cannot_be_opened_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder, "a.txt", "shut/b.txt")
    inside = Path.iterdir

    def closed(path: Path) -> object:
        if path.name == "shut":
            raise PermissionError(13, "Permission denied")
        return inside(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    found = find([folder])
    assert names(found, folder) == ["a.txt"]
    assert found.left_out == {finding.CLOSED: {"folder": 1}}


def test_a_name_that_is_not_utf8_is_matched_too(folder: Path) -> None:
    make(folder, "a.txt", "caf\udce9.txt")
    (folder / ".gitignore").write_text("b.txt\n")
    assert len(find([folder]).files) == 2
    assert names(find([folder], exclude=["caf*"]), folder) == ["a.txt"]


def test_patterns_exclude(folder: Path) -> None:
    make(folder, "a.txt", "b.log", "drafts/c.txt", "sub/d.log", "sub/drafts.txt")
    found = find([folder], exclude=["*.log", "drafts/"])
    assert names(found, folder) == ["a.txt", "sub/drafts.txt"]
    assert found.left_out == {finding.EXCLUDED: {".log": 2, "folder": 1}}


def test_gitignore_is_honoured(folder: Path) -> None:
    make(
        folder,
        "a.txt",
        "b.log",
        "keep.log",
        "node_modules/x/y.md",
        "sub/c.txt",
        "sub/deep/d.md",
        "sub/deep/e.md",
    )
    (folder / ".gitignore").write_text("*.log\n!keep.log\nnode_modules/\n")
    (folder / "sub" / ".gitignore").write_text("/c.txt\ndeep/*\n!deep/e.md\n")
    found = find([folder])
    assert names(found, folder) == ["a.txt", "keep.log", "sub/deep/e.md"]
    assert found.left_out == {finding.IGNORED: {".log": 1, "folder": 1, ".txt": 1, ".md": 1}}
    assert len(find([folder], gitignore=False).files) == 7
    assert find([folder / "b.log"]).files == ((folder / "b.log").resolve(),)


def test_the_gitignore_of_the_repository_above_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder, "repo/.git/config", "repo/sub/in/a.txt", "repo/sub/in/b.log", "repo/sub/in/build/c.txt")
    (folder / ".gitignore").write_text("*.txt\n")  # above the repository
    (folder / "repo" / ".gitignore").write_text("/sub/in/build\n")
    (folder / "repo" / "sub" / ".gitignore").write_text("*.log\n")
    inside = folder / "repo" / "sub" / "in"
    assert names(find([inside]), inside) == ["a.txt"]
    monkeypatch.chdir(inside)
    assert names(find([Path()]), inside) == ["a.txt"]


def test_what_the_model_cannot_read_is_counted_unless_it_was_named(folder: Path) -> None:
    make(folder, "a.txt", "b.png", "c.PNG", "d.jpg")
    found = find([folder, folder / "d.jpg"]).readable(images=False)
    assert names(found, folder) == ["a.txt", "d.jpg"]
    assert found.left_out == {finding.NEEDS_EYES: {".png": 2}}
    assert len(find([folder]).readable(images=True).files) == 4


def test_what_is_not_installed_is_counted_with_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder, "a.txt", "b.docx", "c.html", "d.heic", "e.pdf", "f.png")
    for module in ("docling", "pillow_heif", "pypdfium2"):
        monkeypatch.setitem(sys.modules, module, None)
    found = find([folder]).readable(images=True)
    assert names(found, folder) == ["a.txt", "f.png"]
    assert found.left_out == {finding.NEEDS_EXTRA: {".docx": 1, ".html": 1, ".heic": 1, ".pdf": 1}}
    assert "late-interaction[files]" in str(found)
