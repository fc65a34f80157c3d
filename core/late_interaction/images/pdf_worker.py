"""A process of its own that opens PDF files, so that no file can stop, crash or fill the process that asks.

`pdf_process` runs this file as a script, with the folders of pypdfium2 as arguments. It imports nothing of
late_interaction and starts in a fraction of a second. It answers one request at a time: a JSON line in; a JSON line
with the length of what follows, and that, out.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import re
import signal
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

_POINTS_PER_INCH = 72
_LONGEST_EDGE = 20_000
_PAGES_BELIEVED = 1000
"""So many pages may be missing, each an error of its own."""
_PAGES_KEPT_OPEN = 500
"""PDFium keeps something of each page that it has shown: a file is opened anew after so many."""
_LABELS_READ = 100_000
_HYPHEN = "\ufffe"
"""Stands for a hyphen at the end of a line, which the next line follows at once."""
_SPACE = 0.12
"""Letters that are further apart than this share of their height (0.15 of the font's size) are in two words."""
_SPACED_OUT = 0.1
"""So much further than the others of their line, where all letters of it are set apart."""
_MARGIN = 1.0
_FEW_CHARACTERS = 1000
_HIDDEN, _PASSWORD_FIELD = 1 << 1, 1 << 13
_RICH_TEXT_TAG = re.compile(r"<[^>]*>")


class _Refused(Exception):  # noqa: N818 – the answer to a request, not an error
    """Why a file or page cannot be read: the kind, and PDFium's own words."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class _Files:
    """The file that was read last, kept open for its next page."""

    def __init__(self, pdfium: Any) -> None:
        self._pdfium = pdfium
        self._key: object = None
        self._document: Any = None
        self._n_read = 0

    def open(self, path: str, password: str | None) -> Any:
        """Return the open document."""
        try:
            found = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError) as error:
            self.close()
            raise _Refused("missing", getattr(error, "strerror", None) or str(error)) from None
        key = (path, password, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if key != self._key or self._n_read >= _PAGES_KEPT_OPEN:
            self.close()
            self._document, self._key = self._opened(path, password), key
        self._n_read += 1
        return self._document

    def close(self) -> None:
        """Close the document, and with it its pages."""
        if self._document is not None:
            self._document.close()
        self._document, self._key, self._n_read = None, None, 0

    def _opened(self, path: str, password: str | None) -> Any:
        try:
            try:
                path.encode()
                document = self._pdfium.PdfDocument(path, password)
            except UnicodeEncodeError:  # a name that is not UTF-8
                file = open(path, "rb")  # noqa: SIM115, PTH123
                document = self._pdfium.PdfDocument(file, password, autoclose=True)
        except self._pdfium.PdfiumError as error:
            locked = "password" in str(error).lower()
            raise _Refused("locked" if locked else "unreadable", str(error)) from None
        except OSError as error:
            raise _Refused("missing", error.strerror or str(error)) from None
        with contextlib.suppress(self._pdfium.PdfiumError):
            document.init_forms()  # so that the fields of a form are drawn with what was filled in
        return document


def _answer(pdfium: Any, files: _Files, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return what was asked for: values, and the bytes of an image."""
    document = files.open(request["path"], request.get("password"))
    if request["what"] == "about":
        return _about(document), b""
    if request["page"] > len(document):
        raise _Refused("absent", str(_page_count(document)))
    page = document[request["page"] - 1]
    try:
        if request["what"] == "text":
            return _page_text(pdfium.raw, page), b""
        scale = _scale(page.get_size(), request["dpi"], request["max_pixels"])
        bitmap = page.render(scale=scale, rev_byteorder=True)
        values = {"width": bitmap.width, "height": bitmap.height, "stride": bitmap.stride}
        return values | {"channels": bitmap.n_channels}, bytes(bitmap.buffer)
    finally:
        page.close()


def _about(document: Any) -> dict[str, Any]:
    """Return the number of pages, title and author, and the pages' labels, where there are any."""
    pages = _page_count(document)
    labels = [document.get_page_label(number) for number in range(min(pages, _LABELS_READ))]
    said = {name: document.get_metadata_value(name.capitalize()).strip() for name in ("title", "author")}
    return {"pages": pages, **said, "labels": labels if any(labels) else []}


def _page_text(raw: Any, page: Any) -> dict[str, Any]:
    """Return the text of a page, its notes and fields, and what tells whether that is all that it shows.

    Returns:
        "text" (U+FFFE is a hyphen at a line's end), "notes", "unmapped" (how many characters of the text its fonts do
        not explain), "objects" (how many pieces of text are drawn, where there is little of it), and "shows".
    """
    bounds = page.get_bbox()
    text_page = page.get_textpage()
    try:
        text, unmapped = _characters(raw, text_page, bounds)
    finally:
        text_page.close()
    notes, n_notes = _notes(raw, page)
    objects = 0
    if len(text) < _FEW_CHARACTERS:
        of_text = page.get_objects(filter=(raw.FPDF_PAGEOBJ_TEXT,), max_depth=3)
        objects = sum(_is_inside(_bounds_of(raw, one), bounds) for one in of_text)
    shows = bool(text.strip()) or n_notes > 0 or next(page.get_objects(max_depth=1), None) is not None
    return {"text": text, "notes": notes, "unmapped": unmapped, "objects": objects, "shows": shows}


Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""


def _characters(raw: Any, text_page: Any, bounds: Box) -> tuple[str, int]:
    """Return the characters within the page's bounds, and how many of them have no mapping.

    PDFium puts spaces where a font has them, and where letters of one piece of text are set apart; here they are put
    between pieces too.
    """
    lines: list[str] = []
    line: list[str] = []
    gaps: list[tuple[int, float]] = []
    unmapped, before, is_cropped = 0, None, False
    found, handle = raw.FS_RECTF(), text_page.raw
    to_found = ctypes.byref(found)
    code_of, box_of = raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox
    for index in range(text_page.count_chars()):
        code = code_of(handle, index)
        if code == 10:
            if "".join(line).strip() or not is_cropped:
                lines.append(_spaced(line, gaps))
            line, gaps, before, is_cropped = [], [], None, False
            continue
        if code in (0, 13):
            continue
        sign = chr(code)
        if not sign.isspace() and box_of(handle, index, to_found):
            box = (found.left, found.bottom, found.right, found.top)
            if not _is_inside(box, bounds):
                before, is_cropped = None, True
                continue
            unmapped += raw.FPDFText_HasUnicodeMapError(handle, index) == 1
            if code in (2, 0xFFFE) and raw.FPDFText_IsHyphen(handle, index):
                sign, before = _HYPHEN, None
            elif sign.isalnum():
                if before is not None:
                    gaps.append((len(line), _gap(before, box)))
                before = box
            else:
                before = None
        else:
            before = None
        line.append(sign)
    lines.append(_spaced(line, gaps))
    text = "\n".join(lines)
    return text.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace"), unmapped


def _spaced(line: list[str], gaps: list[tuple[int, float]]) -> str:
    """Put spaces where a gap is wide, and wider than most of its line."""
    if gaps and max(gap for _, gap in gaps) > _SPACE:
        least = max(_SPACE, statistics.median(gap for _, gap in gaps) + _SPACED_OUT)
        for position, gap in reversed(gaps):
            if gap > least:
                line.insert(position, " ")
    return "".join(line)


def _gap(one: Box, other: Box) -> float:
    """Return how far two letters are apart, as a share of their height; 0 if they are not beside each other."""
    if one[2] == other[0]:
        return 0.0
    for across, along in ((1, 0), (0, 1)):
        height = min(one[across + 2] - one[across], other[across + 2] - other[across])
        overlap = min(one[across + 2], other[across + 2]) - max(one[across], other[across])
        if height > 0 and overlap > height / 2:
            return max(other[along] - one[along + 2], one[along] - other[along + 2]) / height
    return 0.0


def _bounds_of(raw: Any, one: Any) -> Box:
    sides = [ctypes.c_float() for _ in range(4)]
    raw.FPDFPageObj_GetBounds(one, *sides)
    left, bottom, right, top = (side.value for side in sides)
    return left, bottom, right, top


def _is_inside(box: Box, bounds: Box) -> bool:
    """Tell whether the middle of a box is within the bounds of the page, or next to them."""
    across, down = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (
        bounds[0] - _MARGIN <= across <= bounds[2] + _MARGIN
        and bounds[1] - _MARGIN <= down <= bounds[3] + _MARGIN
    )


def _notes(raw: Any, page: Any) -> tuple[list[str], int]:
    """Return the texts of a page's fields and notes, and how many there are with or without a text."""
    texts: list[str] = []
    n_notes = raw.FPDFPage_GetAnnotCount(page)
    for index in range(n_notes):
        note = raw.FPDFPage_GetAnnot(page, index)
        if not note:
            continue
        try:
            if not raw.FPDFAnnot_GetFlags(note) & _HIDDEN:
                texts += _note_texts(raw, page, note)
        finally:
            raw.FPDFPage_CloseAnnot(note)
    return list(dict.fromkeys(texts)), n_notes


def _note_texts(raw: Any, page: Any, note: Any) -> Iterator[str]:
    kind = raw.FPDFAnnot_GetSubtype(note)
    if kind == raw.FPDF_ANNOT_WIDGET:
        if value := _field_value(raw, page, note):
            form = page.formenv
            name = form and _string(lambda *to: raw.FPDFAnnot_GetFormFieldAlternateName(form, note, *to))
            yield f"{name.rstrip(' :')}: {value}" if name else value
    elif kind not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP):
        text = _string(lambda *to: raw.FPDFAnnot_GetStringValue(note, b"Contents", *to))
        if not text:
            rich = _string(lambda *to: raw.FPDFAnnot_GetStringValue(note, b"RC", *to))
            text = " ".join(_RICH_TEXT_TAG.sub(" ", rich).split())
        if text:
            yield text


def _field_value(raw: Any, page: Any, note: Any) -> str:
    """Return what was filled in, chosen or ticked; "" of what is empty, a button, a signature or a password."""
    form = page.formenv
    if not form:
        return _string(lambda *to: raw.FPDFAnnot_GetStringValue(note, b"V", *to))
    kind = raw.FPDFAnnot_GetFormFieldType(form, note)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        if not raw.FPDFAnnot_IsChecked(form, note):
            return ""
        return _string(lambda *to: raw.FPDFAnnot_GetFormFieldExportValue(form, note, *to))
    if kind in (raw.FPDF_FORMFIELD_PUSHBUTTON, raw.FPDF_FORMFIELD_SIGNATURE):
        return ""
    if kind == raw.FPDF_FORMFIELD_TEXTFIELD and raw.FPDFAnnot_GetFormFieldFlags(form, note) & _PASSWORD_FIELD:
        return ""
    if kind == raw.FPDF_FORMFIELD_LISTBOX:
        chosen = [
            _string(lambda *to, option=option: raw.FPDFAnnot_GetOptionLabel(form, note, option, *to))
            for option in range(max(0, raw.FPDFAnnot_GetOptionCount(form, note)))
            if raw.FPDFAnnot_IsOptionSelected(form, note, option)
        ]
        if chosen:
            return ", ".join(chosen)
    return _string(lambda *to: raw.FPDFAnnot_GetFormFieldValue(form, note, *to))


def _string(get: Callable[..., int]) -> str:
    """Return a text that a function of PDFium writes into a buffer."""
    length = get(None, 0)
    if length <= 2:
        return ""
    buffer = (ctypes.c_ushort * (length // 2))()
    get(buffer, length)
    return (
        bytes(buffer)[:-2]
        .decode("utf-16-le", "replace")
        .replace("\r\n", "\n")
        .replace("\r", "\n")
        .strip("\0 \n")
    )


def _page_count(document: Any) -> int:
    """Return how many pages there are.

    A small file may say that it has a million, none of which is there: that number is halved until it can be believed.
    """

    def has(number: int) -> bool:
        try:
            document.get_page_size(number - 1)
        except RuntimeError:  # PDFium's
            return False
        return True

    pages = len(document)
    while pages > _PAGES_BELIEVED and not has(pages) and not has(pages // 2):
        pages //= 2
    return pages


def _scale(points: tuple[float, float], dpi: float, max_pixels: int) -> float:
    """Return pixels per point: the resolution asked for, or a lower one for a page that would fill the memory."""
    width, height = points
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise _Refused("damaged", f"the page is {width:g} by {height:g} points large")
    longest = _LONGEST_EDGE / max(width, height)
    return min(dpi / _POINTS_PER_INCH, math.sqrt(max_pixels / width / height), longest)


def _limit(name: str, value: int) -> None:
    """Limit a resource of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    number = getattr(resource, name)
    most = resource.getrlimit(number)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(number, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def serve(pdfium: Any, requests: Iterable[bytes], answers: BinaryIO) -> None:
    """Answer requests until there are none.

    Args:
        pdfium: the module pypdfium2.
        requests: lines of JSON: what, path, memory (bytes), processor_s (seconds), and password, page, dpi, max_pixels.
        answers: takes for each request a line of JSON with the values and the length of what follows, and that.
    """
    files = _Files(pdfium)
    answers.write(b"ready\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        _limit("RLIMIT_AS", request["memory"])
        _limit("RLIMIT_CPU", math.ceil(_processor_seconds() + request["processor_s"]))
        data: Any = b""
        try:
            values, data = _answer(pdfium, files, request)
        except _Refused as refused:
            values = {"refused": refused.kind, "detail": refused.detail}
        except pdfium.PdfiumError as error:
            values = {"refused": "damaged", "detail": str(error)}
        except MemoryError:
            files.close()
            values = {"refused": "memory", "detail": ""}
        answers.write(json.dumps(values | {"length": len(data)}).encode() + b"\n")
        answers.write(data)
        answers.flush()


def main() -> None:
    """Serve the process that started this one, over standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which ends this one
    warnings.simplefilter("ignore")
    sys.path[:0] = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 – what a library prints is not an answer
        os.dup2(nowhere.fileno(), 1)
    import pypdfium2

    serve(pypdfium2, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
