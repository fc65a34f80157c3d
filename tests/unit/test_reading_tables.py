"""CSV and JSON as people have them: any delimiter, quoting, encoding and header; one problem for each fault."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from late_interaction.reading import tables
from late_interaction.reading.files import ReadProblem, read_rows
from late_interaction.rows import check_row

TEXTS = ["the wing, and the plate", 'he said "yes"; twice', "two\nlines", "plain", "a | b\tc"]


def read(folder: Path, name: str, text: str | bytes, **options: Any) -> tuple[list[Any], list[ReadProblem]]:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    problems: list[ReadProblem] = []
    return list(read_rows([file], problems.append, **options)), problems


def written(rows: list[list[Any]], **dialect: Any) -> str:
    out = io.StringIO()
    csv.writer(out, **dialect).writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(
    "dialect",
    [
        {"delimiter": delimiter} | quoting
        for delimiter in ",;\t|"
        for quoting in (
            {},
            {"quoting": csv.QUOTE_ALL},
            {"quotechar": "'", "quoting": csv.QUOTE_ALL},
            {"doublequote": False, "escapechar": "\\"},
            {"lineterminator": "\n"},
        )
    ],
    ids=str,
)
def test_a_table_is_read_however_it_is_written(tmp_path: Path, dialect: dict[str, Any]) -> None:
    rows = [["id", "text", "year"], *([number, text, 1990 + number] for number, text in enumerate(TEXTS))]
    found, problems = read(tmp_path, "a.csv", written(rows, **dialect))
    assert not problems
    assert [(row["doc_id"], row["content"], row["year"]) for row in found] == [
        (str(number), text, 1990 + number) for number, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize(
    ("texts", "contents"),
    [
        (
            [
                r'"a \"quoted\" word"',
                r'"C:\new\temp"',
                r'"use \alpha and \d+"',
                r'"\\server\share"',
                r"5\" pipe",
            ],
            ['a "quoted" word', r"C:\new\temp", r"use \alpha and \d+", r"\\server\share", '5" pipe'],
        ),
        ([r'"a \"word\""', r'"C:\\new\\"', r"one\, two"], ['a "word"', "C:\\new\\", "one, two"]),
        ([r'"He said ""hi"" \"', "b"], ['He said "hi" \\', "b"]),
        ([r'"{""a"": ""\""b\""""}"', "b"], [r'{"a": "\"b\""}', "b"]),
        ([r'"C:\dir\"', r'"D:\"'], ["C:\\dir\\", "D:\\"]),
    ],
)
def test_a_backslash_that_escapes_nothing_stays(
    tmp_path: Path, texts: list[str], contents: list[str]
) -> None:
    lines = [f"{number},{text}" for number, text in enumerate(texts)]
    rows, problems = read(tmp_path, "a.csv", "\n".join(["id,text", *lines]))
    assert [row["content"] for row in rows] == contents
    assert not problems


@pytest.mark.parametrize("name", ["a.tsv", "a.tab", "a.csv"])
def test_tabs(tmp_path: Path, name: str) -> None:
    rows, problems = read(tmp_path, name, "id\ttext\n1\tcommas, and; more\n2\tx, y, z\n")
    assert [row["content"] for row in rows] == ["commas, and; more", "x, y, z"]
    assert not problems


def test_a_table_of_one_column(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "a.csv", 'text\n"one, with a comma"\ntwo\n')
    assert [row["content"] for row in rows] == ["one, with a comma", "two"]
    assert not problems


def test_excels_line_names_the_delimiter(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.csv", "sep=^\nid^text\n1^a,b;c\n")
    assert [(row["doc_id"], row["content"], row["line"]) for row in rows] == [("1", "a,b;c", 3)]


def test_a_delimiter_may_be_named(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "id~text\n1~x\n", delimiter="~")[0][0]["content"] == "x"
    with pytest.raises(ValueError, match="a delimiter is one character"):
        read(tmp_path, "a.csv", "", delimiter="~~")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_tables_in_other_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    texts = ["Müller wohnt in Köln und heißt Jürgen.", "naïve café"]
    whole = {
        "a.csv": written([["id", "text"], *enumerate(texts)]),
        "a.jsonl": "\n".join(
            json.dumps({"id": i, "text": text}, ensure_ascii=False) for i, text in enumerate(texts)
        ),
        "a.json": json.dumps([{"id": i, "text": text} for i, text in enumerate(texts)], ensure_ascii=False),
    }[name]
    rows, problems = read(tmp_path, name, whole.encode(encoding))
    assert [row["content"] for row in rows] == texts
    assert not problems


def test_columns_are_named_whatever_their_names(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "a.csv", ",t\0ext,tag,tag,tag_2,content_type\n0,the wing,x,y,z,article\n")
    assert not problems
    [row] = map(check_row, rows)
    assert row.document.content == "the wing"
    assert row.document.content_type == "text"
    assert {"column_1": 0, "tag": "x", "tag_2": "z", "tag_3": "y", "content_type": "article"}.items() <= (
        row.document.metadata.items()
    )


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_columns_with_the_names_of_a_rows_parts_are_kept(tmp_path: Path, name: str) -> None:
    record = {
        "key": "7",
        "body": "the wing",
        "content": "old",
        "doc_id": "x",
        "image": "a.png",
        "content_type": "pdf",
    }
    text = json.dumps(record) if name == "a.jsonl" else written([[*record], [*record.values()]])
    [row], problems = read(tmp_path, name, text, content_column="body", id_column="key")
    assert not problems
    document = check_row(row).document
    assert (document.doc_id, document.content, document.content_type) == ("7", "the wing", "text")
    kept = {name: value for name, value in record.items() if name not in ("key", "body")}
    assert kept.items() <= document.metadata.items()


def test_a_record_of_a_text_may_say_so(tmp_path: Path) -> None:
    [row], _ = read(tmp_path, "a.jsonl", '{"text": "x", "content_type": "text"}')
    assert "content_type" not in check_row(row).document.metadata


@pytest.mark.parametrize(
    ("values", "made"),
    [
        (["1999", "-7", "0"], [1999, -7, 0]),
        (["1.5", "", "2"], [1.5, "", 2]),
        (["123456789012345", "0.25"], [123456789012345, 0.25]),
        (["", " "], None),
        (["1", "n/a"], None),
        (["1", "007"], None),
        (["+1"], None),
        (["1e5"], None),
        (["1,5"], None),
        (["1 "], None),
        (["NaN"], None),
        (["٣"], None),
        (["1234567890123456"], None),
    ],
)
def test_a_column_of_plain_numbers_is_numbers(
    tmp_path: Path, values: list[str], made: list[Any] | None
) -> None:
    rows, problems = read(tmp_path, "a.csv", written([["text", "n"], *(["x", value] for value in values)]))
    assert [row["n"] for row in rows] == (made or values)
    assert [type(row["n"]) for row in rows] == [type(value) for value in made or values]
    assert not problems


def test_ids_and_texts_of_numbers_stay_text(tmp_path: Path) -> None:
    [row], _ = read(tmp_path, "a.csv", "id,text\n1,2\n")
    assert (row["doc_id"], row["content"]) == ("1", "2")


def test_a_column_is_numbers_by_the_whole_file(tmp_path: Path) -> None:
    lines = [["text", "n"], *(["x", number] for number in range(20_000)), ["x", "n/a"]]
    rows, _ = read(tmp_path, "a.csv", written(lines))
    assert rows[0]["n"] == "0"
    rows, _ = read(tmp_path, "a.csv", written(lines[:-1]))
    assert rows[-1]["n"] == 19_999


def test_several_columns_are_one_text(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.csv", "Name,City,Age\nAnn,Delft,5\nBob,,6\n", content_column="Name, City")
    assert [(row["content"], row["Age"]) for row in rows] == [("Ann\nDelft", 5), ("Bob", 6)]
    rows, _ = read(tmp_path, "b.csv", '"Name, City",b\nAnn,x\n', content_column="Name, City")
    assert [row["content"] for row in rows] == ["Ann"]
    rows, _ = read(tmp_path, "a.jsonl", '{"title": "T", "n": 7, "text": "x"}', content_column="title,n,text")
    assert rows[0]["content"] == "T\n7\nx"


def test_columns_that_are_named_wrongly_are_told(tmp_path: Path) -> None:
    rows, [problem] = read(tmp_path, "a.csv", "title,body\nBoats,Sail\n", content_column="title,bdoy")
    assert rows == []
    assert "there is no 'bdoy' among 'title' and 'body': say which" in problem.reason
    lines = '{"title": "T", "page": {"body": "B"}}\n{"title": "U"}\n'
    for name, text in (("a.jsonl", lines), ("a.json", f"[{','.join(lines.splitlines())}]")):
        rows, [problem] = read(tmp_path, name, text, content_column="title,page.body,page.bdoy")
        assert [row["content"] for row in rows] == ["T\nB", "U"]
        assert problem.reason == "there is no 'page.bdoy' in any record (--content)"


def test_usual_columns_are_found_in_any_case(tmp_path: Path) -> None:
    [row], _ = read(tmp_path, "a.csv", "ID,Text\n7,x\n")
    assert (row["doc_id"], row["content"]) == ("7", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Name,City\n" + "a,b\n" * 900,
            "there is no 'content' or 'text' among 'Name' and 'City': say which have the",
        ),
        ("5,hello\n6,there\n", "there is no header; the columns are '1' and '2': say which have the text"),
    ],
)
def test_a_table_without_a_text_is_one_problem(tmp_path: Path, text: str, message: str) -> None:
    rows, [problem] = read(tmp_path, "a.csv", text)
    assert rows == []
    assert message in problem.reason
    assert "--content" in problem.reason


def test_a_table_without_a_header(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "a.csv", "5,hello\n6,there\n", content_column="2", id_column="1")
    assert [(row["doc_id"], row["content"], row["line"]) for row in rows] == [
        ("5", "hello", 1),
        ("6", "there", 2),
    ]
    assert not problems


def test_faults_of_one_kind_are_one_problem(tmp_path: Path) -> None:
    lines = ["id,text", *(f"{n}, " for n in range(100)), *("1,2,3" for _ in range(100)), "7,good", "8,more,,"]
    rows, problems = read(tmp_path, "a.csv", "\n".join(lines))
    assert [row["content"] for row in rows] == ["good", "more"]
    assert [(problem.line, problem.reason) for problem in problems] == [
        (2, "text must be text, not ' ' (and 99 more lines like it: 3, 4, 5, 6, 7, …)"),
        (
            102,
            "3 values where the header has 2 columns (and 99 more lines like it: 103, 104, 105, 106, 107, …)",
        ),
    ]


def test_fields_may_be_long_and_not_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = csv.field_size_limit()
    long = "\n".join(f"line {number} of the wing" for number in range(20_000))
    rows, problems = read(tmp_path, "a.csv", written([["id", "text"], [1, "x"], [2, long], [3, "y"]]))
    assert [row["doc_id"] for row in rows] == ["1", "2", "3"]
    assert rows[1]["content"] == long
    assert not problems
    assert csv.field_size_limit() == before
    monkeypatch.setattr(tables, "LONGEST_FIELD", 1000)
    rows, [problem] = read(tmp_path, "a.csv", written([["id", "text"], [1, "x"], [2, long], [3, "y"]]))
    assert [row["doc_id"] for row in rows] == ["1"]
    assert problem.reason == "a field has more than 1,000 characters; the rest of the file is left out"
    rows, [problem] = read(tmp_path, "a.jsonl", '{"text": "x"}\n' + json.dumps({"text": "y" * 1000}))
    assert len(rows) == 1
    assert problem.reason == "longer than 1,000 characters; the rest of the file is left out"


def test_characters_that_are_none_do_no_harm(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "a.csv", "\ufeffid,text\n1,of the \0plate\n")
    assert [row["content"] for row in rows] == ["of the \0plate"]
    assert not problems


@pytest.mark.parametrize("text", ["", "\n\n", "id,text\n"])
def test_an_empty_table_has_no_rows(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, "a.csv", text) == ([], [])


@pytest.mark.parametrize(
    ("data", "contents"),
    [
        ([{"text": "one", "id": 1}, {"text": "two", "id": 2}], ["one", "two"]),
        ({"data": [{"text": "one"}, {"text": "two"}], "version": 1}, ["one", "two"]),
        ({"text": "alone", "year": 1}, ["alone"]),
        ({"authors": [{"text": "Ann"}], "n": [1], "articles": [{"text": "Sail"}]}, ["Ann", "Sail"]),
        ([{"text": ["a paragraph", "another"]}], ["a paragraph\n\nanother"]),
    ],
)
def test_json_with_texts_is_records(tmp_path: Path, data: Any, contents: list[str]) -> None:
    rows, problems = read(tmp_path, "a.json", json.dumps(data))
    assert [row["content"] for row in rows] == contents
    assert [row["item"] for row in rows] == [*range(1, len(contents) + 1)]
    assert not problems


@pytest.mark.parametrize(
    "data", [{"name": "x", "deps": {"a": "1"}}, [1, 2, "three"], [{"title": "x"}], "alone"]
)
def test_json_without_texts_is_a_text(tmp_path: Path, data: Any) -> None:
    rows, problems = read(tmp_path, "a.json", json.dumps(data, indent=1))
    assert "".join(row["content"] for row in rows).split() == json.dumps(data, indent=1).split()
    assert {row["language"] for row in rows} == {"json"}
    assert not problems


def test_json_without_the_columns_that_were_named_is_a_problem(tmp_path: Path) -> None:
    rows, [problem] = read(tmp_path, "a.json", '[{"title": "x"}]', content_column="body")
    assert not rows
    assert problem.reason == "there is no 'body' in an object of it"


def test_json_of_images_is_records(tmp_path: Path) -> None:
    [row], _ = read(tmp_path, "a.json", '[{"image": "https://example.org/a.png", "year": 1}]', images=True)
    assert (row["image"], row["year"]) == ("https://example.org/a.png", 1)


def test_a_text_may_be_inside_of_objects(tmp_path: Path) -> None:
    data = {"page": {"text": "the wing", "number": 3}, "year": 1999}
    for name, text in (("a.json", json.dumps([data])), ("a.jsonl", json.dumps(data))):
        [row], problems = read(tmp_path, name, text, content_column="page.text")
        assert (row["content"], row["page"], row["year"]) == ("the wing", {"number": 3}, 1999)
        assert not problems


def test_json_that_is_none_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(tmp_path, "a.json", '[{"text": ')[1][0].reason.startswith(
        "not JSON: Expecting value in line 1"
    )
    assert read(tmp_path, "a.json", "[" * 100_000)[1][0].reason == "nested too deeply"
    assert read(tmp_path, "a.jsonl", "[" * 100_000)[1][0].reason == "nested too deeply"
    digits = '{"text": "x", "n": %s}' % ("1" * 5000)
    assert "more digits than Python reads" in read(tmp_path, "a.json", f"[{digits}]")[1][0].reason
    rows, [problem] = read(tmp_path, "a.jsonl", f'{{"text": "x"}}\n{digits}\n{digits}\n{{"text": "y"}}')
    assert [row["content"] for row in rows] == ["x", "y"]
    assert (problem.line, problem.reason.count("like it: 3")) == (2, 1)
    _, problems = read(tmp_path, "a.json", '[{"text": "x"}, 7, {"text": {}}]')
    assert [problem.reason for problem in problems] == [
        "not a JSON object but int",
        "text must be text, not {}",
    ]
    monkeypatch.setattr(tables, "LARGEST_JSON", 3)
    assert "a line for each object" in read(tmp_path, "a.json", "[1, 2]")[1][0].reason
