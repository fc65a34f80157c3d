"""PDF files: each page as an image, or as its text.

Files are opened in worker processes (`pdf_process`): a page that takes too long or too much memory is an error of
that page.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from late_interaction.images.pdf_process import MEMORY, Answer, CrashError, OverrunError, ask

if TYPE_CHECKING:
    from PIL import Image

DPI = 150
PDF_TIMEOUT_S = 30.0
MAX_PAGE_PIXELS = 16_000_000
"""Most pixels of a rendered page: larger ones, such as plans and maps, are rendered at a lower resolution."""


@dataclass(frozen=True, slots=True)
class PdfPage:
    """A page that becomes an image when it is needed, so that a long file does not fill the memory.

    Attributes:
        path: the file.
        page: the page's number, from 1.
        dpi: pixels per inch.
        pdf_timeout_s: most seconds to render it.
    """

    path: str
    page: int
    dpi: float = DPI
    pdf_timeout_s: float = PDF_TIMEOUT_S

    @property
    def reference(self) -> str:
        """The file and the page, in the form of a PDF viewer's link."""
        return f"{self.path}#page={self.page}"

    def render(self) -> Image.Image:
        """Render the page as an RGB image, on white.

        Raises:
            ValueError: the page is damaged, or takes too long or too much memory.
            MissingExtraError: pypdfium2 or Pillow is not installed.
        """
        from PIL import Image

        limit = min(MAX_PAGE_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PAGE_PIXELS)
        answer = _ask("render", self.path, self.pdf_timeout_s, page=self.page, dpi=self.dpi, max_pixels=limit)
        size = answer.values["width"], answer.values["height"]
        mode, raw = ("RGB", "RGB") if answer.values["channels"] == 3 else ("RGBA", "RGBA")
        image = Image.frombytes(mode, size, answer.data, "raw", raw, answer.values["stride"])
        return image if mode == "RGB" else image.convert("RGB")


def pdf_pages(
    path: str | os.PathLike[str], *, dpi: float = DPI, pdf_timeout_s: float = PDF_TIMEOUT_S
) -> Iterator[dict[str, Any]]:
    """Return the pages of a PDF as rows for a visual model, one document each.

    A page is rendered when it is encoded, in another process. Rows have `image`, `content` ("report.pdf, page 3 of
    12"), `doc_id` ("path/report.pdf#3") and the metadata `source` (the path), `page` and `pages`.

    Args:
        path: the file.
        dpi: pixels per inch. Visual models scale a page to some 0.2 to 1 million pixels; 150 gives 2.2 for A4. A page
            that would have more than 16 million is rendered at a lower resolution.
        pdf_timeout_s: most seconds for each page, and a quarter of that on the processor.

    Raises:
        ValueError: the file is not a PDF, is damaged, or is protected by a password; or dpi or pdf_timeout_s is not
            positive and finite.
        MissingExtraError: pypdfium2 is not installed.

    Example:
        >>> from PIL import Image
        >>> from late_interaction import pdf_pages
        >>> Image.new("RGB", (40, 30)).save("report.pdf")
        >>> [(row["doc_id"], row["content"]) for row in pdf_pages("report.pdf")]
        [('report.pdf#1', 'report.pdf, page 1 of 1')]
    """
    for name, value in (("dpi", dpi), ("pdf_timeout_s", pdf_timeout_s)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {value}.")
    source, pages = os.fspath(path), page_count(path, pdf_timeout_s=pdf_timeout_s)
    return (
        {
            "image": PdfPage(source, page, dpi, pdf_timeout_s),
            "content": f"{Path(path).name}, page {page} of {pages}",
            "doc_id": f"{source}#{page}",
            "source": source,
            "page": page,
            "pages": pages,
        }
        for page in range(1, pages + 1)
    )


def page_count(path: str | os.PathLike[str], *, pdf_timeout_s: float = PDF_TIMEOUT_S) -> int:
    """Return how many pages a PDF has, at least 1.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    return int(_ask("count", path, pdf_timeout_s).values["pages"])


def page_text(path: str | os.PathLike[str], page: int, *, pdf_timeout_s: float = PDF_TIMEOUT_S) -> str | None:
    """Return the text of a page as far as the file has it: "" of a blank page, None of one that only shows something.

    Args:
        path: the file.
        page: the page's number, from 1.
        pdf_timeout_s: most seconds to read it.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    values = _ask("text", path, pdf_timeout_s, page=page).values
    # A hyphen at a line's end comes as U+FFFE or U+0002: the halves are put together again.
    text: str = values["text"]
    text = text.replace("\ufffe", "").replace("\x02", "").replace("\x00", "").replace("\r\n", "\n")
    if text.strip():
        return text
    return None if values["shows"] else ""


def _ask(what: str, path: str | os.PathLike[str], timeout_s: float, **details: Any) -> Answer:
    """Ask a worker, and say in one sentence why it could not answer."""
    try:
        answer = ask(what, path, timeout_s, **details)
    except OverrunError:
        reason = f"takes longer than {timeout_s:g} seconds (pdf_timeout_s)"
    except CrashError:
        reason = f"crashes the PDF reader, or takes more than {MEMORY // 2**20:,} MB of memory"
    else:
        refused = answer.values.get("refused")
        if refused is None:
            return answer
        detail = answer.values["detail"]
        reason = {
            "missing": f"cannot be read ({detail})",
            "locked": "it is protected by a password",
            "unreadable": f"not a PDF that can be read ({detail})",
            "damaged": f"damaged ({detail})",
            "memory": f"takes more than {MEMORY // 2**20:,} MB of memory",
        }[refused]
    raise ValueError(f"{os.fspath(path)}: {reason}.")
