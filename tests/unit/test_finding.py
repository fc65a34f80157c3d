"""Which files of folders are read: links, patterns, .gitignore; and what is left out is counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from late_interaction.reading import finding
from late_interaction.reading.finding import Found, find
from late_interaction.reading.kinds import Kind, kind_of
from tests.support.folders import close_folder


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
    close_folder(monkeypatch, "shut")
    found = find([folder])
    assert names(found, folder) == ["a.txt"]
    assert found.left_out == {finding.CLOSED: {"folder": 1}}


def test_what_cannot_be_looked_at_does_not_end_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder, "a.txt", "listed/b.txt", "in/c.txt", "z.txt")
    (folder / ".gitignore").write_text("z.txt\n")
    (folder / "in" / ".gitignore").write_text("c.txt\n")
    status, read = Path.stat, Path.read_bytes

    def closed(path: Path, **options: bool) -> object:
        if path.parent.name == "listed":
            raise PermissionError(13, "Permission denied")
        return status(path, **options)

    def unreadable(path: Path) -> bytes:
        if path.parent.name == "in":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setattr(Path, "read_bytes", unreadable)
    found = find([folder])
    assert [name for _, name in found.names.values()] == ["a.txt", "in/c.txt"]
    assert found.left_out == {finding.CLOSED: {".txt": 1}, finding.IGNORED: {".txt": 1}}
    assert found.unread == {(folder, "listed/b.txt")}
    assert [str(problem) for problem in found.problems] == [
        f"{folder / 'in' / '.gitignore'}: Permission denied; it leaves nothing out"
    ]


def test_what_git_passes_over_in_gitignore_is_named(folder: Path) -> None:
    make(folder, "a.txt", "build/b.txt", "c.log")
    lines = ["build\\", "*.log", "!", "[z-a]", "[", "/", "[[:letter:]]", "a\\"]
    (folder / ".gitignore").write_text("\n".join(lines))
    found = find([folder, folder])
    assert names(found, folder) == ["a.txt", "build/b.txt"]
    assert [(problem.line, problem.reason.partition(": ")[2]) for problem in found.problems] == [
        (1, "nothing is behind its backslash"),
        (3, "there is no name in it"),
        (4, "no character fits its brackets"),
        (5, "a bracket in it is not closed"),
        (6, "there is no name in it"),
        (7, "[:letter:] is no class of characters"),
        (8, "nothing is behind its backslash"),
    ]
    with pytest.raises(ValueError, match=r"'drafts\\\\' excludes nothing: nothing is behind its backslash\."):
        find([folder], exclude=["*.md", "drafts\\"])


IGNORED = """
    * !*/ !*.md | *.md !docs/b.md | /* !/docs/ | /* !/docs /docs/* !/docs/*.md | * !docs/ | docs/* !docs/b.md
    a.md !/docs/ | docs/ !docs/b.md | **/b.md | docs/** !docs/in/ | docs/**/a.md | a** | docs**/a.md | d*s | ?.md
    ??.md | [ab].md | [!a].md | [^a].md | [a-c].md | []x].md | [[:alpha:]].md | [[:upper:]]* | \\!c.md | \\#d.md
    #d.md | !c.md | é.md | docs//a.md | */a.md | */*/a.md | /**/a.md | **/ | /docs/*/ | in | in/ | /in | docs/in/a.md
    \\a.md | [z-a].md | build\\
    *.MD | a.m[!x] | docs/[a-z]*/a.md | a?md | docs?in | *docs | docs* !docs/ | **.md | ***/a.md
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_gitignore_leaves_out_what_git_does(tmp_path: Path) -> None:
    cases = [case.split() for case in IGNORED.replace("\n", "|").split("|") if case.strip()]
    lines = ["\n".join(case).encode() for case in cases]
    lines += [
        b"\xef\xbb\xbfdocs/\na.md",
        b"docs/\r\na.md\r\n",
        b"a.md  \n",
        b" a.md",
        b"s\\ \n*.txt\n!s\\ .md",
        b"caf\xe9.md",
    ]
    files = ["a.md", "b.md", "é.md", "!c.md", "#d.md", "X.md", "].md", "s .md", os.fsdecode(b"caf\xe9.md")]
    for number, text in enumerate(lines):
        make(tmp_path / f"case {number}", *files, "docs/a.md", "docs/b.md", "docs/in/a.md", "in/b.md")
        (tmp_path / f"case {number}" / ".gitignore").write_bytes(text)
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = subprocess.run([*git, "ls-files", "-z", "-o"], check=True, capture_output=True).stdout
    kept = subprocess.run(
        [*git, "ls-files", "-z", "-o", "--exclude-per-directory=.gitignore"], check=True, capture_output=True
    ).stdout
    assert len(kept) < 0.9 * len(listed)
    mine = {os.fsencode(file.relative_to(tmp_path)) for file in find([tmp_path]).files}
    theirs = {name for name in kept.split(b"\0") if name.endswith(b".md")}
    assert mine == theirs


@pytest.mark.parametrize(
    ("ignored", "is_read"), [("docs/", False), ("/docs/in", False), ("in/", False), ("a", True)]
)
def test_a_folder_inside_an_ignored_one_is_ignored(tmp_path: Path, ignored: str, *, is_read: bool) -> None:
    make(tmp_path, "docs/in/a.txt", ".git/config", "b.txt")
    (tmp_path / ".gitignore").write_text(ignored)
    found = find([tmp_path / "docs" / "in", tmp_path / "b.txt"])
    assert (len(found.files) == 2) is is_read
    assert found.left_out == ({} if is_read else {finding.IGNORED: {"folder": 1}})


def test_names_that_are_not_utf8_stay_apart(folder: Path) -> None:
    make(folder, "caf\udce9.md", "caf\udce8.md", "d\udce9/café.md")
    assert [name for _, name in find([folder]).names.values()] == [
        "caf\\xe8.md",
        "caf\\xe9.md",
        "d\\xe9/café.md",
    ]
    assert [name for _, name in find([folder / "caf\udce9.md"]).names.values()] == ["caf\\xe9.md"]


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
    assert names(find([folder], exclude="*.log"), folder) == ["a.txt", "drafts/c.txt", "sub/drafts.txt"]


@pytest.mark.parametrize(
    ("given", "pattern", "kept"),
    [
        ("docs", "docs/drafts", "a.md sub/drafts/c.md"),
        ("docs", "docs/drafts/", "a.md sub/drafts/c.md"),
        ("docs", "./docs/drafts", "a.md sub/drafts/c.md"),
        ("docs", "{here}/docs/drafts", "a.md sub/drafts/c.md"),
        ("{here}/docs", "docs/drafts", "a.md sub/drafts/c.md"),
        ("docs", "./drafts", "a.md sub/drafts/c.md"),
        ("docs", "/drafts", "a.md sub/drafts/c.md"),
        ("docs", "drafts", "a.md"),
        (".", "./docs/drafts", "docs/a.md docs/sub/drafts/c.md"),
        ("docs/a.md docs/drafts/b.md", "*.md", ""),
        ("docs/a.md docs/drafts/b.md", "docs/a.md", "b.md"),
        ("docs/a.md docs/drafts/b.md", "./docs/drafts/", "a.md"),
        ("docs/a.md docs/drafts/b.md", "drafts/", "a.md"),
        ("docs/a.md docs/drafts docs/sub", "drafts", "a.md"),
        ("docs/a.md docs/drafts docs/sub", "docs/drafts", "a.md drafts/c.md"),
    ],
)
def test_patterns_are_from_the_folder_or_from_here(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    pattern: str,
    kept: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make(folder, "a.md", "drafts/b.md", "sub/drafts/c.md")
    here = folder.parent
    monkeypatch.chdir(here)
    make(here, "z.txt")
    paths = [Path(path.format(here=here)) for path in f"{given} z.txt".split()]
    paths = paths[:-1] if kept and len(paths) == 2 else paths
    found = find(paths, exclude=[pattern.format(here=here)])
    assert " ".join(name for _, name in found.names.values() if name != "z.txt") == kept
    assert {*found.left_out} == {finding.EXCLUDED}
    assert caplog.text == ""


def test_a_pattern_that_leaves_nothing_out_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(folder, "a.md", "docs/b.md", "sub/c.md")
    monkeypatch.chdir(folder.parent)
    patterns = ["docs", "drafts, b.md", "*.MD", "!x.md", "sub", "docs/sub/c.md"]
    assert names(find([folder], exclude=patterns), folder) == ["a.md"]
    assert [record.getMessage() for record in caplog.records] == [
        f"The pattern {one!r} left nothing out." for one in ("drafts, b.md", "*.MD", "docs/sub/c.md")
    ]
    with pytest.raises(ValueError, match=r"1 left out \(\.md 1\), excluded"):
        find([folder / "a.md"], exclude=["*.md"])
    # The last pattern that names a path decides, for a file that is named itself, too.
    kept = find([folder / "a.md", folder / "sub"], exclude=["*", "!*.md"])
    assert names(kept, folder) == ["a.md", "sub/c.md"]


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
