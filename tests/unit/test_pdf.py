"""PDF files: pages as images when they are needed, pages as text, and files that cannot be read."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import MissingExtraError, load_image, pdf_pages
from late_interaction.images.opening import open_image
from late_interaction.images.pdf import PageText, page_text, pdf_file
from late_interaction.reading.files import ReadProblem, read_rows
from tests.support import pdfs

pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")


def write(tmp_path: Path, data: bytes, name: str = "report.pdf") -> Path:
    file = tmp_path / name
    file.write_bytes(data)
    return file


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return write(tmp_path, pdfs.pdf(pdfs.text("The wing", "of a plane"), pdfs.DRAWING, ""))


def test_a_row_for_each_page(report: Path) -> None:
    rows = list(pdf_pages(report))
    assert [row["page"] for row in rows] == [1, 2, 3]
    assert {key: value for key, value in rows[1].items() if key != "image"} == {
        "content": "report.pdf, page 2 of 3",
        "doc_id": f"{report}#2",
        "source": str(report),
        "page": 2,
        "pages": 3,
    }
    assert rows[1]["image"].reference == f"{report}#page=2"
    assert pickle.loads(pickle.dumps(rows[1]["image"])) == rows[1]["image"]


@pytest.mark.parametrize(("dpi", "size"), [(72, (595, 842)), (150, (1240, 1755)), (36.0, (298, 421))])
def test_a_page_is_rendered_at_the_resolution_asked_for(
    report: Path, dpi: float, size: tuple[int, int]
) -> None:
    image = load_image(list(pdf_pages(report, dpi=dpi))[1]["image"])
    assert image.mode == "RGB"
    assert np.abs(np.subtract(image.size, size)).max() <= 1
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((image.width * 250 // 595, image.height * 600 // 842)) == (51, 102, 230)


def test_a_page_is_loaded_by_its_reference(report: Path) -> None:
    page = list(pdf_pages(report, dpi=150))[1]["image"]
    found = load_image(page.reference)
    assert np.array_equal(found, load_image(page))
    assert np.array_equal(found, open_image(Path("report.pdf#page=2"), root=report.parent).image)


def test_a_page_that_is_not_there_is_named(report: Path) -> None:
    with pytest.raises(ValueError, match=r"report\.pdf: there is no page 4, the last one is 3.$"):
        load_image(f"{report}#page=4")
    with pytest.raises(ValueError, match=r"other\.pdf: cannot be read \(No such file or directory\).$"):
        load_image(f"{report.with_name('other.pdf')}#page=1")
    with pytest.raises(ValueError, match=r"report\.pdf#page=1 is one"):
        load_image(report)


def test_a_url_of_a_page_is_no_path() -> None:
    with pytest.raises(ValueError, match="allow_urls=True"):
        load_image("https://example.org/report.pdf#page=1")


def test_a_rotated_page_is_upright(tmp_path: Path) -> None:
    file = write(tmp_path, pdfs.pdf(pdfs.DRAWING, rotate=90))
    assert load_image(next(pdf_pages(file, dpi=72))["image"]).size == (842, 595)


def test_the_text_of_a_page(report: Path) -> None:
    assert pdf_file(report).pages == 3
    assert page_text(report, 1).text == "The wing\nof a plane"
    assert page_text(report, 2) == PageText("", "no text")
    assert page_text(report, 3) == PageText("")


@pytest.mark.parametrize("read", [pdf_pages, pdf_file, lambda file: page_text(file, 1)])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pdfs.pdf("", locked=True), "protected by a password"),
        (b"%PDF-1.4 and then nothing", "not a PDF that can be read"),
        (b"", "not a PDF that can be read"),
        (None, "cannot be read .No such file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, data: bytes | None, message: str, read: Callable[[Path], Any]
) -> None:
    file = tmp_path / "report.pdf" if data is None else write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_a_page_of_kilometres_is_rendered_smaller(tmp_path: Path) -> None:
    file = write(tmp_path, pdfs.pdf(pdfs.DRAWING, size=(100_000, 50_000)))
    image = load_image(next(pdf_pages(file))["image"])
    assert image.width == pytest.approx(2 * image.height, rel=0.01)
    assert 15_000_000 < image.width * image.height < 16_100_000


@pytest.mark.parametrize("size", [(0.01, 14_400_000), (1e30, 1e30), (-5, 3)])
def test_a_page_of_a_senseless_size_is_small_or_refused(tmp_path: Path, size: tuple[float, float]) -> None:
    file = write(tmp_path, pdfs.pdf(pdfs.DRAWING, size=size))
    # What PDFium makes of it is its own affair; no memory is filled and no foreign error raised.
    with contextlib.suppress(ValueError):
        image = load_image(next(pdf_pages(file))["image"])
        assert image.width * image.height <= 16_100_000


@pytest.mark.parametrize("dpi", [0, -1, float("nan"), float("inf")])
def test_a_resolution_that_is_none(report: Path, dpi: float) -> None:
    with pytest.raises(ValueError, match="dpi must be positive"):
        pdf_pages(report, dpi=dpi)


def test_pages_may_be_rendered_from_many_threads(report: Path) -> None:
    pages = [row["image"] for row in pdf_pages(report, dpi=40)]
    alone = [np.asarray(load_image(page)) for page in pages]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda page: np.asarray(load_image(page)), pages * 20))
    assert all(np.array_equal(image, alone[i % 3]) for i, image in enumerate(together))


def test_without_pypdfium2_the_extra_is_named(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'late-interaction\[colpali\]'"):
        pdf_pages(report)


# --- as the command line reads them


def rows_of(file: Path, **settings: Any) -> tuple[list[Any], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    return list(read_rows([file], problems.append, **settings)), problems


def test_for_a_visual_model_a_page_is_a_row(report: Path) -> None:
    rows, problems = rows_of(report, images=True)
    assert [row["doc_id"] for row in rows] == [f"{report}#{page}" for page in (1, 2, 3)]
    assert not problems


def test_for_a_text_model_the_text_is_cut_into_passages(tmp_path: Path) -> None:
    sentences = [f"Sentence {i} of this page has eight words." for i in range(6)]
    file = write(tmp_path, pdfs.pdf(pdfs.text("A short page."), "", pdfs.text(*sentences)))
    rows, problems = rows_of(file, passage_tokens=40)
    assert [(row["page"], row["chunk"]) for row in rows] == [(1, 1), (3, 2), (3, 3), (3, 4)]
    assert rows[0] == {
        "content": "A short page.",
        "doc_id": f"{file}#1",
        "source": str(file),
        "page": 1,
        "pages": 3,
        "chunk": 1,
    }
    assert rows[1]["content"] == " ".join(sentences[:2])
    assert not problems


def test_a_page_without_text_is_told_and_the_others_read(report: Path) -> None:
    rows, problems = rows_of(report)
    assert [row["content"] for row in rows] == ["The wing of a plane"]
    [problem] = problems
    assert str(problem).startswith(
        f"{report}: 1 of 3 pages show something, but have no text (page 2): scanned"
    )


def test_a_page_that_is_broken_is_told_and_the_others_read(tmp_path: Path) -> None:
    pages = pdfs.pdf(*map(pdfs.text, ("one", "two", "three")))
    file = write(tmp_path, pages.replace(b"6 0 obj\n<< /Type /Page ", b"6 0 obj\n<< /Type /Nope "))
    rows, problems = rows_of(file)
    assert [(row["page"], row["chunk"], row["content"]) for row in rows] == [(1, 1, "one"), (3, 2, "three")]
    assert [str(problem) for problem in problems] == [f"{file}: page 2: damaged (Failed to load page.)."]


@pytest.mark.parametrize("images", [False, True])
def test_a_file_that_cannot_be_read_is_a_problem_and_no_more(tmp_path: Path, images: bool) -> None:
    locked = write(tmp_path, pdfs.pdf("", locked=True), "locked.pdf")
    good = write(tmp_path, pdfs.pdf(pdfs.text("Hello")), "good.pdf")
    problems: list[ReadProblem] = []
    rows = list(read_rows([locked, good], problems.append, images=images))
    assert [str(problem) for problem in problems] == [f"{locked}: it is protected by a password."]
    assert len(rows) == 1


def test_without_pypdfium2_a_pdf_is_a_problem(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    rows, [problem] = rows_of(report)
    assert not rows
    assert "late-interaction[colpali]" in problem.reason
