"""A process of its own that makes Markdown of office files: no file can stop, crash or fill the process that asks.

`converting` runs this file as a script. It imports nothing of late_interaction, and of docling the readers of the
kinds that were asked for: no model, no torch, no network. It answers one request at a time: a JSON line in, one out.
"""

from __future__ import annotations

import codecs
import contextlib
import html
import io
import json
import logging
import math
import os
import re
import signal
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

_MOST_UNPACKED = 512 * 1024**2
_MOST_MEMBERS = 10_000
_PROPERTIES = 1024**2
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_XML = re.compile(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)")
_UNUSED = ("torch", "transformers")
"""docling imports them where they are installed, which takes seconds, and needs them for models only."""


class _Refused(Exception):  # noqa: N818 – the answer to a request, not an error
    """Why a file cannot be read."""


def answer(path: Path, encoding: str | None = None) -> dict[str, Any]:
    """Return the parts of a file (each a slide or sheet, or the whole), and its title and author; HTML is decoded."""
    suffix = path.suffix.lower()
    if encoding is not None:
        return _html(path, encoding)
    _check_archive(path)
    readers = {".docx": _docx, ".docm": _docx, ".pptx": _pptx, ".pptm": _pptx, ".epub": _epub}
    return readers.get(suffix, _xlsx)(path) | _said(path)


def _check_archive(path: Path) -> None:
    """Refuse what is no ZIP archive, locked, or would fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        with path.open("rb") as file:
            is_locked = file.read(4) == b"\xd0\xcf\x11\xe0"
        if is_locked:
            raise _Refused("it is protected by a password, or of the kind before 2007") from None
        raise _Refused(f"damaged ({error})") from None
    if len(members) > _MOST_MEMBERS or sum(member.file_size for member in members) > _MOST_UNPACKED:
        raise _Refused(
            f"it would unpack to more than {_MOST_UNPACKED // 2**20} MB or {_MOST_MEMBERS:,} files"
        )


def _converted(
    source: Path | io.BytesIO, name: str, backend: Any, options: Any, file_name: str | None = None
) -> Any:
    from docling.datamodel.base_models import InputFormat
    from docling.datamodel.document import InputDocument

    given = InputDocument(source, InputFormat[name], backend, options, file_name)
    # This raises what is wrong with the file; `given.valid` does not tell damaged ones from empty ones.
    return backend(given, source, options).convert()


def _markdown(document: Any, **of: Any) -> str:
    from docling_core.types.doc import ContentLayer

    layers = {ContentLayer.BODY, ContentLayer.FURNITURE, ContentLayer.NOTES}  # not what is hidden
    text: str = document.export_to_markdown(
        included_content_layers=layers,
        escape_html=False,
        escape_underscores=False,
        image_placeholder="",
        compact_tables=True,
        **of,
    )
    return text


def _pages(document: Any) -> list[dict[str, Any]]:
    return [
        {"page": number, "text": _markdown(document, page_no=number)} for number in sorted(document.pages)
    ]


def _docx(path: Path) -> dict[str, Any]:
    from docling.backend.msword_backend import MsWordDocumentBackend
    from docling.datamodel.backend_options import MsWordBackendOptions

    document = _converted(path, "DOCX", MsWordDocumentBackend, MsWordBackendOptions())
    return {"parts": [{"text": "\n\n".join([_markdown(document), *_footnotes(path)])}]}


def _footnotes(path: Path) -> list[str]:
    """Return the texts of a Word file's footnotes and endnotes, which docling leaves out."""
    texts = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name in ("word/footnotes.xml", "word/endnotes.xml"):
                for note in _parsed(archive.read(name)):
                    words = ["".join(text.text or "" for text in line.iter(f"{_WORD}t")) for line in note]
                    texts.append("\n".join(words).strip())
    return [text for text in texts if text]


def _parsed(data: bytes) -> Any:
    """Return the root of an XML text, without expanding its entities or fetching anything."""
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _pptx(path: Path) -> dict[str, Any]:
    from docling.backend.mspowerpoint_backend import MsPowerpointDocumentBackend
    from docling.datamodel.backend_options import MsPowerpointBackendOptions

    document = _converted(path, "PPTX", MsPowerpointDocumentBackend, MsPowerpointBackendOptions())
    return {"parts": _pages(document)}


def _xlsx(path: Path) -> dict[str, Any]:
    from docling.backend.msexcel_backend import MsExcelDocumentBackend
    from docling.datamodel.backend_options import MsExcelBackendOptions

    document = _converted(path, "XLSX", MsExcelDocumentBackend, MsExcelBackendOptions(parse_charts=False))
    parts = _pages(document)
    sheets = [group.name for group in document.groups if group.label == "sheet"]
    for part, sheet in zip(parts, sheets, strict=False):
        if part["text"].strip():
            part["text"] = f"# {sheet}\n\n{part['text']}"
    return {"parts": parts}


def _epub(path: Path) -> dict[str, Any]:
    from docling.backend.epub_backend import EpubDocumentBackend
    from docling.datamodel.backend_options import EpubBackendOptions

    unread: list[str] = []

    class Book(EpubDocumentBackend):  # type: ignore[misc]
        # docling reads UTF-8 and UTF-16, and leaves other chapters out without a word.
        _decode_content_file = staticmethod(_chapter)

        def convert(self) -> Any:
            unread.extend(_unread(self.epub_zip, self.content_files))
            return super().convert()

    document = _converted(path, "EPUB", Book, EpubBackendOptions())
    return {"parts": [{"text": _markdown(document)}], "unread": unread}


def _unread(archive: zipfile.ZipFile, chapters: Iterable[str]) -> list[str]:
    """Return which chapters cannot be read; refuse a book whose chapters are encrypted, or of which none can be."""
    unread = []
    for name in (names := [*dict.fromkeys(chapters)]):
        try:
            _chapter(archive.read(name))
        except (LookupError, ValueError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error):
            unread.append(name)
    if unread and "META-INF/encryption.xml" in archive.namelist():  # which books with hidden fonts have, too
        raise _Refused("it is encrypted")
    if unread == names and names:
        raise _Refused("damaged (none of its chapters can be read)")
    return unread


def _chapter(data: bytes) -> str:
    """Return the text of a chapter: UTF-8, UTF-16, or what its XML says."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if not (said := _XML.match(data)):
            raise
    name = codecs.lookup(said[1].decode()).name
    return data.decode("cp1252" if name == "iso8859-1" else name)  # as browsers do


def _html(path: Path, encoding: str) -> dict[str, Any]:
    from docling.backend.html_backend import HTMLDocumentBackend
    from docling.datamodel.backend_options import HTMLBackendOptions

    text = path.read_bytes().decode(encoding, "replace").removeprefix("\ufeff")
    options = HTMLBackendOptions(infer_furniture=False, add_title=False)
    # The mark is believed whatever the page says of its encoding.
    page = io.BytesIO(text.encode("utf-8-sig", "replace"))
    document = _converted(page, "HTML", HTMLDocumentBackend, options, path.name)
    found = _TITLE.search(text, 0, _PROPERTIES)
    title = html.unescape(found[1]) if found else ""
    return {"parts": [{"text": _markdown(document)}], "title": " ".join(title.split())}


def _said(path: Path) -> dict[str, str]:
    """Return the title and author that an archive's properties name."""
    from lxml import etree

    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name == "docProps/core.xml" or name.endswith(".opf")]
        if not names or archive.getinfo(names[0]).file_size > _PROPERTIES:
            return {}
        try:
            root = _parsed(archive.read(names[0]))
        except etree.XMLSyntaxError:
            return {}
    found = {
        name: root.find(f".//{_DUBLIN_CORE}{of}") for name, of in (("title", "title"), ("author", "creator"))
    }
    return {name: " ".join((one.text or "").split()) for name, one in found.items() if one is not None}


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


def serve(requests: Iterable[bytes], answers: BinaryIO) -> None:
    """Answer requests until there are none.

    Args:
        requests: lines of JSON: path, memory (bytes), processor_s (seconds); encoding, of HTML.
        answers: takes a line of JSON for each: "parts", "title", "author", "unread" of a book; or "refused", why not.
    """
    answers.write(b"ready\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        times = os.times()
        _limit("RLIMIT_AS", request["memory"])
        _limit("RLIMIT_CPU", math.ceil(times.user + times.system + request["processor_s"]))
        try:
            values = answer(Path(request["path"]), request.get("encoding"))
        except _Refused as refused:
            values = {"refused": str(refused)}
        except MemoryError:
            values = {"refused": "it takes too much memory"}
        except RecursionError:
            values = {"refused": "it is nested too deeply"}
        except Exception as error:  # noqa: BLE001 – whatever its reader says of a file
            said = " ".join(str(error.__cause__ or error).split())[:200]
            values = {"refused": f"damaged, or not what its name says ({said})"}
        answers.write(json.dumps(values | {"length": 0}).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Serve the process that started this one, over standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which ends this one
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["PATH"] = ""  # docling would start LibreOffice to draw figures
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 – what a library prints is not an answer
        os.dup2(nowhere.fileno(), 1)
    import docling.datamodel.document  # noqa: F401

    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
