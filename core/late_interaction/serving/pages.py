"""The search page, and those of a document and of an explanation: plain HTML, which works without a script."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import APIRouter
from markupsafe import Markup, escape
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from late_interaction.errors import LateInteractionError
from late_interaction.explain import Explanation, Span, Word
from late_interaction.explain.explanation import with_hits
from late_interaction.explain.html import STYLE, excerpt, fragment, marked_text, thumbnail
from late_interaction.images.storing import IMAGE_KEY, THUMBNAIL_KEY
from late_interaction.options import Mode, SearchOptions
from late_interaction.serving.answers import MAX_QUERY, stored_picture
from late_interaction.serving.api import json_filter
from late_interaction.serving.facets import chosen_filter
from late_interaction.serving.problems import RefusedError, refusals
from late_interaction.serving.served import Served
from late_interaction.stems import word_hits
from late_interaction.types import Document, SearchResult

_LENGTH = 500
_MARKING_S = 5.0
"""How long results are explained for: each is encoded once more, and a page may take a second and more."""
_KS = (5, 10, 20, 50)
_MAX_K = 100
_MAX_CHOSEN = 100
_IN = "in."
"""What the parameters of chosen values begin with; a field's name follows."""
_SHOWN_METADATA = 6
MODES: dict[Mode, str] = {"late": "Meaning", "hybrid": "Meaning and words", "lexical": "Words"}


@dataclass(frozen=True)
class Form:
    """What the search page is asked for, as its address has it.

    Attributes:
        q: the query.
        k: how many documents.
        mode: what to search by.
        weight: how much the words count; None for the default.
        offset: how many of the best to leave out.
        filter: a filter as JSON.
        chosen: values of metadata fields, one of which documents are to have.
    """

    q: str = ""
    k: int = 10
    mode: Mode = "late"
    weight: float | None = None
    offset: int = 0
    filter: str = ""
    chosen: Mapping[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, parameters: QueryParams) -> Form:
        """Return what an address asks for.

        Raises:
            ValueError: a parameter is not known, or has a wrong value.
        """
        values: dict[str, Any] = {}
        chosen: dict[str, list[Any]] = {}
        for name, text in parameters.multi_items():
            if name.startswith(_IN):
                chosen.setdefault(name.removeprefix(_IN), []).append(_chosen_value(name, text))
            elif name in values:
                raise ValueError(f"{name} is given twice.")
            elif name == "mode" and text not in MODES:
                raise ValueError(f"mode must be one of {', '.join(MODES)}, not {text[:60]!r}.")
            elif name in ("q", "filter", "mode"):
                values[name] = text
            elif name == "k":
                values[name] = _whole(name, text, 1, _MAX_K)
            elif name == "offset":
                values[name] = _whole(name, text, 0, 1_000_000)
            elif name == "weight":
                values[name] = _weight(text)
            else:
                raise ValueError(f"there is no parameter {name[:60]!r}.")
        if sum(map(len, chosen.values())) > _MAX_CHOSEN:
            raise ValueError(f"at most {_MAX_CHOSEN} values can be chosen.")
        if len(values.get("q", "")) > MAX_QUERY:
            raise ValueError(f"the query may have {MAX_QUERY:,} characters.")
        return cls(**values, chosen=chosen)

    def options(self) -> SearchOptions:
        """Return the options of the search.

        Raises:
            ValueError, TypeError: the filter is not a JSON object.
        """
        options: SearchOptions = {
            "filter": chosen_filter(self.chosen, json_filter(self.filter)),
            "mode": self.mode,
            "offset": self.offset,
        }
        if self.weight is not None:
            options["lexical_weight"] = self.weight
        return options

    def address(self, offset: int = 0) -> str:
        """Return the address of this search, from another offset."""
        pairs: list[tuple[str, Any]] = [("q", self.q), ("k", self.k), ("mode", self.mode)]
        pairs += [("weight", self.weight)] if self.weight is not None else []
        pairs += [("filter", self.filter)] if self.filter else []
        pairs += [(_IN + name, json.dumps(value)) for name, values in self.chosen.items() for value in values]
        pairs += [("offset", offset)] if offset else []
        return f"/?{urlencode(pairs)}"


@dataclass(frozen=True)
class Shown:
    """A result on the page.

    Attributes:
        result: what was found.
        text: its content or a part of it, with marks.
        picture: of an image, small; "" where there is none.
    """

    result: SearchResult
    text: Markup
    picture: Markup

    @property
    def title(self) -> str:
        """What to call the document: its title, the file that it is from, or its id."""
        metadata = self.result.metadata
        for key in ("title", "source"):
            if isinstance(name := metadata.get(key), str) and name.strip():
                page = metadata.get("page")
                return f"{name}, page {page}" if key == "source" and isinstance(page, int) else name
        return self.result.doc_id

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """Some of its metadata, shortened."""
        return short_metadata(self.result.metadata, 60)[:_SHOWN_METADATA]


def pages_of(served: Served) -> APIRouter:
    """Return the pages of an index."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def search_page(request: Request) -> Response:
        shown: list[Shown] = []
        problem, status, took_ms = "", 200, 0.0
        form = Form()
        is_asked = False
        try:
            with refusals():
                form = Form.read(request.query_params)
                is_asked = bool(form.q.strip())
                if is_asked:
                    results = await served.search(form.q, form.k, form.options())
                    took_ms = 1000 * results.stats.total_s
                    shown = await _shown(form, results)
        except RefusedError as refused:
            problem, status, is_asked = refused.detail, refused.status_code, False
        with refusals():
            documents, modes = await served.pipeline.count(), await served.modes()
            facets = await served.facets.of_index([one.result.metadata for one in shown], form.chosen)
        return _page(
            "search.html",
            status,
            served=served,
            form=form,
            is_asked=is_asked,
            problem=problem,
            results=shown,
            took_ms=took_ms,
            documents=documents,
            facets=facets,
            modes={mode: MODES[mode] for mode in modes},
            ks=sorted({*_KS, form.k}),
            more=form.address(form.offset + form.k) if len(shown) == form.k else None,
            before=form.address(max(0, form.offset - form.k)) if form.offset else None,
            prefix=_IN,
        )

    @router.get("/explain")
    async def explain_page(request: Request) -> Response:
        q, doc_id = _given(request, "q", "id")
        with refusals():
            document = await served.document(doc_id)
            explanation = await served.pipeline.explain(q, document.doc_id)
        content = await asyncio.to_thread(fragment, explanation)
        return _page("explain.html", served=served, q=q, document=document, explanation=Markup(content))  # noqa: S704 - escaped by `fragment`

    @router.get("/document")
    async def document_page(request: Request) -> Response:
        (doc_id,) = _given(request, "id")
        with refusals():
            document = await served.document(doc_id)
        return _page(
            "document.html",
            served=served,
            document=document,
            picture=_stored_picture(document),
            metadata=short_metadata(document.metadata, 2_000),
        )

    @router.get("/page.js")
    async def script() -> Response:
        return Response(_script(), media_type="text/javascript")

    return router


def error_page(error: HTTPException) -> Response:
    """Return a page that says what went wrong."""
    return _page("error.html", error.status_code, detail=error.detail, headers=error.headers)


def short_metadata(metadata: Mapping[str, Any], length: int) -> list[tuple[str, str]]:
    """Return metadata as texts, without pictures."""
    return [
        (name, _shortened(value if isinstance(value, str) else _json(value), length))
        for name, value in metadata.items()
        if name not in (IMAGE_KEY, THUMBNAIL_KEY)
    ]


async def _shown(form: Form, results: Sequence[SearchResult]) -> list[Shown]:
    """Return results with what answered marked, as many of them as the time allows."""
    if form.mode == "lexical":
        texts = [result.content for result in results]
        hits = await asyncio.to_thread(word_hits, form.q, texts)
        return [_with_hits(result, spans) for result, spans in zip(results, hits, strict=True)]
    until = time.monotonic() + _MARKING_S
    shown = []
    for result in results:
        explanation = await _explained(result) if time.monotonic() < until else None
        shown.append(await asyncio.to_thread(_with_marks, result, explanation))
    return shown


async def _explained(result: SearchResult) -> Explanation | None:
    """Explain a result; None where the document is gone or was changed meanwhile."""
    try:
        return await result.aexplain()
    except (LateInteractionError, ValueError):
        return None


def _with_marks(result: SearchResult, explanation: Explanation | None) -> Shown:
    picture = _stored_picture(result)
    if explanation is None:
        return Shown(result, _cut(result.content), picture)
    if explanation.patches is not None:
        heated = Markup(thumbnail(explanation))  # noqa: S704 - escaped by `thumbnail`
        return Shown(result, _cut(result.content), heated)
    text = _marked(explanation.content, explanation.words)
    return Shown(result, text, picture)


def _with_hits(result: SearchResult, hits: Sequence[Span]) -> Shown:
    words = with_hits(result.content, (), hits)
    return Shown(result, _marked(result.content, words), _stored_picture(result))


def _marked(content: str, words: Sequence[Word]) -> Markup:
    start, end = excerpt(words, _LENGTH)
    marked = marked_text(content, words, start=start, end=end, tips=False)
    return _between(marked, start > 0, end < len(content))


def _between(html: str, is_cut_before: bool, is_cut_after: bool) -> Markup:
    return Markup(("… " if is_cut_before else "") + html + (" …" if is_cut_after else ""))  # noqa: S704 - escaped


def _cut(text: str) -> Markup:
    return _between(escape(text[:_LENGTH]), False, len(text) > _LENGTH)


def _stored_picture(document: Document | SearchResult) -> Markup:
    """Return the picture that is stored with a document; "" where there is none."""
    if (uri := stored_picture(document.metadata)) is None:
        return Markup()
    return Markup('<img class="picture" src="{}" alt="{}">').format(uri, document.content[:300])


def _given(request: Request, *names: str) -> list[str]:
    """Return the values of parameters, each of which must be given once, and no other.

    Raises:
        RefusedError: they are not.
    """
    given = request.query_params.multi_items()
    if sorted(name for name, _ in given) != sorted(names):
        raise RefusedError(422, f"The parameters are {' and '.join(names)}, each given once.")
    return [dict(given)[name] for name in names]


def _chosen_value(name: str, text: str) -> str | int | float | bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, str | int | float):
        raise ValueError(f"{name[:60]} must be a text, a number, true or false as JSON, not {text[:60]!r}.")  # noqa: TRY004
    return value


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise ValueError(f"{name} must be a whole number from {least} to {most:,}, not {text[:60]!r}.")
    return int(text)


def _weight(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"weight must be a number from 0 to 1, not {text[:60]!r}.") from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _page(
    name: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    html = _templates().get_template(name).render(style=Markup(STYLE), **values)  # noqa: S704 - our own
    return HTMLResponse(html.encode("utf-8", "replace"), status, headers)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("late_interaction.serving"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["urlquery"] = urlencode
    return environment


@cache
def _script() -> str:
    return resources.files("late_interaction.serving").joinpath("templates/page.js").read_text("utf-8")
