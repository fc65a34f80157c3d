"""Patterns as in .gitignore, matched to paths as git matches them: byte by byte, and each path by itself.

A path inside a folder that is left out is not asked about: nobody goes into that folder.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_IN_BRACKETS = rb"\[:[^\]]*:\]|\\.|[^\]\\]"
_TOKEN = re.compile(
    rb"(?P<stars>\*+)(?P<slash>/?)|(?P<one>\?)|\[(?P<other>[!^]?)(?P<chars>(?:\]|%(one)b)(?:%(one)b)*)\]|(?P<escaped>\\.)|."
    % {b"one": _IN_BRACKETS},
    re.DOTALL,
)
_CHARS = re.compile(rb"\[:(?P<named>[^\]]*):\]|\\?(?P<first>.)(?:-\\?(?P<last>.))?", re.DOTALL)
_NAMED: dict[bytes, str] = {
    b"alnum": string.ascii_letters + string.digits,
    b"alpha": string.ascii_letters,
    b"blank": " \t",
    b"cntrl": "".join(map(chr, (*range(32), 127))),
    b"digit": string.digits,
    b"graph": string.ascii_letters + string.digits + string.punctuation,
    b"lower": string.ascii_lowercase,
    b"print": string.ascii_letters + string.digits + string.punctuation + " ",
    b"punct": string.punctuation,
    b"space": string.whitespace,
    b"upper": string.ascii_uppercase,
    b"xdigit": string.hexdigits,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a pattern says of the paths that it names.

    Attributes:
        line: which one it is of the lines, from 1.
        ignores: whether it leaves out what it names, or keeps it, as after "!".
        folders: it names folders only.
        by_name: it names files and folders by their names, wherever they are.
        regex: matches the whole name, or the whole path from the folder that the pattern is for.
    """

    line: int
    ignores: bool
    folders: bool
    by_name: bool
    regex: re.Pattern[bytes]

    def names(self, path: bytes, *, is_folder: bool) -> bool:
        """Tell whether a path from the folder that the pattern is for is named."""
        if self.folders and not is_folder:
            return False
        return self.regex.fullmatch(path[path.rfind(b"/") + 1 :] if self.by_name else path) is not None


def rules_of(lines: Iterable[bytes]) -> tuple[list[Rule], dict[int, str]]:
    """Return the rules of lines, and by line why others are no patterns, which git passes over without a word."""
    rules, faults = [], {}
    for number, line in enumerate(lines, 1):
        text = _trimmed((line.removeprefix(_BOM) if number == 1 else line).removesuffix(b"\r"))
        if text and not text.startswith(b"#"):
            try:
                rules.append(_rule(number, text))
            except ValueError as error:
                faults[number] = str(error)
    return rules, faults


def decided(rules: Iterable[Rule], path: bytes, *, is_folder: bool) -> bool | None:
    """Return whether a path is left out, as the last rule that names it says; None where none does."""
    said = None
    for rule in rules:
        if rule.names(path, is_folder=is_folder):
            said = rule.ignores
    return said


def _trimmed(line: bytes) -> bytes:
    r"""Return a line without spaces at its end, but for one after a backslash.

    >>> _trimmed(b"a\\  ")
    b'a\\ '
    """
    end = len(line.rstrip(b" "))
    backslashes = end - len(line[:end].rstrip(b"\\"))
    return line[: end + (backslashes % 2 and end < len(line))]


def _rule(number: int, text: bytes) -> Rule:
    """Return the rule of a pattern.

    Raises:
        ValueError: it can name nothing.
    """
    ignores = not text.startswith(b"!")
    pattern = text.removeprefix(b"!")
    folders = pattern.endswith(b"/")
    pattern = pattern.removesuffix(b"/")
    if not pattern:
        raise ValueError("there is no name in it")
    by_name = b"/" not in pattern
    return Rule(number, ignores, folders, by_name, re.compile(_regex(pattern.removeprefix(b"/")), re.DOTALL))


def _regex(pattern: bytes) -> bytes:
    """Return a regular expression of a pattern; nothing but a double star between slashes matches a slash.

    Raises:
        ValueError: it is none.
    """
    parts: list[bytes] = []
    is_plain = True
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if stars := token["stars"]:
            # For git a double star behind nothing but plain characters is bounded, too.
            is_bounded = is_plain or pattern[: token.start()].endswith(b"/")
            if len(stars) > 1 and is_bounded and (token["slash"] or token.end() == len(pattern)):
                parts.append(b"(?:.*/)?" if token["slash"] else b".*")
            else:
                parts.append(b"[^/]*" + token["slash"])
        elif token["one"]:
            parts.append(b"[^/]")
        elif token["chars"]:
            parts.append(_class(token["chars"], is_other=bool(token["other"])))
        elif text in (b"[", b"\\"):
            raise ValueError(
                "a bracket in it is not closed" if text == b"[" else "nothing is behind its backslash"
            )
        else:
            parts.append(re.escape(text[-1:]))
        is_plain = is_plain and len(text) == 1 and text != b"?"
    return b"".join(parts)


def _class(text: bytes, *, is_other: bool) -> bytes:
    """Return a regular expression of what is in brackets; a slash is never among it.

    Raises:
        ValueError: there is no such byte.
    """
    among: set[int] = set()
    for one in _CHARS.finditer(text):
        if (name := one["named"]) is not None:
            if name not in _NAMED:
                raise ValueError(f"[:{name.decode(errors='replace')}:] is no class of characters")
            among.update(_NAMED[name].encode())
        else:
            among.update(range(one["first"][0], (one["last"] or one["first"])[0] + 1))
    among = (set(range(1, 256)) - among if is_other else among) - {ord("/")}
    if not among:
        raise ValueError("no character fits its brackets")
    return b"[%b]" % b"".join(rb"\x%02x" % byte for byte in sorted(among))
