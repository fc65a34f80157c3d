"""The HTTP API: search, explain, documents."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from starlette.requests import Request

from late_interaction.serving.answers import (
    MAX_ROWS,
    AddAnswer,
    AddRequest,
    DeleteAnswer,
    DeleteRequest,
    DocumentAnswer,
    DocumentsAnswer,
    ExplainRequest,
    ExplanationAnswer,
    HealthAnswer,
    IndexAnswer,
    Problem,
    ResultAnswer,
    SearchAnswer,
    SearchRequest,
)
from late_interaction.serving.guards import HEALTH
from late_interaction.serving.problems import MEDIA_TYPE, RefusedError, refusals
from late_interaction.serving.served import Served
from late_interaction.version import __version__

_WHY = {
    400: "The request is not JSON.",
    401: "The token is missing or wrong.",
    403: "The request comes from a page of another site, or the index is served read-only.",
    404: "There is no such document.",
    413: "The request is too large.",
    421: "The server is not called so.",
    422: "A field is wrong; the detail says which and why.",
    500: "A fault of the server's.",
    501: "The server has not got the packages for it.",
    503: "The index cannot be reached now.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": why, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, why in _WHY.items()
}

_Id = Annotated[str, Query(description="The document's id.")]


def api_of(served: Served) -> APIRouter:
    """Return the API of an index. Routes that write refuse where that is not allowed."""
    router = APIRouter(responses=PROBLEMS, dependencies=[Depends(check_parameters)])
    pipeline = served.pipeline

    @router.get(HEALTH, tags=["index"])
    async def health() -> HealthAnswer:
        """Tell whether the index can be reached. Needs no token."""
        with refusals():
            await pipeline.count()
        return HealthAnswer()

    @router.get("/api/index", tags=["index"])
    async def index() -> IndexAnswer:
        """Describe the index: its size, its model, what a search may go by."""
        with refusals():
            return IndexAnswer(**await served.described(), version=__version__)

    @router.post("/api/search", tags=["search"])
    async def search(asked: SearchRequest) -> SearchAnswer:
        """Find the documents with the highest MaxSim; by `mode`, also by the words of the query."""
        with refusals():
            found = await served.search(asked.asked(), asked.k, asked.options())
            results = [ResultAnswer.model_validate(result) for result in found]
            if asked.explain:
                for result, answer in zip(found, results, strict=True):
                    explanation = await result.aexplain()
                    answer.explanation = await asyncio.to_thread(
                        ExplanationAnswer.model_validate, explanation
                    )
            return SearchAnswer(results=results, stats=found.stats)

    @router.post("/api/explain", tags=["search"])
    async def explain(asked: ExplainRequest) -> ExplanationAnswer:
        """Tell which tokens of a document answered which of a query, and by how much."""
        with refusals():
            document = await served.document(asked.doc_id)
            explanation = await pipeline.explain(asked.asked(), document.doc_id)
            return await asyncio.to_thread(ExplanationAnswer.model_validate, explanation)

    @router.get("/api/documents", tags=["documents"])
    async def documents(
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 100,
        offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
        filter: Annotated[
            str | None, Query(description="Only documents that match: a filter as JSON.")
        ] = None,
    ) -> DocumentsAnswer:
        """List documents in the order in which they were written, a page at a time."""
        with refusals():
            wanted = json_filter(filter)
            found = await pipeline.find(wanted, limit=limit, offset=offset)
            return DocumentsAnswer(
                documents=[DocumentAnswer.model_validate(document) for document in found],
                total=await pipeline.count(wanted),
            )

    @router.get("/api/document", tags=["documents"])
    async def document(id: _Id) -> DocumentAnswer:
        """Return one document."""
        with refusals():
            return DocumentAnswer.model_validate(await served.document(id))

    @router.post("/api/documents", tags=["documents"])
    async def add(asked: AddRequest) -> AddAnswer:
        """Add documents, each in place of the one of the same id."""
        check_writes(served)
        with refusals():
            try:
                added = await pipeline.index_documents(
                    [one.row() for one in asked.documents], **asked.options()
                )
            finally:
                served.facets.forget()
            return AddAnswer(ids=list(added), truncated=added.truncated, failures=added.failures)

    @router.post("/api/documents/delete", tags=["documents"])
    async def delete(asked: DeleteRequest) -> DeleteAnswer:
        """Delete documents by their ids, or all that match a filter."""
        check_writes(served)
        with refusals():
            selection = asked.filter if asked.ids is None else asked.ids
            assert selection is not None
            try:
                return DeleteAnswer(deleted=await pipeline.delete_documents(selection))
            finally:
                served.facets.forget()

    @router.delete("/api/document", tags=["documents"])
    async def delete_one(id: _Id) -> DeleteAnswer:
        """Delete one document."""
        check_writes(served)
        with refusals():
            document = await served.document(id)
            deleted = await pipeline.delete_document(document.doc_id)
            served.facets.forget()
            return DeleteAnswer(deleted=int(deleted))

    return router


def check_parameters(request: Request) -> None:
    """Check that an address has no parameter that its route does not know, and none twice.

    Raises:
        RefusedError: it has.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = [parameter.alias for parameter in route.dependant.query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there are none here"
            raise RefusedError(422, f"There is no parameter {name[:60]!r}: {there}.")
        if given.count(name) > 1:
            raise RefusedError(422, f"The parameter {name} is given twice.")


def check_writes(served: Served) -> None:
    """Check that the index may be written to.

    Raises:
        RefusedError: it may not.
    """
    if not served.allow_writes:
        raise RefusedError(403, "The index is served read-only: start the server with --allow-writes.")


def json_filter(text: str | None) -> dict[str, Any] | None:
    """Return the filter in a text of JSON; None for none.

    Raises:
        ValueError, TypeError: it is not a JSON object.
    """
    if text is None or not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the filter is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise TypeError('the filter must be a JSON object, such as {"lang": "en"}.')
    return value
