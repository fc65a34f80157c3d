"""An explanation as HTML that needs nothing else: no script, no file, no request.

All that comes from outside is escaped. What a word answered is in a tooltip, which shows while the pointer or the
keyboard's focus is on the word; colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from itertools import count
from typing import TYPE_CHECKING

from late_interaction.explain.heatmap import scaled
from late_interaction.explain.words import Span, shades

if TYPE_CHECKING:
    from late_interaction.explain.explanation import Explanation, Word

_ANSWERS = 5
_RED = (220, 38, 38)
_STRONGEST = 190
_ids = count(1)

STYLE = """
.li-x{color-scheme:light dark;--li-hue:245 158 11;--li-line:#8886;--li-tip:#fff;--li-ink:#111;--li-most:1;
line-height:1.6;font-family:system-ui,sans-serif;max-width:60rem}
@media(prefers-color-scheme:dark){.li-x{--li-hue:251 191 36;--li-tip:#222;--li-ink:#eee;--li-most:.6}}
.li-x .li-text{white-space:pre-wrap;overflow-wrap:anywhere}
.li-x mark{position:relative;background:rgb(var(--li-hue)/calc(var(--s)*var(--li-most)));
color:inherit;border-radius:.2em;padding:0 .1em;
border-bottom:2px solid rgb(var(--li-hue)/calc(.3 + var(--s)))}
.li-x mark.li-lexical{border-bottom:4px double currentColor}
.li-x mark:focus-visible,.li-x input:focus-visible+label{outline:2px solid currentColor;outline-offset:1px}
.li-x .li-tip{display:none;position:absolute;left:0;top:100%;z-index:9;min-width:12rem;max-width:min(22rem,80vw);
padding:.4rem .6rem;background:var(--li-tip);color:var(--li-ink);border:1px solid var(--li-line);border-radius:.3rem;
font-size:.85rem;white-space:normal;box-shadow:0 2px 8px #0004}
.li-x mark:hover .li-tip,.li-x mark:focus .li-tip{display:block}
.li-x table{border-collapse:collapse}
.li-x th,.li-x td{border:1px solid var(--li-line);padding:.2rem .6rem;text-align:left;
vertical-align:top}.li-x td.li-n{text-align:right;font-variant-numeric:tabular-nums}
.li-x .li-page{position:relative;display:inline-block;max-width:100%}
.li-x .li-page img{display:block;max-width:100%;outline:1px solid var(--li-line)}
.li-x .li-page img.li-heat{display:none;position:absolute;inset:0;width:100%;height:100%}
.li-x input{margin:0 .3rem 0 .8rem}.li-x .li-notes{font-size:.9rem}
.li-x .li-thumb{max-width:14rem}
""".strip()
"""Of all that is under the class `li-x`."""


def page(explanation: Explanation) -> str:
    """Return a whole page."""
    title = escape(f"{explanation.query or 'Query'} → {explanation.doc_id}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title></head><body><main>{fragment(explanation)}</main></body></html>\n"
    )


def fragment(explanation: Explanation) -> str:
    """Return what stands in the page, with its style, for a notebook or another page."""
    found = ", words of the query underlined twice" if explanation.hits else ""
    lexical = "" if explanation.lexical is None else f", lexical {explanation.lexical:.4f}{found}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in explanation.notes)
    return (
        f'<div class="li-x"><style>{STYLE}</style>'
        f"<h1>{_query(explanation)}</h1>"
        f"<p><strong>{escape(explanation.doc_id)}</strong>: MaxSim {explanation.score:.4f}{lexical}</p>"
        + (heat_maps(explanation) if explanation.patches is not None else "")
        + f'<p class="li-text" dir="auto">{marked_text(explanation.content, explanation.words)}</p>'
        + f"<details><summary>Each word of the query, and what answered it</summary>{_table(explanation)}</details>"
        + (f'<ul class="li-notes">{notes}</ul>' if notes else "")
        + "</div>"
    )


def marked_text(
    text: str, words: Sequence[Word], *, start: int = 0, end: int | None = None, tips: bool = True
) -> str:
    """Return a part of a text with its words shaded by their contributions.

    What a search by words found is underlined twice.

    Args:
        text: the whole text.
        words: its words, in their order.
        start: where the part begins.
        end: where it ends; None for the end of the text.
        tips: give each mark a tooltip of what it answered, which the keyboard reaches: one stop for each word.
    """
    end = len(text) if end is None else min(end, len(text))
    placed = [word for word in words if word.start < word.end]
    pieces: list[str] = []
    place = start
    for word, shade in zip(placed, shades([word.contribution for word in placed]), strict=True):
        if word.start < place or word.end > end or (word.contribution <= 0 and not word.lexical):
            continue
        shown = text[word.start : word.end]
        pieces += [escape(text[place : word.start]), _mark(shown, word, shade, tips=tips)]
        place = word.end
    return "".join([*pieces, escape(text[place:end])])


def _mark(shown: str, word: Word, shade: float, *, tips: bool) -> str:
    kind = ' class="li-lexical"' if word.lexical else ""
    style = f'style="--s:{0.1 + 0.6 * shade:.2f}"'
    if not tips:
        return f"<mark{kind} {style}>{escape(shown)}</mark>"
    number = next(_ids)
    answers = ", ".join(f"{escape(text)} {part:.3f}" for text, part in word.answers[:_ANSWERS])
    more = len(word.answers) - _ANSWERS
    told = ["a word of the query"] if word.lexical else []
    if word.contribution > 0:
        others = f" and {more} more" if more > 0 else ""
        told.append(f"{word.contribution:.3f} of the score, with {answers}{others}")
    return (
        f'<mark{kind} tabindex="0" aria-describedby="li-tip-{number}" {style}>{escape(shown)}'
        f'<span class="li-tip" role="tooltip" id="li-tip-{number}">{"; ".join(told)}</span></mark>'
    )


def _query(explanation: Explanation) -> str:
    if explanation.query is None:
        return "A query that is not a text"
    return marked_text(explanation.query, explanation.query_words)


def _table(explanation: Explanation) -> str:
    rows = "".join(
        f"<tr><td>{escape(word.text)}</td><td class='li-n'>{word.contribution:.4f}</td><td>"
        + ", ".join(f"{escape(text)} {part:.3f}" for text, part in word.answers)
        + "</td></tr>"
        for word in explanation.query_words
    )
    return (
        "<table><thead><tr><th>Word of the query</th><th>Part of the score</th><th>Answered by</th></tr></thead>"
        f"<tbody>{rows}</tbody><tfoot><tr><th>Together</th><td class='li-n'>{explanation.score:.4f}</td><td></td></tr>"
        "</tfoot></table>"
    )


def heat_maps(explanation: Explanation) -> str:
    """Return the picture with a heat map of the whole query and of each of its words, chosen by radio buttons."""
    assert explanation.patches is not None
    number = next(_ids)
    names = ["the whole query", *(word.text for word in explanation.query_words)]
    buttons, images, rules = [], [], []
    for position, name in enumerate(names):
        one = f"li-{number}-{position}"
        chosen = " checked" if position == 0 else ""
        buttons.append(
            f'<input type="radio" name="li-{number}" id="{one}"{chosen}><label for="{one}">{escape(name)}</label>'
        )
        uri = _overlay(explanation, None if position == 0 else position - 1)
        images.append(f'<img class="li-heat" id="{one}-map" src="{uri}" alt="Heat map of {escape(name)}">')
        rules.append(f".li-x:has(#{one}:checked) #{one}-map{{display:block}}")
    alt = escape(f"{explanation.doc_id}: {explanation.content}"[:300])
    return (
        f"<style>{''.join(rules)}</style>"
        f"<fieldset><legend>Where the picture answers</legend>{''.join(buttons)}</fieldset>"
        f'<p class="li-page"><img src="{_jpeg(explanation)}" alt="{alt}">{"".join(images)}</p>'
    )


def thumbnail(explanation: Explanation) -> str:
    """Return the picture with the heat map of the whole query over it, small."""
    assert explanation.patches is not None
    alt = escape(f"{explanation.doc_id}: {explanation.content}"[:300])
    heat = (
        f'<img class="li-heat" style="display:block" src="{_overlay(explanation, None)}" alt="Its heat map">'
    )
    return f'<span class="li-page li-thumb"><img src="{_jpeg(explanation, 320)}" alt="{alt}">{heat}</span>'


def _overlay(explanation: Explanation, word: int | None) -> str:
    """Return a picture of one pixel a patch, the redder the better it answers; the browser stretches it."""
    import numpy as np
    from PIL import Image

    shares = scaled(explanation.heat_map(word))
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _RED
    pixels[..., 3] = (shares * _STRONGEST).astype(np.uint8)
    return _data_uri(Image.fromarray(pixels), "PNG")


def _jpeg(explanation: Explanation, edge: int | None = None) -> str:
    assert explanation.patches is not None
    image = explanation.patches.image.convert("RGB")
    if edge is not None:
        image.thumbnail((edge, edge))
    return _data_uri(image, "JPEG")


def _data_uri(image: object, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind)  # type: ignore[attr-defined]
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def excerpt(words: Sequence[Word], length: int) -> Span:
    """Return the part of a text, of at most so many characters, around the word with the largest contribution."""
    placed = [word for word in words if word.start < word.end]
    best = max(placed, key=lambda word: word.contribution, default=None)
    start = 0 if best is None or best.end <= length else max(0, best.start - length // 2)
    return start, start + length
