"""Patterns in texts, by RE2: its time grows with the text alone, however a pattern is written."""

from __future__ import annotations

import functools
from typing import Any

from late_interaction.validation import shown

MAX_LENGTH = 1000
"""Characters of a pattern."""

_MAX_MEMORY = 1 << 18
"""Bytes that a compiled pattern may take. A larger one would also take longer for each character of a text."""


def check_pattern(pattern: str) -> str:
    """Return a regular expression of RE2's syntax.

    Raises:
        ValueError: it is none, or too long.
    """
    import re2

    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"a pattern has at most {MAX_LENGTH:,} characters, and this one {len(pattern):,}.")
    try:
        _compiled(pattern)
    except UnicodeEncodeError:
        raise ValueError(f"the pattern {shown(pattern)} holds half of a surrogate pair.") from None
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise ValueError(
            f"{shown(pattern)} is not a pattern of RE2 (which has no lookaround and no backreferences): {reason}."
        ) from None
    return pattern


def finds(pattern: str, text: str) -> bool:
    """Return whether a checked pattern is somewhere in a text."""
    return _compiled(pattern).search(text.encode(errors="replace")) is not None


def like(pattern: str, *, ignore_case: bool = False) -> str:
    r"""Return a pattern of SQL's LIKE as a regular expression.

    `%` stands for any text and `_` for any character; after a backslash each stands for itself.

    >>> like("docs/%.md")
    '(?s)\\Adocs\\/.*\\.md\\z'
    """
    import re2

    wild = {"%": ".*", "_": "."}
    parts = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            parts.append(re2.escape(next(characters, "\\")))
        else:
            parts.append(wild.get(character) or re2.escape(character))
    return rf"(?{'i' if ignore_case else ''}s)\A{''.join(parts)}\z"


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    return re2.compile(pattern, options)
