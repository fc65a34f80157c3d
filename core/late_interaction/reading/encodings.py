"""In which encoding a text file is: marked by its first bytes, UTF-8, or guessed by charset-normalizer."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "cp932", "euc_jp",
    "iso2022_jp", "gb18030", "big5", "cp949", "cp874", "mac_roman",
)  # fmt: skip
"""What is guessed, of several as likely the first one: the encodings that are met, not all that there are."""

_DECLARED = re.compile(rb"(?:encoding|coding|charset)\s*[:=]?\s*[\"']?([\w.-]+)", re.IGNORECASE)
"""As XML, Python, CSS and editors write it in the first two lines."""

_LABELS = {
    "windows-31j": "cp932", "x-sjis": "cp932", "windows-874": "cp874", "x-gbk": "gb18030", "windows-949": "cp949",
}  # fmt: skip
"""Labels that Python does not know."""
_LARGER = {
    "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874", "gb2312": "gb18030",
    "gbk": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932",
}  # fmt: skip
"""What browsers read, by the WHATWG's Encoding Standard, where a text says the smaller one."""
_ESCAPES = re.compile(rb"\x1b(?:\$|\(I)")
_ESCAPED = ("iso2022_jp", "iso2022_jp_ext", "iso2022_kr")

_META = re.compile(rb"<meta\s[^>]*?charset\s*=\s*[\"']?\s*([\w.-]+)", re.IGNORECASE)
_HEAD = 4096

_BLOCK = 1 << 20
_SAMPLE = 1 << 16
_NULS = 0.1
_CONTROLS = 0.05
_OTHER_SCRIPT = 0.4
"""A text with a larger share of bytes that are not ASCII is hardly written in Latin letters."""
_CONTROL_BYTES = bytes({*range(32)} - {*b"\t\n\r\f\x1b"})


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is decoded.

    Attributes:
        name: of the codec.
        is_guessed: nothing in the file tells it.
        damaged: the first line with bytes that are none of this encoding, and how many; None where there are none.
    """

    name: str
    is_guessed: bool = False
    damaged: tuple[int, int] | None = None

    @property
    def damage(self) -> str:
        """What to say of the bytes that are none of this encoding."""
        count = self.damaged[1] if self.damaged else 0
        what = "byte or more is" if count == 1 else "bytes or more are"
        return f"{count} {what} not {self.name}, and read as \ufffd (--encoding)"


def check_encoding(name: str | None) -> None:
    """Raise ValueError if there is no such encoding of texts."""
    try:
        if name is not None:
            codecs.lookup(name)
            "a".encode(name)
    except (LookupError, TypeError):
        raise ValueError(f"there is no encoding {name!r} of texts.") from None


def encoding_of(source: Path | bytes, given: str | None = None, declared: str | None = None) -> Encoding:
    """Return the encoding of a text: by its first bytes, else the one given, else UTF-8, what it says, or a guess.

    A text that is UTF-8 but for some bytes is that; the bytes are read as U+FFFD.

    Args:
        source: a file, or the bytes of a text.
        given: by who knows better than the text.
        declared: what the text is said to be in, such as by the header of a mail; None to look in its first two lines.

    Raises:
        ValueError: it is not a text, or cannot be told or read as one.
        OSError: it cannot be read.
    """
    with _opened(source) as raw:
        start = raw.read(_SAMPLE)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if marked or given:
        return _checked(source, marked or _as_browsers(source, str(given)), is_guessed=False)
    if start.count(0) > _NULS * len(start):
        return _checked(source, _wide(start), is_guessed=True)
    said = _codec(declared) if declared else _declared(start)
    if _ESCAPES.search(start):  # all its bytes are ASCII
        for name in _ESCAPED:
            if _is_sound(source, name):
                return Encoding(name, is_guessed=name != said)
    if declared and said and _is_sound(source, "ascii") and _is_sound(source, said):
        return Encoding(said)  # such as UTF-7
    if _is_sound(source, "utf-8"):
        return Encoding("utf-8")
    first_bad, bad, others = _damage(source, "utf-8")
    if others >= bad:
        return Encoding("utf-8", damaged=(first_bad, bad))
    if sum(start.count(byte) for byte in _CONTROL_BYTES) > _CONTROLS * len(start):
        raise ValueError("it is not a text, but binary data")
    if said and _is_sound(source, said := _as_browsers(source, said.replace("ascii", "iso8859-1"))):
        return Encoding(said)
    return _checked(source, _guess(source), is_guessed=True)


def html_encoding_of(file: Path, given: str | None = None) -> Encoding:
    """Return the encoding of a web page, which may say it in its head; as `encoding_of`."""
    with file.open("rb") as raw:
        found = _META.search(raw.read(_HEAD))
    return encoding_of(file, given, found[1].decode() if found else None)


def decoded(data: bytes, encoding: Encoding) -> str:
    """Return the bytes of a text as one; what is none of its encoding comes as U+FFFD."""
    with _opened(data) as raw, io.TextIOWrapper(raw, encoding.name, "replace") as text:
        return text.read()


def _declared(start: bytes) -> str | None:
    """Return the encoding that the first two lines of a file name, if there is such a one."""
    found = _DECLARED.search(b"\n".join(start.splitlines()[:2])[:1024])
    return _codec(found[1].decode()) if found else None


def _codec(label: str) -> str | None:
    """Return the codec of a label; None where there is none, or the label is untrue of a text that begins as ASCII."""
    with contextlib.suppress(ValueError):
        check_encoding(name := _LABELS.get(label.lower(), label))
        codec = codecs.lookup(name).name
        return None if codec.startswith(("utf-16", "utf-32")) else codec
    return None


def _as_browsers(source: Path | bytes, name: str) -> str:
    """Return the larger encoding that browsers read by this name, if the text is one of it."""
    larger = _LARGER.get(codecs.lookup(name).name)
    return larger if larger and _is_sound(source, larger) else name


def open_text(file: Path, encoding: Encoding, *, newline: str | None = None) -> TextIO:
    """Open a text file; what is none of its encoding comes as U+FFFD."""
    return file.open(encoding=encoding.name, errors="replace", newline=newline)


def _opened(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _checked(source: Path | bytes, name: str, *, is_guessed: bool) -> Encoding:
    if _is_sound(source, name):
        return Encoding(name, is_guessed)
    first_bad, bad, _ = _damage(source, name)
    return Encoding(name, is_guessed, (first_bad, bad) if bad else None)


def _damage(source: Path | bytes, name: str) -> tuple[int, int, int]:
    """Return the first line with bytes of no such encoding, how many there are, and good signs beyond ASCII."""
    first_bad, bad, others = 0, 0, 0
    with _opened(source) as raw, io.TextIOWrapper(raw, name, "replace") as text:
        number = 0
        while line := text.readline(_BLOCK):
            number += 1
            if not line.isascii():
                damage = line.count("\ufffd")
                bad += damage
                others += sum(not sign.isascii() for sign in line) - damage
                first_bad = first_bad or (number if damage else 0)
    return first_bad, bad, others


def _is_sound(source: Path | bytes, name: str) -> bool:
    try:
        with _opened(source) as raw, io.TextIOWrapper(raw, name) as text:
            while text.read(_BLOCK):
                pass
    except UnicodeError:
        return False
    return True


def _wide(start: bytes) -> str:
    """Return which UTF-16 a text with many NULs is in."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) < 4 * min(even, odd) + 1:
        raise ValueError("it is not a text, but binary data")
    return "utf-16-le" if odd > even else "utf-16-be"


def _guess(source: Path | bytes) -> str:
    from charset_normalizer import from_bytes

    sample = bytearray()
    with _opened(source) as raw:
        while len(sample) < _SAMPLE and (line := raw.readline(_SAMPLE)):
            if not line.isascii():
                sample += line
    found = list(from_bytes(bytes(sample), cp_isolation=[*_GUESSED]))
    if not found:
        raise ValueError("in which encoding it is cannot be told: name it (--encoding)")
    likely = [
        match for match in found if (match.chaos, match.coherence) == (found[0].chaos, found[0].coherence)
    ]
    names = {name for match in likely for name in match.could_be_from_charset}
    if sum(byte > 127 for byte in sample) > _OTHER_SCRIPT * len(sample):
        return found[0].encoding
    return next((name for name in _GUESSED if name in names), found[0].encoding)
