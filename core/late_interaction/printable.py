"""Text from outside, such as ids and file names, made harmless for a terminal."""

from __future__ import annotations

import re

# What a terminal obeys (control characters of ASCII and Latin-1), what turns or hides text (marks of direction,
# invisible and tag characters), line ends that only some programs see, and halves of surrogate pairs, which cannot be
# written. The joiners U+200C and U+200D stay: scripts and emoji need them.
_OBEYED = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0001\U000e0020-\U000e007f"
)
_IN_A_LINE = re.compile(f"[{_OBEYED}\t\n]")
_IN_LINES = re.compile(f"[{_OBEYED}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Replace each character that a terminal would obey, or that would hide others, by a space.

    As many characters come out as went in, so that positions in the text stay.

    Args:
        text: from anywhere.
        lines: whether line ends and tabs may stay.

    Example:
        >>> printable("a\x1b[2Jb")
        'a [2Jb'
    """
    return (_IN_LINES if lines else _IN_A_LINE).sub(" ", text)
