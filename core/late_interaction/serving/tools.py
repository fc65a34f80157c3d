"""The MCP server: an index as tools that agents search it with. They read, and change nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import mcp.types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from pydantic import BaseModel, ValidationError

from late_interaction.errors import LateInteractionError
from late_interaction.explain import Word
from late_interaction.images.storing import IMAGE_KEY, THUMBNAIL_KEY
from late_interaction.serving.answers import (
    Answer,
    Asked,
    DocumentAnswer,
    ExplainRequest,
    Id,
    ResultAnswer,
    SearchQuery,
    stored_picture,
)
from late_interaction.serving.served import NoDocumentError, Served
from late_interaction.types import Document, SearchResult
from late_interaction.version import __version__


class DocumentRequest(Asked):
    """A document to read."""

    doc_id: Id
    """Its id, as a search names it."""


class Found(Answer):
    """Documents, best first."""

    results: list[ResultAnswer]


class Why(Answer):
    """Why a document has its score: the words of either side, whose contributions add up to it."""

    doc_id: str
    score: float
    words: list[Word]
    query_words: list[Word]
    notes: list[str]


@dataclass(frozen=True)
class _Tool:
    """A tool: its description, what it is asked, what it answers, and how."""

    description: str
    request: type[BaseModel]
    answer: type[Answer]
    call: Callable[[Any], Awaitable[tuple[Answer, list[types.ContentBlock]]]]


def make_server(served: Served) -> Server[Any, Any]:
    """Return an MCP server of an index, with the tools `search`, `get_document` and `explain`."""
    pipeline = served.pipeline

    async def search(asked: SearchQuery) -> tuple[Answer, list[types.ContentBlock]]:
        results = await served.search(asked.asked(), asked.k, asked.options())
        return Found(results=[ResultAnswer.model_validate(_readable(result)) for result in results]), []

    async def get_document(asked: DocumentRequest) -> tuple[Answer, list[types.ContentBlock]]:
        document = await served.document(asked.doc_id)
        return DocumentAnswer.model_validate(_readable(document)), _picture(document)

    async def explain(asked: ExplainRequest) -> tuple[Answer, list[types.ContentBlock]]:
        document = await served.document(asked.doc_id)
        return Why.model_validate(await pipeline.explain(asked.asked(), document.doc_id)), []

    tools = {
        "search": _Tool(
            f"Search the index {served.name!r} for the documents that answer a question best. Their metadata can be "
            "filtered by.",
            SearchQuery,
            Found,
            search,
        ),
        "get_document": _Tool(
            "Read one document whole, by its id.", DocumentRequest, DocumentAnswer, get_document
        ),
        "explain": _Tool(
            "Tell which words of a document answered which words of a question, and by how much.",
            ExplainRequest,
            Why,
            explain,
        ),
    }
    server: Server[Any, Any] = Server(
        "late-interaction",
        version=__version__,
        instructions=f"Searches the documents of the index {served.name!r}. It cannot change them.",
    )

    @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]
    async def list_tools() -> list[types.Tool]:
        hints = types.ToolAnnotations(readOnlyHint=True, openWorldHint=False)
        return [
            types.Tool(
                name=name,
                description=tool.description,
                inputSchema=tool.request.model_json_schema(),
                outputSchema=tool.answer.model_json_schema(mode="serialization"),
                annotations=hints,
            )
            for name, tool in tools.items()
        ]

    @server.call_tool()  # type: ignore[untyped-decorator]
    async def call_tool(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        if name not in tools:
            return _refused(f"There is no tool {name!r}: there are {', '.join(tools)}.")
        tool = tools[name]
        try:
            answer, more = await tool.call(tool.request.model_validate(arguments))
        except ValidationError as error:
            return _refused(
                "; ".join(
                    ": ".join(filter(None, [".".join(map(str, one["loc"])), one["msg"]]))
                    for one in error.errors()
                )
            )
        except (LateInteractionError, NoDocumentError, ValueError, TypeError) as error:
            return _refused(str(error))
        values = answer.model_dump(mode="json")
        text = types.TextContent(type="text", text=json.dumps(values, ensure_ascii=False))
        return types.CallToolResult(content=[text, *more], structuredContent=values)

    return server


async def serve_stdio(served: Served) -> None:
    """Serve an index to the client that started this process, until it closes the input."""
    server = make_server(served)
    # What anything prints from here on must not stand among the messages.
    async with served.pipeline, stdio_server() as (reads, writes):
        with redirect_stdout(sys.stderr):
            await server.run(reads, writes, server.create_initialization_options())


def _refused(reason: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=reason)], isError=True)


def _picture(document: Document) -> list[types.ContentBlock]:
    """Return the picture that is stored with a document."""
    if (uri := stored_picture(document.metadata)) is None:
        return []
    kind, _, data = uri.removeprefix("data:").partition(";base64,")
    return [types.ImageContent(type="image", data=data, mimeType=kind)]


def _readable(document: Document | SearchResult) -> dict[str, Any]:
    """Return the fields of a document without pictures, which are long and no text."""
    fields = {name: getattr(document, name) for name in type(document).__dataclass_fields__}
    fields["metadata"] = {
        name: value
        for name, value in document.metadata.items()
        if name not in (IMAGE_KEY, THUMBNAIL_KEY) or not str(value).startswith("data:")
    }
    return fields
