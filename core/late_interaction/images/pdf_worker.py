"""A process of its own that opens PDF files, so that no file can stop, crash or fill the process that asks.

`pdf_process` runs this file as a script, with the folders of pypdfium2 as arguments. It imports nothing of
late_interaction and starts in a fraction of a second. It answers one request at a time: a JSON line in; a JSON line
with the length of what follows, and that, out.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Iterable
from typing import Any, BinaryIO

_POINTS_PER_INCH = 72
_LONGEST_EDGE = 20_000
_PAGES_BELIEVED = 1000
"""So many pages may be missing, each an error of its own."""
_PAGES_KEPT_OPEN = 500
"""PDFium keeps something of each page that it has shown: a file is opened anew after so many."""


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

    def open(self, path: str) -> Any:
        """Return the open document."""
        try:
            found = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError) as error:
            self.close()
            raise _Refused("missing", getattr(error, "strerror", None) or str(error)) from None
        key = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if key != self._key or self._n_read >= _PAGES_KEPT_OPEN:
            self.close()
            self._document, self._key = self._opened(path), key
        self._n_read += 1
        return self._document

    def close(self) -> None:
        """Close the document, and with it its pages."""
        if self._document is not None:
            self._document.close()
        self._document, self._key, self._n_read = None, None, 0

    def _opened(self, path: str) -> Any:
        try:
            path.encode()
            document = self._pdfium.PdfDocument(path)
        except UnicodeEncodeError:  # a name that is not UTF-8
            document = self._pdfium.PdfDocument(open(path, "rb"), autoclose=True)  # noqa: SIM115, PTH123
        except self._pdfium.PdfiumError as error:
            locked = "password" in str(error).lower()
            raise _Refused("locked" if locked else "unreadable", str(error)) from None
        except OSError as error:
            raise _Refused("missing", error.strerror or str(error)) from None
        with contextlib.suppress(self._pdfium.PdfiumError):
            document.init_forms()  # so that the fields of a form are drawn with what was filled in
        return document


def _answer(files: _Files, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return what was asked for: values, and the bytes of an image."""
    document = files.open(request["path"])
    if request["what"] == "count":
        return {"pages": _page_count(document)}, b""
    page = document[request["page"] - 1]
    try:
        if request["what"] == "text":
            text_page = page.get_textpage()
            text = text_page.get_text_range()
            text_page.close()
            shows = bool(text.strip()) or next(page.get_objects(max_depth=1), None) is not None
            return {"text": text, "shows": shows}, b""
        scale = _scale(page.get_size(), request["dpi"], request["max_pixels"])
        bitmap = page.render(scale=scale, rev_byteorder=True)
        values = {"width": bitmap.width, "height": bitmap.height, "stride": bitmap.stride}
        return values | {"channels": bitmap.n_channels}, bytes(bitmap.buffer)
    finally:
        page.close()


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
        requests: lines of JSON: what, path, memory (bytes), processor_s (seconds), and page, dpi, max_pixels.
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
            values, data = _answer(files, request)
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
