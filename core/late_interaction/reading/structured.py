"""Kinds of text that are made Markdown with few words: reStructuredText, notebooks, and mail."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import textwrap
from dataclasses import dataclass
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from email.policy import EmailPolicy
from pathlib import Path
from typing import Any

from late_interaction.reading.encodings import decoded, encoding_of

LARGEST = 256 * 1024**2
"""Most bytes of a notebook or mail, which is read as a whole."""

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*")
_BLOCKS = re.compile(r"^ +\S.*(?:\n(?: +\S.*|[^\S\n]*$))*|^\S.*", re.MULTILINE)
_MARK = re.compile(r"^ {0,3}(?:#{1,6}(?:[ \t]|$)|(?:=+|-+)[ \t]*$|`{3}|~{3})", re.MULTILINE)
_LEVELS = 6
_BLANK = b" \t\r\n\f\xc2\xa0"
"""Bytes of a text without words, among them a space that is not broken, in UTF-8 and Windows-1252."""
_BACKTICKS = re.compile(r"`{3,}")


def rst_as_markdown(text: str) -> str:
    r"""Return reStructuredText with its headings as those of Markdown, line for line.

    Everything else stays as it is: docutils would drop the directives and roles that Sphinx and others add. But what
    Markdown would take for a heading or fence, such as a comment in a literal block, is indented until it is none.

    Example:
        >>> rst_as_markdown("Boats\n=====\n\nA ferry.")
        '# Boats\n\n\nA ferry.'
    """
    lines = text.split("\n")
    headings: dict[int, str] = {}
    styles: list[tuple[str, bool]] = []
    for number, line in enumerate(lines[:-1]):
        under = _ADORNMENT.fullmatch(lines[number + 1])
        title = line.strip()
        if (
            not under
            or not title
            or _ADORNMENT.fullmatch(line)
            or len(under[0].rstrip()) < min(len(title), 4)
        ):
            continue
        above = lines[number - 1] if number else ""
        over = _ADORNMENT.fullmatch(above)
        is_over = over is not None and over[1] == under[1]
        if (above.strip() and not is_over) or (line[0].isspace() and not is_over):
            continue
        style = (under[1], is_over)
        if style not in styles:
            styles.append(style)
        lines[number] = lines[number + 1] = ""
        headings[number] = f"{'#' * min(_LEVELS, styles.index(style) + 1)} {title}"
        if is_over:
            lines[number - 1] = ""
    lines = _BLOCKS.sub(_without_marks, "\n".join(lines)).split("\n")
    return "\n".join(headings.get(number, line) for number, line in enumerate(lines))


def _without_marks(block: re.Match[str]) -> str:
    """Return indented lines, or one line, so that none is a heading or fence of Markdown."""
    if not _MARK.search(block[0]):
        return block[0]
    least = min(len(line) - len(line.lstrip(" ")) for line in block[0].split("\n") if line.strip())
    return textwrap.indent(block[0], " " * (4 - min(4, least)))


def notebook_as_markdown(file: Path) -> str:
    """Return the cells of a notebook: text as it is, code in fences. What the cells printed is left out.

    Raises:
        ValueError: it is no notebook, or too large.
    """
    _check_size(file)
    try:
        notebook = json.loads(file.read_bytes())
        cells: list[Any] = notebook.get("cells") or [
            cell for sheet in notebook.get("worksheets", []) for cell in sheet["cells"]
        ]
        parts = [_cell(cell, _language(notebook)) for cell in cells]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise ValueError("not a notebook of Jupyter") from None
    return "\n\n".join(part for part in parts if part.strip())


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata", {})
    said = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get("language")
    return str(said or "python")


def _cell(cell: dict[str, Any], language: str) -> str:
    source = cell["source"] if "source" in cell else cell.get("input", "")
    text = source if isinstance(source, str) else "".join(source)
    if cell["cell_type"] == "code" and text.strip():
        longest = max(map(len, _BACKTICKS.findall(text)), default=2)
        fence = "`" * (longest + 1)
        return f"{fence}{language}\n{text.rstrip()}\n{fence}"
    if cell["cell_type"] == "heading":  # of notebooks before 2015
        return f"{'#' * int(cell.get('level', 1))} {text}"
    return text


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail.

    Attributes:
        texts: what it says, in order, and whether each text is HTML.
        metadata: who wrote it to whom and when, what is attached, and the encoding if it is guessed.
        damage: what is to be said of texts that are not whole, or left out.
    """

    texts: tuple[tuple[str, bool], ...]
    metadata: dict[str, Any]
    damage: tuple[str, ...]


def mail(file: Path, encoding: str | None = None) -> Mail:
    """Read a mail. Attachments are named in the metadata, and not read.

    Args:
        file: the mail.
        encoding: of texts whose own part of the mail names none.

    Raises:
        ValueError: it is too large, or no mail.
    """
    _check_size(file)
    try:
        with file.open("rb") as raw:
            message: Any = BytesParser(EmailMessage, policy=_Policy()).parse(raw)
        return _mail(message, encoding)
    except (
        LookupError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:  # of its own parsers, for what nobody should write
        raise ValueError(f"not a mail that can be read ({error})") from None


class _Policy(EmailPolicy):
    """Headers of bytes beyond ASCII, which nobody should send and many do, are read as texts are."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        header = "".join(sourcelines)
        if not header.isascii():
            data = header.encode("ascii", "surrogateescape")
            with contextlib.suppress(ValueError):
                header = decoded(data, encoding_of(data))
        return super().header_source_parse([header])


def _mail(message: EmailMessage, encoding: str | None) -> Mail:
    headers = {name: str(message[name]) for name in ("subject", "from", "to", "cc") if message[name]}
    if not headers and "date" not in message:
        raise ValueError("not a mail: it has no subject, sender or date")
    texts, others = _read_parts(message)
    metadata: dict[str, Any] = dict(headers)
    if sent := _sent(message):
        metadata["date"] = sent
    if others:
        metadata["attachments"] = [part.get_filename() or part.get_content_type() for part in others]
    read, damage = [], []
    for part in texts:
        said = part.get_content_charset()
        data = _data(part)
        try:
            how = encoding_of(data, None if said and said != "us-ascii" else encoding, said)
        except ValueError as error:
            damage.append(f"a text of the mail is left out: {error}")
            continue
        read.append((decoded(data, how), part.get_content_subtype() == "html"))
        if how.damaged:
            damage.append(how.damage)
        if how.is_guessed:
            metadata.setdefault("encoding", how.name)
    return Mail(tuple(read), metadata, tuple(damage))


def _sent(message: EmailMessage) -> dt.datetime | None:
    """Return the date of a mail; None if there is none, or one that cannot be."""
    try:
        sent: dt.datetime | None = getattr(message["date"], "datetime", None)
    except OverflowError:
        return None
    return sent


def _read_parts(part: MIMEPart) -> tuple[list[MIMEPart], list[MIMEPart]]:
    """Return the parts of a mail that are its text, in order, and the others: of alternatives the best is the text."""
    if part.get_content_maintype() == "multipart" and part.is_multipart():
        found = [_read_parts(inner) for inner in part.iter_parts()]
        others = [other for _, inner in found for other in inner]
        ways = [texts for texts, _ in found]
        if part.get_content_subtype() == "alternative":
            return max(ways, key=_worth, default=[]), others
        return [text for texts in ways for text in texts], others
    subtype = part.get_content_subtype()
    is_text = part.get_content_maintype() in ("text", "multipart")  # the latter where its boundary is damaged
    if is_text and not part.is_attachment() and (subtype in ("plain", "html") or not part.get_filename()):
        return [part], []
    return [], [part]


def _worth(texts: list[MIMEPart]) -> int:
    """Return how good an alternative is: plain text, else HTML, else another one; the first one that is not blank."""
    if not any(_data(text).strip(_BLANK) for text in texts):
        return 0
    kinds = {text.get_content_subtype() for text in texts}
    return 3 if kinds == {"plain"} else 2 if kinds <= {"plain", "html"} else 1


def _data(part: MIMEPart) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _check_size(file: Path) -> None:
    if file.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 1024**2} MB")
