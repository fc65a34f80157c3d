"""Each kind of file that is read: its text, its headings, what is known of it, and what is wrong with it."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from late_interaction.errors import MissingExtraError
from late_interaction.reading import converting, structured
from late_interaction.reading.files import ReadProblem, read_rows
from late_interaction.reading.kinds import SUFFIXES, kind_of
from late_interaction.reading.structured import rst_as_markdown
from tests.support import kinds
from tests.support.kinds import FERRY

TEXTS = kinds.texts()


def read(folder: Path, name: str, data: bytes, **options: Any) -> tuple[list[Any], list[ReadProblem]]:
    file = folder / name
    file.write_bytes(data)
    problems: list[ReadProblem] = []
    return list(read_rows([file], problems.append, **options)), problems


def test_no_suffix_has_two_kinds() -> None:
    from late_interaction.reading.kinds import _SUFFIXES

    assert len(SUFFIXES) == sum(len(suffixes.split()) for suffixes in _SUFFIXES.values())
    assert kind_of(Path("A.MD")) is kind_of(Path("b.markdown"))


@pytest.mark.parametrize("name", TEXTS)
def test_each_kind_of_text_is_read(tmp_path: Path, name: str) -> None:
    rows, problems = read(tmp_path, name, TEXTS[name])
    assert FERRY in "\n".join(row["content"] for row in rows)
    assert not problems
    assert {row["source"] for row in rows} == {str(tmp_path / name)}


def test_a_file_of_no_kind_is_a_problem(tmp_path: Path) -> None:
    rows, [problem] = read(tmp_path, "a.zip", b"PK")
    assert not rows
    assert problem.reason == "of a kind that is not read"


# --- what needs nothing


def test_restructured_text_has_headings(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.rst", kinds.RST.encode())
    assert [(row["heading"], row["line"]) for row in rows] == [("Boats", 2), ("Boats > Sails", 7)]
    assert ".. note:: Keep :ref:`this`." in rows[1]["content"]
    assert "x = 1" in rows[1]["content"]


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("One\n===\n\nTwo\n~~~\n\nThree\n=====\n", ["# One", "## Two", "# Three"]),
        ("***\nOne\n***\n\nTwo\n***\n", ["# One", "## Two"]),
        ("A paragraph\nof two lines\n------------\n", []),
        ("| a\n+---+\n| b |\n", []),
        ("One\n==\n", []),  # shorter than its title
        ("text\n\n    One\n    ===\n", []),
        ("=====  =====\nA      B\n=====  =====\n1      2\n", []),
    ],
)
def test_which_lines_of_restructured_text_are_headings(text: str, headings: list[str]) -> None:
    made = rst_as_markdown(text)
    assert [line for line in made.split("\n") if line.startswith("#")] == headings
    assert made.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            ".. code:: bash\n\n   # install it\n   make\n\n   ====\n\nDone.",
            ".. code:: bash\n\n    # install it\n    make\n\n    ====\n\nDone.",
        ),
        ("::\n\n   x = 1\n   =====\n   y\n", "::\n\n    x = 1\n    =====\n    y\n"),
        ("# of boats is\nhigh", "    # of boats is\nhigh"),
        ("One\n==\n", "One\n    ==\n"),
        ("  ```\n  # x\n", "    ```\n    # x\n"),
        ("   a\n     # b\n", "   a\n     # b\n"),
        ("===\nA\n===\n\n  # b\n\nB\n---\n", "\n# A\n\n\n    # b\n\n## B\n\n"),
    ],
)
def test_what_is_no_heading_of_restructured_text_is_none_of_markdown(
    tmp_path: Path, text: str, shown: str
) -> None:
    assert rst_as_markdown(text) == shown
    rows, _ = read(tmp_path, "a.rst", f"Guide\n=====\n\n{text}\n".encode())
    if "===\nA" not in text:
        assert {row["heading"] for row in rows} == {"Guide"}


def test_a_notebook_is_its_cells(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.ipynb", TEXTS["a.ipynb"])
    assert [row["content"] for row in rows] == [
        f"# Boats\n\n{FERRY}\n\n````python\nx = '''```'''\nprint(x)\n````"
    ]
    assert rows[0]["heading"] == "Boats"


def test_a_notebook_of_long_ago(tmp_path: Path) -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": "Old"}, {"cell_type": "code", "input": ["x = 1"]}]
    rows, _ = read(tmp_path, "a.ipynb", json.dumps({"worksheets": [{"cells": cells}]}).encode())
    assert [row["content"] for row in rows] == ["## Old\n\n```python\nx = 1\n```"]


def test_a_mail_has_its_subject_and_says_who_wrote_it(tmp_path: Path) -> None:
    [row], problems = read(tmp_path, "a.eml", TEXTS["a.eml"])
    assert row["content"] == f"Tickets – été\n\n{FERRY}\n\nÀ bientôt"
    assert row["from"] == "Ann <ann@example.org>"
    assert row["date"] == dt.datetime.fromisoformat("2025-06-06T10:00:00+02:00")
    assert row["attachments"] == ["plan.png"]
    assert not problems


def test_a_mail_in_an_encoding_that_is_none_is_read(tmp_path: Path) -> None:
    mail = b"Subject: x\r\nContent-Type: text/plain; charset=klingon\r\n\r\ncaf\xc3\xa9\r\n"
    [row], problems = read(tmp_path, "a.eml", mail)
    assert row["content"] == "x\n\ncafé"
    assert not problems


def mail_of(
    *parts: tuple[str, bytes], kind: str = "mixed", date: str = "Mon, 1 Jan 2024 10:00:00 +0000"
) -> bytes:
    """A mail of parts, each with its headers behind Content-Type."""
    head = f"Subject: S\nDate: {date}\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=B\n\n".encode()
    return (
        head
        + b"".join(b"--B\nContent-Type: %s\n\n%s\n" % (of.encode(), data) for of, data in parts)
        + b"--B--\n"
    )


IMAGE = ('image/png; name="p.png"\nContent-Disposition: inline; filename="p.png"', b"x")
LATIN = "text/plain; charset={}\nContent-Transfer-Encoding: 8bit"


def test_every_text_of_a_mail_is_read(tmp_path: Path) -> None:
    mail = mail_of(("text/plain", b"See it."), IMAGE, ("text/plain", b"Sail on Tuesday."))
    [row], problems = read(tmp_path, "a.eml", mail)
    assert row["content"] == "S\n\nSee it.\n\nSail on Tuesday."
    assert row["attachments"] == ["p.png"]
    kept = ("text/plain\nContent-Disposition: attachment; filename=a.txt", b"not read")
    [row], problems = read(tmp_path, "a.eml", mail_of(("text/markdown", b"one"), kept))
    assert (row["content"], row["attachments"]) == ("S\n\none", ["a.txt"])
    both = mail_of(("text/html", b"<p>two</p>"), ("text/plain", b"one"), IMAGE, kind="alternative")
    [row], problems = read(tmp_path, "a.eml", both)
    assert (row["content"], row["attachments"]) == ("S\n\none", ["p.png"])
    assert not problems


def test_a_mail_whose_boundary_is_lost_is_its_text(tmp_path: Path) -> None:
    [row], _ = read(
        tmp_path, "a.eml", b"Subject: S\nContent-Type: multipart/mixed\n\n--B\n\nSail on Tuesday.\n"
    )
    assert "Sail on Tuesday." in row["content"]


@pytest.mark.parametrize(
    ("of", "data", "text"),
    [
        ("text/plain", "Grüße aus München".encode(), "Grüße aus München"),
        (LATIN.format("us-ascii"), "Grüße aus München".encode(), "Grüße aus München"),
        (LATIN.format("iso-8859-1"), "Don’t – € 5".encode("cp1252"), "Don’t – € 5"),
        (LATIN.format("us-ascii"), "Don’t – € 5".encode("cp1252"), "Don’t – € 5"),
        (LATIN.format("gb2312"), "港口朱镕基开放".encode("gbk"), "港口朱镕基开放"),
        (LATIN.format("koi8-r"), "Кот".encode("koi8_r"), "Кот"),
        (LATIN.format("iso-2022-jp"), "フェリー".encode("iso2022_jp"), "フェリー"),
        (LATIN.format("utf-7"), "café".encode("utf-7"), "café"),
    ],
)
def test_the_bytes_of_a_mail_are_decoded_as_those_of_a_file(
    tmp_path: Path, of: str, data: bytes, text: str
) -> None:
    [row], problems = read(tmp_path, "a.eml", mail_of((of, data)))
    assert row["content"] == f"S\n\n{text}"
    assert "encoding" not in row
    assert not problems


def test_an_encoding_that_is_named_is_for_texts_of_a_mail_that_name_none(tmp_path: Path) -> None:
    mail = mail_of(("text/plain", "Кот".encode("koi8_r")), (LATIN.format("cp1251"), "Кот".encode("cp1251")))
    [row], _ = read(tmp_path, "a.eml", mail, encoding="koi8_r")
    assert row["content"] == "S\n\nКот\n\nКот"


def test_what_is_lost_of_a_mail_is_told(tmp_path: Path) -> None:
    damaged = mail_of(
        (LATIN.format("utf-8"), "Grüße, Zoë".encode() + b" \xe9"), ("text/plain", bytes(range(256)) * 9)
    )
    [row], problems = read(tmp_path, "a.eml", damaged)
    assert row["content"] == "S\n\nGrüße, Zoë \ufffd"
    assert [problem.reason for problem in problems] == [
        "1 byte or more is not utf-8, and read as \ufffd (--encoding)",
        "a text of the mail is left out: it is not a text, but binary data",
    ]


def test_headers_of_a_mail_may_be_beyond_ascii(tmp_path: Path) -> None:
    for encoding in ("utf-8", "cp1252"):
        mail = "Subject: Grüße aus\r\n Köln\r\nFrom: Jürgen <j@example.org>\r\n\r\nx\r\n".encode(encoding)
        [row], _ = read(tmp_path, "a.eml", mail)
        assert (row["subject"], row["from"]) == ("Grüße aus Köln", "Jürgen <j@example.org>")


@pytest.mark.parametrize("zone", ["+99999999999999", "+9999", "yesterday"])
def test_a_date_that_cannot_be_is_none(tmp_path: Path, zone: str) -> None:
    for date in (f"Mon, 1 Jan 2024 10:00:00 {zone}", "1 Jan 99999999999999999999 10:00:00 +0000"):
        [row], problems = read(tmp_path, "a.eml", mail_of(("text/plain", b"x"), date=date))
        assert "date" not in row or zone == "yesterday"
        assert not problems


@pytest.mark.parametrize(
    ("name", "language"),
    [("a.py", "python"), ("a.ts", "typescript"), ("a.cpp", "cpp"), ("a.rs", "rust")],
)
def test_source_code_has_its_language(tmp_path: Path, name: str, language: str) -> None:
    [row], _ = read(tmp_path, name, b"x\n")
    assert row["language"] == language


def test_source_code_is_cut_between_lines(tmp_path: Path) -> None:
    lines = [f"    value_{number} = compute({number}).  then(it)" for number in range(60)]
    rows, _ = read(tmp_path, "a.py", "\n".join(["def f():", *lines]).encode(), passage_tokens=60)
    assert len(rows) > 5
    for row in rows:
        assert set(row["content"].split("\n")) <= {"def f():", *lines}
        assert ["def f():", *lines][row["line"] - 1] == row["content"].split("\n")[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken.ipynb", "not a notebook"), ("broken.eml", "not a mail"), ("binary.py", "binary data")],
)
def test_a_text_that_is_none_of_its_kind_is_a_problem(tmp_path: Path, name: str, message: str) -> None:
    rows, [problem] = read(tmp_path, name, kinds.broken()[name])
    assert rows == []
    assert message in problem.reason


def test_what_is_read_whole_may_not_be_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "LARGEST", 10)
    for name in ("a.ipynb", "a.eml"):
        _, [problem] = read(tmp_path, name, TEXTS[name])
        assert problem.reason == "larger than 0 MB"


@pytest.mark.parametrize("name", ["a.docx", "a.html", "a.epub"])
def test_what_needs_the_extra_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "docling", None)
    _, [problem] = read(tmp_path, name, b"")
    assert problem.reason.endswith("pip install 'late-interaction[files]'")
    with pytest.raises(MissingExtraError):
        converting.converted(tmp_path / name)


# --- what docling reads

OFFICE = kinds.office() if find_spec("docling") else {}
needs_docling = pytest.mark.skipif(not OFFICE, reason="the files extra is not installed")


@needs_docling
@pytest.mark.slow
def test_each_office_kind_is_read(tmp_path: Path) -> None:
    for name, data in OFFICE.items():
        rows, problems = read(tmp_path, name, data)
        text = "\n".join(row["content"] for row in rows)
        assert FERRY in text, name
        assert not problems, name
        assert "SCRIPT" not in text


@needs_docling
@pytest.mark.slow
def test_what_office_files_say(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.docx", OFFICE["a.docx"])
    assert [(row["heading"], row["title"], row["author"]) for row in rows] == [
        ("Boats", "The Lease", "Ann"),
        ("Boats > Rent", "The Lease", "Ann"),
    ]
    assert "| 1999 | 500 |" in rows[1]["content"]

    rows, _ = read(tmp_path, "a.html", OFFICE["a.html"])
    text = "\n".join(row["content"] for row in rows)
    assert rows[0]["title"] == "Boats & sails"
    for part in ("Before any heading.", "- oak\n- pine", "| 1999 | 5 |", "a boat"):
        assert part in text
    assert "Wind\xa0é drives" in text or "Wind é drives" in text

    rows, _ = read(tmp_path, "a.pptx", OFFICE["a.pptx"])
    assert [(row["page"], row["pages"], row["heading"]) for row in rows] == [(1, 2, "Boats"), (2, 2, "Sails")]
    assert "Speak slowly." in rows[1]["content"]

    rows, _ = read(tmp_path, "a.xlsx", OFFICE["a.xlsx"])
    assert [(row["page"], row["heading"]) for row in rows] == [(1, "People"), (2, "Sums")]
    assert f"| {FERRY} | 1980 |" in rows[0]["content"]
    assert "nan" not in rows[0]["content"].lower()

    rows, _ = read(tmp_path, "a.epub", OFFICE["a.epub"])
    assert [(row["heading"], row["title"], row["author"]) for row in rows] == [
        ("Boats", "The Book", "Ann"),
        ("Sails", "The Book", "Ann"),
    ]


@needs_docling
@pytest.mark.slow
def test_what_stands_at_the_edge_of_a_page_is_text(tmp_path: Path) -> None:
    from docx import Document

    document = Document()
    document.add_paragraph("Body.")
    document.sections[0].header.paragraphs[0].text = "The header"
    with zipfile.ZipFile(io.BytesIO(kinds.saved(document))) as sound:
        members = {name: sound.read(name) for name in sound.namelist()}
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    note = '<w:footnote w:id="2"><w:p><w:r><w:t>See </w:t></w:r><w:r><w:t>Ann.</w:t></w:r></w:p></w:footnote>'
    members["word/footnotes.xml"] = f'<w:footnotes xmlns:w="{word}">{note}</w:footnotes>'.encode()
    rows, _ = read(tmp_path, "a.docx", kinds.archive(members))
    text = "\n".join(row["content"] for row in rows)
    for part in ("Body.", "The header", "See Ann."):
        assert part in text
    rows, _ = read(tmp_path, "a.html", b"<article><p>Body.</p><footer>The footer</footer></article>")
    assert "The footer" in rows[0]["content"]


@needs_docling
@pytest.mark.slow
def test_a_mail_of_html_is_its_text(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "a.eml", kinds.eml(html=True))
    assert [row["content"] for row in rows] == ["Tickets – été", f"# Boats\n\n{FERRY}"]
    assert {row["subject"] for row in rows} == {"Tickets – été"}
    blank = mail_of(("text/plain", b" \n\xa0"), ("text/html", b"<p>Sail</p>"), kind="alternative")
    assert [row["content"] for row in read(tmp_path, "a.eml", blank)[0]] == ["S\n\nSail"]
    both = mail_of(("text/plain", b"# of all"), ("text/html", b"<h1>Sail</h1><p>on Tuesday</p>"))
    assert [row["content"] for row in read(tmp_path, "a.eml", both)[0]] == [
        "S\n\n# of all",
        "# Sail\n\non Tuesday",
    ]


@needs_docling
@pytest.mark.slow
def test_other_encodings_of_html(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16"):
        page = f'<meta charset="{encoding}"><title>é</title><body><p>Müller à Köln</p></body>'
        [row], _ = read(tmp_path, "a.html", page.encode(encoding))
        assert row["content"] == "Müller à Köln"
        assert row.get("title", "é") == "é"


@needs_docling
@pytest.mark.slow
def test_a_page_is_read_in_the_encoding_that_it_says_or_that_is_named(tmp_path: Path) -> None:
    for said, encoding, text in (
        ("iso-8859-1", "cp1252", "Œuvre à € 5"),
        ("gb2312", "gb2312", "港口在黎明时分开放。"),
        ("iso-2022-jp", "iso2022_jp", "フェリー"),
        ("iso-8859-1", "utf-8", "Grüße"),
    ):
        page = f'<html>\n<head>\n<!-- x -->\n<meta charset="{said}"><title>{text}</title></head><body><p>{text}</p>'
        [row], problems = read(tmp_path, "a.html", page.encode(encoding))
        assert (row["content"], row["title"]) == (text, text)
        assert "encoding" not in row
        assert not problems
    for page in ("<p>Кот</p>", '<meta charset="latin-1"><p>Кот</p>'):
        [row], _ = read(tmp_path, "a.html", page.encode("koi8_r"), encoding="koi8_r")
        assert row["content"] == "Кот"
    guessed = "<p>Паром пересекает реку в полдень.</p>".encode("cp1251")
    assert read(tmp_path, "a.html", guessed)[0][0]["encoding"] == "cp1251"
    _, [problem] = read(tmp_path, "a.html", "<p>Zoë</p>\n<p>é".encode() + b"\xef</p>")
    assert (problem.line, problem.reason) == (
        2,
        "1 byte or more is not utf-8, and read as \ufffd (--encoding)",
    )


@needs_docling
@pytest.mark.slow
def test_office_files_that_cannot_be_read_are_told_and_the_next_is_read(tmp_path: Path) -> None:
    broken = kinds.broken()
    for name, message in {
        "broken.docx": "damaged",
        "locked.docx": "protected by a password",
        "other.xlsx": "damaged",
        "bomb.docx": "would unpack to more than 512 MB",
        "empty.pptx": "damaged",
        "broken.epub": "damaged",
    }.items():
        rows, [problem] = read(tmp_path, name, broken[name])
        assert rows == []
        assert message in problem.reason, name
    assert read(tmp_path, "a.html", OFFICE["a.html"])[0]


@needs_docling
@pytest.mark.slow
def test_chapters_of_a_book_are_read_or_told(tmp_path: Path) -> None:
    def book(**changed: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(OFFICE["a.epub"])) as sound:
            members = {name: sound.read(name) for name in sound.namelist()}
        return kinds.archive(
            members | {f"OEBPS/{name[1:]}.xhtml": data for name, data in changed.items()} | extra
        )

    extra: dict[str, bytes] = {}
    latin = '<?xml version="1.0" encoding="ISO-8859-1"?><html><body><p>Größe: 5 €</p></body></html>'.encode(
        "cp1252"
    )
    rows, problems = read(tmp_path, "a.epub", book(_2=latin))
    assert "Größe: 5 €" in rows[-1]["content"]
    assert not problems
    rows, [problem] = read(tmp_path, "a.epub", book(_2=b"\xff\x81" * 99))
    assert FERRY in rows[0]["content"]
    assert problem.reason == "chapters that cannot be read: OEBPS/2.xhtml"
    rows, [problem] = read(tmp_path, "a.epub", book(_1=b"\xff\x81", _2=b"\xff\x81"))
    assert (rows, problem.reason) == ([], "damaged (none of its chapters can be read).")
    extra["META-INF/encryption.xml"] = b"<encryption/>"
    assert not read(tmp_path, "a.epub", book())[1]  # fonts may be encrypted
    rows, [problem] = read(tmp_path, "a.epub", book(_2=b"\xff\x81"))
    assert (rows, problem.reason) == ([], "it is encrypted.")


@needs_docling
@pytest.mark.slow
def test_empty_office_files_are_no_problem(tmp_path: Path) -> None:
    from docx import Document
    from openpyxl import Workbook
    from pptx import Presentation

    for name, made in (("a.docx", Document()), ("a.pptx", Presentation()), ("a.xlsx", Workbook())):
        assert read(tmp_path, name, kinds.saved(made)) == ([], []), name
    assert read(tmp_path, "a.html", b"") == ([], [])


@needs_docling
@pytest.mark.slow
def test_entities_are_not_expanded(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY e0 "lol">{entities}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = f'{bomb}<w:document xmlns:w="{word}"><w:body><w:p><w:r><w:t>&e9;&f;</w:t></w:r></w:p></w:body></w:document>'
    with zipfile.ZipFile(io.BytesIO(OFFICE["a.docx"])) as sound:
        members = {name: sound.read(name) for name in sound.namelist()}
    rows, problems = read(tmp_path, "a.docx", kinds.archive({**members, "word/document.xml": body}))
    assert problems or not any("lol" in row["content"] or "root:" in row["content"] for row in rows)
    page = f"{bomb}<html><body><p>&e9;&f;</p></body></html>"
    rows, problems = read(tmp_path, "a.xhtml", page.encode())
    assert problems or not any(row["content"].count("lol") > 50 or "root:" in row["content"] for row in rows)


@needs_docling
@pytest.mark.slow
def test_a_file_that_takes_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "TIMEOUT_S", 0.1)
    _, [problem] = read(tmp_path, "a.html", b"<p>x</p>" * 50_000)
    assert problem.reason == "takes longer than 0.1 seconds."
