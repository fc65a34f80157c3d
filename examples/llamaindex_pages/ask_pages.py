"""Ask the pages of a PDF: a LlamaIndex workflow that finds pages, reads them side by side, and answers.

From the root of the checkout::

    python examples/llamaindex_pages/ask_pages.py examples/llamaindex_pages/island.pdf "What does a ticket cost?"
"""

from __future__ import annotations

import asyncio
import sys
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ContentBlock
from llama_index.core.llms import (
    LLM,
    ChatMessage,
    CompletionResponse,
    CompletionResponseGen,
    CustomLLM,
    ImageBlock,
    LLMMetadata,
    TextBlock,
)
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import ImageNode, NodeWithScore
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

import late_interaction
from llamaindex_lateint import LateInteractionRetriever, LateInteractionVectorStore


class FakeLLM(CustomLLM):
    """Repeats the last line it is given, so that the workflow runs without a key."""

    @property
    def metadata(self) -> LLMMetadata:
        """Say what the model is."""
        return LLMMetadata(model_name="fake")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the last line of the prompt."""
        lines = [line for line in prompt.splitlines() if line.strip() not in ("", "assistant:")]
        return CompletionResponse(text=lines[-1].strip())

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Do `complete` as a stream of one piece."""
        yield self.complete(prompt)


class Question(StartEvent):
    """Begins the workflow."""

    question: str


class PageFound(Event):
    """A page to read."""

    question: str
    page: NodeWithScore


class PageRead(Event):
    """What one page says about the question."""

    question: str
    page: NodeWithScore
    note: str


class Answered(StopEvent):
    """The answer, and the pages that it rests on, the best first."""

    answer: str
    pages: list[NodeWithScore]


class AskPages(Workflow):
    """Find pages, read each of them, and answer from what they say.

    Args:
        store: the pages.
        folder: where the files are that were indexed: the pictures of their pages are read there.
        llm: what reads and answers. With a visual retrieval model it gets the picture of each page, so it must see.
        k: how many pages to read.
        timeout: seconds for one question.
    """

    def __init__(
        self, store: LateInteractionVectorStore, folder: Path, llm: LLM, k: int = 3, timeout: float = 120
    ) -> None:
        super().__init__(timeout=timeout)
        self.retriever = LateInteractionRetriever(store, similarity_top_k=k)
        self.folder, self.llm = folder, llm

    @step
    async def find(self, context: Context, start: Question) -> PageFound | Answered | None:
        """Find the pages, and send each to a reader."""
        pages = await self.retriever.aretrieve(start.question)
        if not pages:
            return Answered(answer="There is no page to read.", pages=[])
        await context.store.set("n_pages", len(pages))
        for page in pages:
            context.send_event(PageFound(question=start.question, page=page))
        return None

    @step(num_workers=4)
    async def read(self, found: PageFound) -> PageRead:
        """Read one page; four are read at a time."""
        page = await asyncio.to_thread(as_block, found.page, self.folder)
        task = TextBlock(text=f"What does this page say about: {found.question}")
        reply = await self.llm.achat([ChatMessage(blocks=[task, page])])
        return PageRead(question=found.question, page=found.page, note=str(reply.message.content))

    @step
    async def answer(self, context: Context, read: PageRead) -> Answered | None:
        """Wait for all pages, then answer."""
        n_pages = await context.store.get("n_pages")
        notes = context.collect_events(read, [PageRead] * n_pages)
        if notes is None:
            return None
        notes.sort(key=lambda one: one.page.score, reverse=True)
        text = "\n".join(f"{one.page.node_id}: {one.note}" for one in reversed(notes))
        reply = await self.llm.acomplete(f"Answer from these notes: {read.question}\n\n{text}")
        return Answered(answer=reply.text, pages=[one.page for one in notes])


def as_block(page: NodeWithScore, folder: Path) -> ContentBlock:
    """Return a page as the language model gets it: its picture if it was found by how it looks, or else its text."""
    if not isinstance(page.node, ImageNode):
        return TextBlock(text=f"\n{page.node.get_content()}")
    path, _, number = str(page.node.image_path).partition("#page=")
    row = next(islice(late_interaction.pdf_pages(folder / path), int(number) - 1, None))
    picture = BytesIO()
    late_interaction.load_image(row["image"]).save(picture, "PNG")
    return ImageBlock(image=picture.getvalue(), image_mimetype="image/png")


async def main(pdf: Path, question: str) -> None:
    """Print the answer, and the pages behind it."""
    index = late_interaction.open("my_pages", model="demo")  # or a visual model: "vidore/colqwen2-v1.0"
    print(index.sync(pdf))
    llm = FakeLLM()  # or Anthropic("claude-…"), from llama_index.llms.anthropic
    answered: Answered = await AskPages(LateInteractionVectorStore(index), pdf.parent, llm).run(
        question=question
    )
    print(answered.answer)
    for page in answered.pages:
        print(f"{page.score:.2f}  {page.node_id}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
