"""Search results as a table in a notebook: words marked, and pages as small pictures with their heat maps."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING

from late_interaction.errors import LateInteractionError
from late_interaction.explain.html import STYLE, excerpt, marked_text, thumbnail
from late_interaction.types import SearchResult

if TYPE_CHECKING:
    from late_interaction.explain.explanation import Explanation
    from late_interaction.types import SearchResults

_SHOWN = 20
_LENGTH = 400
_SECONDS = 10.0
"""How long a table may take: each result that is marked is encoded once more, and a page may take a second and more."""


def results_html(results: SearchResults) -> str:
    """Return a table of the first 20 results, as many of them marked as 10 seconds allow."""
    until = time.monotonic() + _SECONDS
    n_plain, rows = 0, []
    for result in results[:_SHOWN]:
        explanation = _explained(result) if time.monotonic() < until else None
        n_plain += explanation is None
        rows.append(
            f"<tr><td class='li-n'>{result.score:.3f}</td><td>{escape(result.doc_id)}</td>"
            f"<td dir='auto'>{_shown(result, explanation)}</td></tr>"
        )
    more = f", the first {_SHOWN} shown" if len(results) > _SHOWN else ""
    plain = f"; {n_plain} without marks: ask results[i].explain(), or await .aexplain()" if n_plain else ""
    return (
        f'<div class="li-x"><style>{STYLE}</style><table><caption>{len(results)} results{more}{plain}</caption>'
        "<thead><tr><th>Score</th><th>Document</th><th>Content</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _explained(result: SearchResult) -> Explanation | None:
    """Explain a result; None where that takes an `await`, or the document is gone or was changed."""
    try:
        return result.explain()
    except (LateInteractionError, ValueError):
        return None


def _shown(result: SearchResult, explanation: Explanation | None) -> str:
    if explanation is None:
        cut = "…" if len(result.content) > _LENGTH else ""
        return escape(result.content[:_LENGTH]) + cut
    if explanation.patches is not None:
        return f"{thumbnail(explanation)}<br>{escape(result.content[:_LENGTH])}"
    start, end = excerpt(explanation.words, _LENGTH)
    before, after = "…" if start else "", "…" if end < len(explanation.content) else ""
    return before + marked_text(explanation.content, explanation.words, start=start, end=end) + after
