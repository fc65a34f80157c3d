"""PDF files: each page as an image, or as its text."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from late_interaction.errors import MissingExtraError

if TYPE_CHECKING:
    import pypdfium2
    from PIL import Image

DPI = 150
_POINTS_PER_INCH = 72
# PDFium is not made for threads at all, so that nothing of it may be open outside this lock.
_pdfium = threading.Lock()


@dataclass(frozen=True, slots=True)
class PdfPage:
    """A page that becomes an image when it is needed, so that a long file does not fill the memory.

    Attributes:
        path: the file.
        page: the page's number, from 1.
        dpi: pixels per inch.
    """

    path: str
    page: int
    dpi: float = DPI

    @property
    def reference(self) -> str:
        """The file and the page, as a PDF viewer's link has them."""
        return f"{self.path}#page={self.page}"

    def render(self) -> Image.Image:
        """The page as an RGB image, on white.

        Raises:
            ValueError: the page is damaged, or would have too many pixels.
        """
        with _opened(Path(self.path)) as document:
            page = document[self.page - 1]
            _check_size(page.get_size(), self.dpi, self.reference)
            image: Image.Image = page.render(scale=self.dpi / _POINTS_PER_INCH).to_pil().convert("RGB")
            return image


def pdf_pages(path: str | os.PathLike[str], *, dpi: float = DPI) -> Iterator[dict[str, Any]]:
    """The pages of a PDF as rows for a visual model, one document each.

    A page is rendered when it is encoded. Rows have `image`, `content` ("report.pdf, page 3 of 12"), `doc_id`
    ("path/report.pdf#3") and the metadata `source` (the path), `page` and `pages`.

    Args:
        path: the file.
        dpi: pixels per inch. Visual models scale a page to some 0.2 to 1 million pixels; 150 gives 2.2 for A4.

    Raises:
        ValueError: the file is no PDF, is damaged, or is protected by a password; or dpi is not positive and finite.
        MissingExtraError: pypdfium2 is not installed.
    """
    if not 0 < dpi < math.inf:
        raise ValueError(f"dpi must be positive and finite, not {dpi}.")
    name, pages = os.fspath(path), page_count(path)
    return (
        {
            "image": PdfPage(name, page, dpi),
            "content": f"{Path(path).name}, page {page} of {pages}",
            "doc_id": f"{name}#{page}",
            "source": name,
            "page": page,
            "pages": pages,
        }
        for page in range(1, pages + 1)
    )


def page_count(path: str | os.PathLike[str]) -> int:
    """How many pages a PDF has, at least 1.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    with _opened(Path(path)) as document:
        return len(document)


def page_text(path: str | os.PathLike[str], page: int) -> str | None:
    """The text of a page as far as the file has it: empty of a blank page, None of one that only shows something.

    Args:
        path: the file.
        page: the page's number, from 1.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    with _opened(Path(path)) as document:
        shown = document[page - 1]
        text: str = shown.get_textpage().get_text_range()
        # A hyphen at a line's end comes as U+FFFE or U+0002: the halves are put together again.
        text = text.replace("\ufffe", "").replace("\x02", "").replace("\x00", "").replace("\r\n", "\n")
        if text.strip():
            return text
        return "" if next(shown.get_objects(max_depth=1), None) is None else None


@contextmanager
def _opened(file: Path) -> Iterator[pypdfium2.PdfDocument]:
    """A file, open while nothing else of PDFium is."""
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingExtraError("Reading PDF files", "colpali", "pypdfium2") from error
    with _pdfium:
        try:
            document = pypdfium2.PdfDocument(file)
        except FileNotFoundError:
            raise ValueError(f"there is no file {file}.") from None
        except pypdfium2.PdfiumError as error:
            locked = "password" in str(error).lower()
            reason = "it is protected by a password" if locked else f"no PDF that can be read ({error})"
            raise ValueError(f"{file}: {reason}.") from None
        try:
            yield document
        except pypdfium2.PdfiumError as error:
            raise ValueError(f"{file}: damaged ({error}).") from None
        finally:
            document.close()  # and with it its pages


def _check_size(points: tuple[float, float], dpi: float, name: str) -> None:
    """Refuse a page that would fill the memory: some say that they are kilometres wide."""
    from PIL import Image

    width, height = (round(edge * dpi / _POINTS_PER_INCH) for edge in points)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{name} would have {width}×{height} pixels at {dpi:g} dpi: choose a lower dpi.")
