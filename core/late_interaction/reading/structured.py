"""Kinds of text that are made Markdown with few words: reStructuredText, notebooks, and mail."""

from __future__ import annotations

import json
import re
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

LARGEST = 256 * 1024**2
"""Most bytes of a notebook or mail, which is read as a whole."""

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*")
_LEVELS = 6
_BACKTICKS = re.compile(r"`{3,}")


def rst_as_markdown(text: str) -> str:
    r"""Return reStructuredText with its headings as those of Markdown, line for line.

    Everything else stays as it is: docutils would drop the directives and roles that Sphinx and others add.

    Example:
        >>> rst_as_markdown("Boats\n=====\n\nA ferry.")
        '# Boats\n\n\nA ferry.'
    """
    lines = text.split("\n")
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
        lines[number] = f"{'#' * min(_LEVELS, styles.index(style) + 1)} {title}"
        lines[number + 1] = ""
        if is_over:
            lines[number - 1] = ""
    return "\n".join(lines)


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


def mail(file: Path) -> tuple[str, bool, dict[str, Any]]:
    """Return the text of a mail below its subject, whether it is HTML, and who wrote it to whom and when.

    Attachments are named in the metadata, and not read.

    Raises:
        ValueError: it is too large, or no mail.
    """
    _check_size(file)
    with file.open("rb") as raw:
        message = BytesParser(EmailMessage, policy=policy.default).parse(raw)
    try:
        return _mail(message)
    except (
        LookupError,
        AttributeError,
        TypeError,
    ) as error:  # of its own parsers, for what nobody should write
        raise ValueError(f"not a mail that can be read ({error})") from None


def _mail(message: EmailMessage) -> tuple[str, bool, dict[str, Any]]:
    headers = {name: str(message[name]) for name in ("subject", "from", "to", "cc") if message[name]}
    if not headers and not message["date"]:
        raise ValueError("not a mail: it has no subject, sender or date")
    sent = getattr(message["date"], "datetime", None)
    body = message.get_body(("plain", "html"))
    text = "" if body is None else _body_text(body)
    names = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
    metadata = {**headers, **({"date": sent} if sent else {}), **({"attachments": names} if names else {})}
    return text, body is not None and body.get_content_subtype() == "html", metadata


def _body_text(body: Any) -> str:
    try:
        return str(body.get_content())
    except LookupError:  # an encoding that is none
        data: bytes = body.get_payload(decode=True)
        return data.decode("utf-8", "replace")


def _check_size(file: Path) -> None:
    if file.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 1024**2} MB")
