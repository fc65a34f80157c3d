"""What can be read on the pages of PDF files, as people have them: forms, notes, margins, broken fonts, scans."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from late_interaction import load_image, pdf_pages
from late_interaction.images.pdf import PageText, page_text, pdf_file
from late_interaction.reading.files import ReadProblem, read_rows
from tests.support import pdfs

pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")

FORM = "/AcroForm << /Fields [6 0 R] /DA (/F1 12 Tf 0 g) /NeedAppearances true >>"
NOTED = "/Annots [6 0 R]"


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Write a page, and read it."""

    def read(content: str = "", **parts: Any) -> PageText:
        return page_text(written(tmp_path, content, **parts), 1)

    return read


def written(tmp_path: Path, *contents: str, **parts: Any) -> Path:
    file = tmp_path / "page.pdf"
    file.write_bytes(pdfs.pdf(*contents, **parts))
    return file


def rows_of(file: Path, **settings: Any) -> tuple[list[Any], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    return list(read_rows([file], problems.append, **settings)), problems


def field(of: str) -> dict[str, Any]:
    widget = "/Type /Annot /Subtype /Widget /F 4 /T (f1) /Rect [100 600 400 640] /DA (/F1 12 Tf 0 g)"
    return {"entries": NOTED, "catalog": FORM, "objects": [f"<< {widget} {of} >>"]}


def note(of: str) -> dict[str, Any]:
    return {"entries": NOTED, "objects": [f"<< /Type /Annot /Rect [100 600 400 640] {of} >>"]}


TICKED = "/FT /Btn /V /Paid /AS /Paid /TU (State) /AP << /N << /Paid 5 0 R /Off 5 0 R >> >>"


@pytest.mark.parametrize(
    ("of", "text"),
    [
        ("/FT /Tx /V (PAID IN FULL)", "PAID IN FULL"),
        ("/FT /Tx /V (PAID IN FULL) /TU (State of the bill:)", "State of the bill: PAID IN FULL"),
        ("/FT /Tx /V <FEFF00E9007400E9>", "été"),
        ("/FT /Ch /Ff 131072 /V (green) /Opt [(red) (green)]", "green"),
        ("/FT /Ch /Ff 2097152 /V [(red) (blue)] /Opt [(red) (green) (blue)]", "red, blue"),
        (TICKED, "State: Paid"),
        (TICKED.replace("/Paid /AS /Paid", "/Off /AS /Off"), ""),
        ("/FT /Tx /V (secret) /Ff 8192", ""),
        ("/FT /Tx /V (hidden) /F 2", ""),
    ],
)
def test_the_value_of_a_field_is_text(page: Any, of: str, text: str) -> None:
    assert page(pdfs.text("Invoice 17"), **field(of)).text == f"Invoice 17\n\n{text}".strip()


def test_a_field_of_a_file_without_a_form_is_read(page: Any) -> None:
    assert page(**field("/FT /Tx /V (lost)") | {"catalog": ""}).text == "lost"


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (
            "/Subtype /FreeText /DA (/Helv 14 Tf 0 g) /Contents (The lease ends in May)",
            "The lease ends in May",
        ),
        ("/Subtype /FreeText /RC (<body><p>Rich <b>text</b></p></body>)", "Rich text"),
        ("/Subtype /Text /Contents (Ask Ann)", "Ask Ann"),
        ("/Subtype /Highlight /QuadPoints [0 0 9 0 0 9 9 9] /Contents (Why?)", "Why?"),
        ("/Subtype /Stamp /Contents (APPROVED)", "APPROVED"),
        ("/Subtype /Ink /InkList [[0 0 9 9]] /Contents (a doodle)", "a doodle"),
        ("/Subtype /Popup /Contents (Ask Ann)", ""),
        ("/Subtype /Text /F 2 /Contents (hidden)", ""),
    ],
)
def test_notes_are_text(page: Any, of: str, text: str) -> None:
    assert page(pdfs.text("Page"), **note(of)).text == f"Page\n\n{text}".strip()


def test_a_note_that_repeats_the_page_is_there_once(page: Any) -> None:
    quoting = note("/Subtype /Highlight /QuadPoints [0 0 9 0 0 9 9 9] /Contents (wing  flies)")
    assert page(pdfs.text("The wing", "flies"), **quoting).text == "The wing\nflies"


def test_a_page_with_nothing_but_a_note_is_not_blank(page: Any) -> None:
    assert page("", **note("/Subtype /FreeText /DA (/Helv 9 Tf 0 g) /Contents (Here)")) == PageText("Here")
    assert page("", **note("/Subtype /Ink /InkList [[100 600 300 620]]")).unread == "no text"
    assert page("") == PageText("")


def test_a_filled_field_is_drawn(tmp_path: Path) -> None:
    file = written(tmp_path, "", **field("/FT /Tx /V (PAID IN FULL)"))
    image = load_image(next(pdf_pages(file, dpi=72))["image"]).crop((100, 202, 400, 242))
    assert min(pixel for pixel in image.convert("L").tobytes()) < 100


def test_what_is_outside_the_crop_box_is_no_text_of_the_page(page: Any) -> None:
    shown = pdfs.text("inside", "inside too") + " BT /F1 8 Tf 10 10 Td (printed by X) Tj ET"
    assert page(shown, entries="/CropBox [50 50 545 800]") == PageText("inside\ninside too")
    assert "printed by X" in page(shown).text
    aside = shown.replace("10 10 Td", "300 760 Td").replace("/F1 8", "/F1 24")
    assert page(aside, entries="/CropBox [50 50 290 800]").text == "inside\ninside too"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (("inter-", "national law"), "international law"),
        ((r"\(inter-", r"national\)"), "(international)"),
        (("IEEE-", "754"), "IEEE-754"),
        (("state-of-the-", "art"), "state-of-the-art"),
        (("Jean-", "Paul"), "Jean-Paul"),
        (("COVID-", "vaccine"), "COVID-vaccine"),
        (("the x1-", "axis"), "the x1-axis"),
        (("bitwise-", "AND"), "bitwise-AND"),
    ],
)
def test_a_hyphen_goes_only_between_halves_of_a_word(page: Any, lines: Sequence[str], text: str) -> None:
    assert " ".join(page(pdfs.text(*lines)).text.split()) == text


HELVETICA = {
    "w": 722,
    "i": 222,
    "n": 556,
    "g": 556,
    "s": 500,
    "o": 556,
    "f": 278,
    "t": 278,
    "e": 556,
    "r": 333,
}


def placed(words: Sequence[str], gap: float, spacing: float = 0, rotated: bool = False) -> str:
    """Words in Helvetica of 10 points, each put where the one before ends and so much further."""
    at, shown = 100.0, ""
    for word in words:
        place = f"0 1 -1 0 200 {at:.2f}" if rotated else f"1 0 0 1 {at:.2f} 700"
        shown += f"BT /F1 10 Tf {spacing} Tc {place} Tm ({word}) Tj ET "
        at += sum(HELVETICA[letter] for letter in word) / 100 + spacing * len(word) + gap
    return shown


@pytest.mark.parametrize("rotated", [False, True])
def test_words_that_only_their_places_set_apart(page: Any, rotated: bool) -> None:
    words = ("wings", "of", "storing", "tree")
    for gap in (1.6, 2.2, 2.8, 5):
        assert page(placed(words, gap, rotated=rotated)).text.split() == [*words], gap
    for gap in (0, 0.3, 0.6):
        assert page(placed(("wi", "ngs"), gap, rotated=rotated)).text == "wings"


def test_a_word_whose_letters_are_set_apart_stays_one(page: Any) -> None:
    assert page(placed([*"toring"], 1.5)).text == "toring"
    assert page(placed(("storing", "tree"), 5, spacing=1.5)).text.split() == ["storing", "tree"]


def font_without_map(codes: Sequence[int]) -> dict[str, Any]:
    descriptor = (
        "/Flags 4 /FontBBox [0 0 1000 1000] /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80"
    )
    system = "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >>"
    return {
        "entries": "",
        "objects": [
            "<< /Type /Font /Subtype /Type0 /BaseFont /AB+Subset /Encoding /Identity-H /DescendantFonts [7 0 R] >>",
            f"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /AB+Subset /FontDescriptor 8 0 R /DW 600 {system} >>",
            f"<< /Type /FontDescriptor /FontName /AB+Subset {descriptor} >>",
        ],
    }


def with_font(content: str, codes: Sequence[int]) -> bytes:
    shown = "".join(f"{code:04x}" for code in codes)
    data = pdfs.pdf(f"{content} BT /F2 12 Tf 50 300 Td <{shown}> Tj ET", **font_without_map(codes))
    return data.replace(b"/F1 3 0 R", b"/F1 3 0 R /F2 6 0 R")


@pytest.mark.parametrize("codes", [range(3, 24), range(36, 90), range(0xE000, 0xE030)])
def test_text_of_fonts_without_a_map_is_told_and_not_indexed(tmp_path: Path, codes: Sequence[int]) -> None:
    file = tmp_path / "page.pdf"
    file.write_bytes(with_font("", codes))
    rows, problems = rows_of(file)
    assert rows == []
    assert "1 of 1 pages show something, but have fonts without a character map (page 1)" in str(problems[0])
    assert "OCR (--ocr)" in str(problems[0])


def test_a_few_signs_without_a_map_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "page.pdf"
    file.write_bytes(with_font(pdfs.text("The wing of the plate is long", "and wide"), [3, 4]))
    assert page_text(file, 1).text.startswith("The wing of the plate is long\nand wide")
    assert not page_text(file, 1).unread


def test_a_page_with_many_pieces_of_text_and_hardly_any_letters_is_told(page: Any) -> None:
    vertical = " ".join(f"BT /F1 10 Tf 1 0 0 1 {20 * i} 700 Tm ( ) Tj ET" for i in range(30))
    assert page(vertical + " BT /F1 10 Tf 72 72 Td (7) Tj ET").unread == "hardly any of their text"
    assert not page(" ".join(f"BT /F1 10 Tf 1 0 0 1 {20 * i} 700 Tm (ab) Tj ET" for i in range(25))).unread


def test_title_author_and_labels_are_metadata(tmp_path: Path) -> None:
    labels = "/PageLabels << /Nums [0 << /S /r >> 2 << /S /D >>] >>"
    info = "/Title (The Lease) /Author <FEFF0041006E006E>"
    file = written(tmp_path, *map(pdfs.text, ("one", "two", "three")), catalog=labels, info=info)
    known = {"title": "The Lease", "author": "Ann", "pages": 3}
    rows, _ = rows_of(file)
    assert [row["page_label"] for row in rows] == ["i", "ii", "1"]
    assert all(row.items() >= known.items() for row in rows)
    pages = list(pdf_pages(file))
    assert [row["page_label"] for row in pages] == ["i", "ii", "1"]
    assert all(row.items() >= known.items() for row in pages)


def test_a_password_opens_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, pdfs.text("A secret"), pdfs.DRAWING, password="dijk")
    with pytest.raises(ValueError, match="protected by a password"):
        pdf_file(file)
    with pytest.raises(ValueError, match="the password is wrong"):
        pdf_file(file, password="other")
    rows, _ = rows_of(file, password="dijk")
    assert [row["content"] for row in rows] == ["A secret"]
    pages = [row["image"] for row in pdf_pages(file, dpi=72, password="dijk")]
    assert load_image(pages[1]).getpixel((250, 600)) == (51, 102, 230)
    assert "dijk" not in repr(pages)
    _, problems = rows_of(file)
    assert [problem.reason for problem in problems] == ["it is protected by a password."]


def test_a_file_without_a_password_does_not_mind_one(tmp_path: Path) -> None:
    assert len(rows_of(written(tmp_path, pdfs.text("open")), password="dijk")[0]) == 1


# --- OCR, by a program that stands in the place of ocrmypdf and does what its command line says


@pytest.fixture
def ocrmypdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program on the path that writes the PDF beside it, and notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ocrmypdf"
    program.write_text(
        f"#!{sys.executable}\nimport sys, shutil, pathlib\nhere = pathlib.Path(__file__).parent\n"
        "(here / 'called').write_text(' '.join(sys.argv[1:-2]))\n"
        "ready = here / 'made.pdf'\n"
        "shutil.copy(ready, sys.argv[-1]) if ready.exists() else sys.exit('Tesseract is not there')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def test_pages_without_text_are_recognised(tmp_path: Path, ocrmypdf: Path) -> None:
    file = written(tmp_path, pdfs.text("first"), pdfs.DRAWING, pdfs.text("third"), pdfs.DRAWING)
    seen = ("first", "seen by OCR", "third", "")
    (ocrmypdf / "made.pdf").write_bytes(pdfs.pdf(*(pdfs.text(words) if words else "" for words in seen)))
    rows, problems = rows_of(file, ocr=True)
    assert [(row["page"], row["chunk"], row["content"]) for row in rows] == [
        (1, 1, "first"),
        (2, 2, "seen by OCR"),
        (3, 3, "third"),
    ]
    assert "--pages 2,4" in (ocrmypdf / "called").read_text()
    assert [problem.reason for problem in problems] == [
        "1 of 4 pages show something, but have no text (page 4): OCR found none either, and a visual model sees them"
    ]


def test_a_file_whose_pages_are_all_read_needs_no_ocr(tmp_path: Path, ocrmypdf: Path) -> None:
    assert len(rows_of(written(tmp_path, pdfs.text("first"), ""), ocr=True)[0]) == 1
    assert not (ocrmypdf / "called").exists()


def test_ocr_that_fails_is_a_problem_of_its_file(tmp_path: Path, ocrmypdf: Path) -> None:
    rows, [problem] = rows_of(written(tmp_path, pdfs.DRAWING), ocr=True)
    assert not rows
    assert problem.reason == "OCR failed: Tesseract is not there."


def test_ocr_that_is_not_installed_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="OCR needs ocrmypdf, which is not installed: pip install ocrmypdf"):
        rows_of(tmp_path / "missing.pdf", ocr=True)
