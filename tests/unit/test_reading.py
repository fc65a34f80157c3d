"""Files to rows."""

import json
import tracemalloc
from pathlib import Path

import pytest

from late_interaction.reading.files import ReadProblem, Row, find_files, read_rows


def read(*paths: Path, **options: object) -> tuple[list[Row], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    rows = list(read_rows(find_files(paths), problems.append, **options))  # type: ignore[arg-type]
    return rows, problems


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path.resolve()


def test_find_files_walks_in_order_and_leaves_hidden_and_other_files_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b.JSONL", "c.csv", ".hidden.txt", ".git/x.txt", "d.zip"):
        write(tmp_path, name, "text")
    names = [file.relative_to(tmp_path.resolve()).as_posix() for file in find_files([tmp_path])]
    assert names == ["a/b.JSONL", "a/z.md", "b.txt", "c.csv"]


def test_find_files_names_each_file_once(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", "text")
    assert find_files([tmp_path, file, tmp_path / "." / "a.txt"]) == [file]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no file or folder"),
        ("a.zip", "no file of a kind that is read"),
        ("empty", "no file of a kind that is read"),
    ],
)
def test_find_files_refuses_what_it_cannot_read(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, "a.zip", "PK")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        find_files([tmp_path / name])


def test_a_short_text_file_is_one_passage(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", "\ufeff\r\nOne line.\r\n\r\nAnother.\r\n")
    rows, problems = read(file)
    assert problems == []
    assert rows == [
        {
            "content": "One line.\n\nAnother.",
            "doc_id": f"{file}#1",
            "source": str(file),
            "line": 2,
            "chunk": 1,
        }
    ]


def test_markdown_is_cut_at_headings_but_not_at_comments_in_code(tmp_path: Path) -> None:
    text = "# Title\n\n## Install\nRun it:\n```sh\n# a comment\npip\n```\n## Use\nCall it.\n"
    file = write(tmp_path, "a.md", text)
    rows, _ = read(file)
    assert [(row["line"], row["heading"], row["content"]) for row in rows] == [
        (1, "Title > Install", "# Title\n## Install\n\nRun it:\n\n```sh\n# a comment\npip\n```"),
        (9, "Title > Use", "# Title\n## Use\n\nCall it."),
    ]
    as_text, _ = read(write(tmp_path, "a.txt", text))
    assert len(as_text) == 1
    assert "heading" not in as_text[0]


@pytest.mark.slow
def test_a_long_text_file_is_read_in_parts_and_its_lines_are_right(tmp_path: Path) -> None:
    lines = [f"line {n} of a long file{'.' if n % 3 else ''}" for n in range(40_000)]
    for text in ("\n".join(lines), "\n\n".join(lines)):
        file = write(tmp_path, "a.txt", text)
        rows = iter(read_rows([file], pytest.fail))
        tracemalloc.start()
        first = next(rows)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
        tracemalloc.stop()
        of_line = text.split("\n")
        for row in [first, *rows]:
            assert of_line[row["line"] - 1].startswith(row["content"].split("\n")[0][:6])
            assert row["content"].split("\n")[0] in of_line[row["line"] - 1]


def test_a_file_with_old_line_ends_has_lines(tmp_path: Path) -> None:
    rows, _ = read(write(tmp_path, "a.md", b"# One\r\rText one.\r\r# Two\r\rText two.\r"))
    assert [(row["line"], row["heading"]) for row in rows] == [(1, "One"), (5, "Two")]


def test_jsonl_rows_keep_types_and_take_ids_from_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "a.jsonl",
        '\ufeff{"_id": 7, "text": "first", "n": 1999, "tags": ["x"]}\n\n{"content": "2nd", "source": "me"}\n',
    )
    rows, problems = read(file)
    assert problems == []
    assert rows == [
        {"source": str(file), "line": 1, "n": 1999, "tags": ["x"], "content": "first", "doc_id": "7"},
        {"source": "me", "line": 3, "content": "2nd", "doc_id": f"{file}:3"},
    ]


def test_bad_lines_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    good = json.dumps({"text": "good"}).encode()
    lines = [
        good,
        b"{",
        b"[1]",
        b'{"text": " "}',
        b'{"title": "x"}',
        b'{"text": "x", "id": null}',
        b"{",
        b"{",
        good,
    ]
    file = write(tmp_path, "a.jsonl", b"\n".join(lines))
    rows, problems = read(file)
    assert [row["line"] for row in rows] == [1, 9]
    assert [problem.line for problem in problems] == [2, 3, 4, 5, 6]
    assert str(problems[0]).startswith(f"{file}:2: not JSON: ")
    assert [problem.reason for problem in problems[1:]] == [
        "not a JSON object but list",
        "text must be text, not ' '",
        "there is no 'content' or 'text' among 'title'",
        "id must be text or a whole number, not None",
    ]
    assert problems[0].reason.endswith(" (and 2 more lines like it: 7, 8)")


def test_csv_rows_and_their_problems(tmp_path: Path) -> None:
    file = write(
        tmp_path, "a.csv", 'key,text,year\n1,"two\nlines",1999\n2,short\n"3"x,bad,1\n\n4,last,2001\n'
    )
    rows, problems = read(file, id_column="key")
    assert rows == [
        {"source": str(file), "line": 2, "year": 1999, "content": "two\nlines", "doc_id": "1"},
        {"source": str(file), "line": 7, "year": 2001, "content": "last", "doc_id": "4"},
    ]
    assert [problem.line for problem in problems] == [4, 5]
    assert "2 values where the header has 3 columns" in str(problems[0])


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "text,body,id\nno,yes,7\n")
    rows, _ = read(file, content_column="body", id_column="text")
    assert (rows[0]["content"], rows[0]["doc_id"], rows[0]["id"]) == ("yes", "no", 7)
    _, problems = read(file, id_column="key")
    assert [str(problem) for problem in problems] == [f"{file}:2: there is no 'key' among 'body' and 'id'"]


def test_a_file_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    problems: list[ReadProblem] = []
    assert list(read_rows([tmp_path / "gone.jsonl"], problems.append)) == []
    assert "No such file" in str(problems[0])


def test_passages_need_at_least_a_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 1, not 0"):
        read(write(tmp_path, "a.txt", "text"), passage_tokens=0)
