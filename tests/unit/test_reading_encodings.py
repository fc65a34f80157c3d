"""Texts that are not UTF-8: told by their first bytes, guessed, or named; damage is told and nothing is left out."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest

from late_interaction.reading.encodings import Encoding, encoding_of
from late_interaction.reading.files import ReadProblem, read_rows

TEXTS = {
    "cp1252": "L'été à Noël, où êtes-vous? “Ça va” – très bien, merci.",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "cp1251": "Паром пересекает реку в полдень.",
    "cp1253": "Το πλοίο διασχίζει το ποτάμι.",
    "cp932": "フェリーは正午に川を渡る。",
    "euc_jp": "フェリーは正午に川を渡る。",
    "gb18030": "我们在河边看见一只白色的大鸟。",
    "big5": "我們在河邊看見一隻白色的大鳥。",
    "cp949": "배는 정오에 강을 건넌다.",
}


def read(file: Path, **options: Any) -> tuple[list[Any], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    return list(read_rows([file], problems.append, **options)), problems


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst"])
def test_other_encodings_are_guessed_and_told(tmp_path: Path, name: str, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(f"Some text in ASCII.\r\n\r\n{TEXTS[name]}\r\n".encode(name))
    [row], problems = read(file)
    assert row["content"] == f"Some text in ASCII.\n\n{TEXTS[name]}"
    assert row["encoding"] == name
    assert not problems


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_the_utfs(file: Path, mark: bytes, name: str) -> None:
    file.write_bytes(mark + "The ferry crosses the river.\r\nÉté.".encode(name))
    [row], problems = read(file, encoding="cp1251" if mark else None)  # a mark is right whatever is said
    assert row["content"] == "The ferry crosses the river.\nÉté."
    assert not problems


def test_an_encoding_may_be_named(file: Path) -> None:
    file.write_bytes("Müller".encode("cp437"))
    [row], problems = read(file, encoding="cp437")
    assert row["content"] == "Müller"
    assert "encoding" not in row
    assert not problems


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.xml", '<?xml version="1.0" encoding="ISO-8859-2"?>\n'),
        ("a.py", "#!/usr/bin/python\n# -*- coding: iso8859-2 -*-\n"),
        ("a.css", '@charset "iso-8859-2";\n'),
    ],
)
def test_an_encoding_that_the_file_declares(tmp_path: Path, name: str, start: str) -> None:
    file = tmp_path / name
    file.write_bytes(f"{start}\nžluťoučký kůň š\n".encode("iso8859-2"))
    rows, problems = read(file)
    assert rows[-1]["content"].endswith("žluťoučký kůň š")
    assert "encoding" not in rows[0]
    assert not problems


@pytest.mark.parametrize(
    ("said", "encoding", "text"),
    [
        ("ISO-8859-1", "cp1252", "don’t – € 5"),
        ("latin-1", "cp1252", "don’t – € 5"),
        ("us-ascii", "cp1252", "don’t – € 5"),
        ("gb2312", "gbk", "朱镕基"),
        ("euc-kr", "cp949", "펲시콜라"),
        ("windows-31j", "cp932", "①②フェリー"),
    ],
)
def test_labels_are_read_as_browsers_do(tmp_path: Path, said: str, encoding: str, text: str) -> None:
    file = tmp_path / "a.xml"
    file.write_bytes(f'<?xml version="1.0" encoding="{said}"?>\n<a>{text}</a>\n'.encode(encoding))
    [row], problems = read(file)
    assert text in row["content"]
    assert not problems


def test_a_text_is_not_utf_16_because_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_bytes(
        '<?xml version="1.0" encoding="UTF-16"?>\n<a>Müller wohnt in Köln.</a>\n'.encode("cp1252")
    )
    assert "Müller wohnt in Köln." in read(file)[0][0]["content"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("iso2022_jp", "フェリーは正午に川を渡る。"), ("iso2022_jp_ext", "ﾌｪﾘｰ"), ("iso2022_kr", "배는 정오에")],
)
def test_encodings_that_escape_from_ascii_are_known(file: Path, name: str, text: str) -> None:
    file.write_bytes(f"{text}\n".encode(name))
    [row], problems = read(file)
    assert (row["content"], row["encoding"]) == (text, name)
    assert not problems
    file.write_bytes(b"\x1b[31mred\x1b(B\x1b[m costs \x1b$ 5")  # a terminal's
    assert read(file)[0][0]["content"] == "\x1b[31mred\x1b(B\x1b[m costs \x1b$ 5"


def test_an_encoding_that_is_declared_wrongly_is_guessed(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    for said in ("utf-8", "klingon", "base64"):
        file.write_bytes(f'<?xml encoding="{said}"?>\nMüller wohnt in Köln.\n'.encode("cp1252"))
        assert read(file)[0][0]["encoding"] == "cp1252"


@pytest.mark.parametrize("name", ["klingon", "base64"])
def test_an_encoding_that_is_none(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no encoding '{name}' of texts"):
        read(file, encoding=name)


def test_a_text_with_some_damage_is_read_and_told(file: Path) -> None:
    file.write_bytes("Zoë\nand café\n".encode() + b"and na\xefve\nend\n")
    [row], [problem] = read(file)
    assert row["content"] == "Zoë\nand café\nand na\ufffdve\nend"
    assert (problem.line, problem.reason) == (
        3,
        "1 byte or more is not utf-8, and read as \ufffd (--encoding)",
    )


def test_what_a_named_encoding_lacks_is_told(file: Path) -> None:
    file.write_bytes("one\ntwo é".encode())
    [row], [problem] = read(file, encoding="ascii")
    assert row["content"] == "one\ntwo \ufffd\ufffd"
    assert problem.line == 2


def test_a_sign_for_damage_is_no_damage(file: Path) -> None:
    file.write_text("was \ufffd before")
    assert encoding_of(file) == Encoding("utf-8")


@pytest.mark.parametrize("data", [bytes(range(256)) * 40, b"\0" * 1000, b"\x89PNG\r\n\x1a\n" + bytes(200)])
def test_what_is_no_text_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    rows, [problem] = read(file)
    assert rows == []
    assert "binary data" in problem.reason


def test_a_file_without_line_ends_is_read_in_parts(file: Path) -> None:
    file.write_bytes(b"QUJD" * 70_000 + "é".encode("latin-1"))
    rows, problems = read(file)
    assert "".join(row["content"] for row in rows) == "QUJD" * 70_000 + "é"
    assert not problems
