"""Answers with sources, over HTTP: one model and one index serve every request.

From the root of the checkout::

    uvicorn app:app --app-dir examples/fastapi_rag
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, SimpleChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import BaseModel, Field

from late_interaction import (
    FilterError,
    LateInteractionModel,
    LateInteractionPipeline,
    SearchResults,
    load_model,
)

NOTES = Path(__file__).parents[1] / "notes"

logger = logging.getLogger("uvicorn.error")
router = APIRouter()


class FakeLLM(SimpleChatModel):
    """Quotes the first source, a word at a time, so that the service runs without a key."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        _, _, sources = messages[-1].text.partition("[1] ")
        first = sources.partition("\n\n[2] ")[0]
        return f"The notes say: {' '.join(first.split())} [1]" if first else "The notes do not tell."

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for word in self._call(messages).split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))


class Question(BaseModel):
    """What a client asks."""

    question: str = Field(pattern=r"\S", max_length=2000, examples=["When does the boat leave?"])
    k: int = Field(3, ge=1, le=20, description="how many sources")
    filter: dict[str, Any] | None = Field(None, examples=[{"source": "ferry.md"}])


class Source(BaseModel):
    """A passage that the answer rests on."""

    doc_id: str
    score: float
    content: str
    metadata: dict[str, Any]


class Answer(BaseModel):
    """An answer with its sources; [1] in the text is the first of them."""

    answer: str
    sources: list[Source]


async def opened_pipeline(request: Request) -> LateInteractionPipeline:
    """Return the pipeline that the lifespan opened."""
    pipeline: LateInteractionPipeline = request.app.state.pipeline
    return pipeline


async def chat_model(request: Request) -> BaseChatModel:
    """Return the chat model that the lifespan was given."""
    llm: BaseChatModel = request.app.state.llm
    return llm


Pipeline = Annotated[LateInteractionPipeline, Depends(opened_pipeline)]
LLM = Annotated[BaseChatModel, Depends(chat_model)]


@router.post("/ask")
async def ask(asked: Question, pipeline: Pipeline, llm: LLM) -> Answer:
    """Answer a question from the best passages."""
    found = await pipeline.search(asked.question, k=asked.k, filter=asked.filter)
    reply = await llm.ainvoke(prompt(asked.question, found))
    return Answer(answer=reply.text, sources=sources(found))


@router.post("/ask/stream")
async def ask_stream(asked: Question, pipeline: Pipeline, llm: LLM) -> StreamingResponse:
    """Answer while the model writes: a line of JSON with the sources, then one for each piece of text."""
    found = await pipeline.search(asked.question, k=asked.k, filter=asked.filter)

    async def lines() -> AsyncIterator[str]:
        yield json.dumps({"sources": [source.model_dump(mode="json") for source in sources(found)]}) + "\n"
        async for piece in llm.astream(prompt(asked.question, found)):
            yield json.dumps({"text": piece.text}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def prompt(question: str, found: SearchResults) -> str:
    """Return what the chat model reads."""
    numbered = "\n\n".join(f"[{number}] {result.content}" for number, result in enumerate(found, 1))
    return (
        "Answer from these sources only, and name those you used by their numbers.\n\n"
        f"Question: {question}\n\n{numbered}"
    )


def sources(found: SearchResults) -> list[Source]:
    """Return what the client sees of the passages."""
    return [
        Source(doc_id=one.doc_id, score=one.score, content=one.content, metadata=one.metadata)
        for one in found
    ]


async def refused(request: Request, error: Exception) -> JSONResponse:
    """Tell the client what is wrong with its filter."""
    return JSONResponse({"detail": str(error)}, status_code=422)


def create_app(
    db: str | Path = "my_index",
    files: str | Path = NOTES,
    model: str | LateInteractionModel = "demo",
    llm: BaseChatModel | None = None,
) -> FastAPI:
    """Make the service.

    Args:
        db: the index: a folder, or "astra:NAME".
        files: what to index. At each start only what is new or changed is encoded.
        model: the late-interaction model, or its name.
        llm: what writes the answers; None for the fake one.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        encoder = await asyncio.to_thread(load_model, model) if isinstance(model, str) else model
        async with LateInteractionPipeline(db, encoder) as pipeline:
            logger.info("%s: %s", files, await pipeline.sync(files, prune=True))
            app.state.pipeline, app.state.llm = pipeline, llm or FakeLLM()
            yield

    app = FastAPI(title="Ask the notes", lifespan=lifespan)
    app.add_exception_handler(FilterError, refused)
    app.include_router(router)
    return app


app = create_app(
    db=os.environ.get("INDEX", "my_index"),
    files=os.environ.get("FILES", NOTES),
    # llm=init_chat_model("anthropic:claude-…"),  # from langchain.chat_models: a real one
)
