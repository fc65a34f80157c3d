"""PDF files: each page as an image, or as its text.

Files are opened in worker processes (`pdf_process`): a page that takes too long or too much memory is an error of
that page.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from late_interaction.images.pages import page_row
from late_interaction.images.pdf_process import MEMORY, Answer, CrashError, OverrunError, ask

if TYPE_CHECKING:
    from PIL import Image

DPI = 150
PDF_TIMEOUT_S = 30.0
MAX_PAGE_PIXELS = 16_000_000
"""Most pixels of a rendered page: larger ones, such as plans and maps, are rendered at a lower resolution."""

_UNREADABLE = 1 / 3
"""A text with more characters of no meaning than this share of it is none."""
_FEW_PIECES = 10
_LINE_END_HYPHEN = re.compile(r"([^\s\ufffe]*)(?:\ufffe\s*|(?<=\w)-\n\s*(?=\w))(?=(\w*))")


@dataclass(frozen=True, slots=True)
class PdfPage:
    """A page that becomes an image when it is needed, so that a long file does not fill the memory.

    Attributes:
        path: the file.
        page: the page's number, from 1.
        dpi: pixels per inch.
        pdf_timeout_s: most seconds to render it.
        password: opens the file, if it is protected.
        name: what the file is called in what is stored; None for its path.
    """

    path: str
    page: int
    dpi: float = DPI
    pdf_timeout_s: float = PDF_TIMEOUT_S
    password: str | None = field(default=None, repr=False)
    name: str | None = None

    @property
    def reference(self) -> str:
        """The file and the page, in the form of a PDF viewer's link."""
        return f"{self.name or self.path}#page={self.page}"

    def render(self) -> Image.Image:
        """Render the page as an RGB image, on white.

        Raises:
            ValueError: there is no such page, or it is damaged, or takes too long or too much memory.
            MissingExtraError: pypdfium2 or Pillow is not installed.
        """
        from PIL import Image

        limit = min(MAX_PAGE_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PAGE_PIXELS)
        details = {"page": self.page, "dpi": self.dpi, "max_pixels": limit, "password": self.password}
        answer = _ask("render", self.path, self.pdf_timeout_s, **details)
        size = answer.values["width"], answer.values["height"]
        mode, raw = ("RGB", "RGB") if answer.values["channels"] == 3 else ("RGBA", "RGBA")
        image = Image.frombytes(mode, size, answer.data, "raw", raw, answer.values["stride"])
        return image if mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True, slots=True)
class PdfFile:
    """What a PDF says of itself.

    Attributes:
        pages: how many pages it has, at least 1.
        title: as its author gave it; "" where there is none.
        author: the same.
        labels: the numbers that are printed on the pages, such as "iv"; empty where they are not told.
    """

    pages: int
    title: str
    author: str
    labels: tuple[str, ...]

    def metadata(self, page: int) -> dict[str, Any]:
        """Return the metadata of a page (from 1): `page` and `pages`, and `title`, `author`, `page_label` if known."""
        label = self.labels[page - 1] if page <= len(self.labels) else ""
        said = {"title": self.title, "author": self.author, "page_label": label}
        return {"page": page, "pages": self.pages} | {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class PageText:
    """What can be read on a page of a PDF.

    Attributes:
        text: its text, with its lines; then what is in its fields and notes, a paragraph each.
        unread: why it shows more than this text: "" where it does not.
    """

    text: str
    unread: str = ""


def pdf_pages(
    path: str | os.PathLike[str],
    *,
    dpi: float = DPI,
    pdf_timeout_s: float = PDF_TIMEOUT_S,
    password: str | None = None,
    name: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Return the pages of a PDF as rows for a visual model, one document each.

    A page is rendered when it is encoded, in another process. Rows have `image`, `content` ("report.pdf, page 3 of
    12"), `doc_id` ("path/report.pdf#3") and the metadata `source` (the path), `page` and `pages`; and `title`,
    `author` and `page_label` (the number printed on the page), if the file tells them.

    Args:
        path: the file.
        dpi: pixels per inch. Visual models scale a page to some 0.2 to 1 million pixels; 150 gives 2.2 for A4. A page
            that would have more than 16 million is rendered at a lower resolution.
        pdf_timeout_s: most seconds for each page, and a quarter of that on the processor.
        password: opens the file, if it is protected.
        name: what to call it in `doc_id`, in `source` and in what is stored of the image; None for its path.

    Raises:
        ValueError: the file is not a PDF, is damaged, or is protected by another password; or dpi or pdf_timeout_s is
            not positive and finite.
        MissingExtraError: pypdfium2 is not installed.

    Example:
        >>> from PIL import Image
        >>> from late_interaction import pdf_pages
        >>> Image.new("RGB", (40, 30)).save("report.pdf")
        >>> [(row["doc_id"], row["content"]) for row in pdf_pages("report.pdf")]
        [('report.pdf#1', 'report.pdf, page 1 of 1')]
    """
    for option, value in (("dpi", dpi), ("pdf_timeout_s", pdf_timeout_s)):
        if not 0 < value < math.inf:
            raise ValueError(f"{option} must be positive and finite, not {value}.")
    source, file = os.fspath(path), pdf_file(path, pdf_timeout_s=pdf_timeout_s, password=password)
    return (
        page_row(PdfPage(source, page, dpi, pdf_timeout_s, password, name), file.metadata(page))
        for page in range(1, file.pages + 1)
    )


def pdf_file(
    path: str | os.PathLike[str], *, pdf_timeout_s: float = PDF_TIMEOUT_S, password: str | None = None
) -> PdfFile:
    """Return how many pages a PDF has, its title, author and labels of pages.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    values = _ask("about", path, pdf_timeout_s, password=password).values
    return PdfFile(values["pages"], values["title"], values["author"], tuple(values["labels"]))


def page_count(path: str | os.PathLike[str], *, pdf_timeout_s: float = PDF_TIMEOUT_S) -> int:
    """Return how many pages a PDF has, at least 1.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    return pdf_file(path, pdf_timeout_s=pdf_timeout_s).pages


def page_text(
    path: str | os.PathLike[str],
    page: int,
    *,
    pdf_timeout_s: float = PDF_TIMEOUT_S,
    password: str | None = None,
) -> PageText:
    """Return the text of a page, as far as the file has it.

    What is outside the page's crop box is no part of it. A hyphen at a line's end is taken away where both halves of
    the word are lower-case letters; otherwise it stays: state-of-the-art, IEEE-754.

    Args:
        path: the file.
        page: the page's number, from 1.
        pdf_timeout_s: most seconds to read it.
        password: as for `pdf_pages`.

    Raises:
        ValueError, MissingExtraError: as for `pdf_pages`.
    """
    values = _ask("text", path, pdf_timeout_s, page=page, password=password).values
    text: str = values["text"]
    unread = _unread(text, values)
    if unread:
        text = ""
    text = _LINE_END_HYPHEN.sub(_joined, text)
    known = " ".join(text.split())
    notes = [note for note in values["notes"] if " ".join(note.split()) not in known]
    text = "\n\n".join(part for part in (text, *notes) if part.strip())
    if not unread and not text and values["shows"]:
        unread = "no text"
    return PageText(text, unread)


def _unread(text: str, values: dict[str, Any]) -> str:
    """Return what is wrong with the text of a page: it cannot be what the page shows."""
    signs = [sign for sign in text if not sign.isspace() and sign != "\ufffe"]
    if max(values["unmapped"], sum(map(_is_senseless, signs))) > _UNREADABLE * max(1, len(signs)):
        return "fonts without a character map"
    if values["objects"] >= _FEW_PIECES and 2 * len(signs) < values["objects"]:
        return "hardly any of their text"
    return ""


def _is_senseless(sign: str) -> bool:
    """Tell whether a character stands for nothing: control, private or unassigned ones, or U+FFFD."""
    return sign == "\ufffd" or unicodedata.category(sign) in ("Cc", "Co", "Cn", "Cs")


def _joined(found: re.Match[str]) -> str:
    before, after = found.groups()
    first = re.split(r"[^\w-]", before)[-1]
    are_words = first.isalpha() and first.islower() and after.isalpha() and after.islower()
    return before if are_words else f"{before}-"


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
            "locked": "it is protected by a password"
            if details.get("password") is None
            else "the password is wrong",
            "unreadable": f"not a PDF that can be read ({detail})",
            "absent": f"there is no page {details.get('page')}, the last one is {detail}",
            "damaged": f"damaged ({detail})",
            "memory": f"takes more than {MEMORY // 2**20:,} MB of memory",
        }[refused]
    raise ValueError(f"{os.fspath(path)}: {reason}.")
