"""examples/llamaindex_pages finds the right pages, by their text and by their pictures, and answers from them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, ChatResponse, ImageBlock
from PIL import Image

import late_interaction
from examples.llamaindex_pages import ask_pages as example
from late_interaction import ColBERTModel
from llamaindex_lateint import LateInteractionVectorStore
from tests.support import pdfs
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

ISLAND = ROOT / "examples" / "llamaindex_pages" / "island.pdf"


class Sees(example.FakeLLM):
    """Says which sizes the pictures have that it is shown."""

    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        blocks = [block for message in messages for block in message.blocks]
        pictures = [block for block in blocks if isinstance(block, ImageBlock)]
        sizes = [Image.open(picture.resolve_image()).size for picture in pictures]
        return ChatResponse(message=ChatMessage(f"a picture of {sizes}"))


async def test_pages_by_their_text(tmp_path: Path, minilm: ColBERTModel) -> None:
    with late_interaction.open(tmp_path / "index", model=minilm) as index:
        index.sync(ISLAND)
        workflow = example.AskPages(LateInteractionVectorStore(index), ISLAND.parent, example.FakeLLM(), k=2)
        questions = {
            "What does a ticket cost?": ("island.pdf#2", "four euros"),
            "Where do puffins nest?": ("island.pdf#3", "western cliffs"),
            "When can I see the doctor?": ("island.pdf#4", "beside the school"),
        }
        answers = await asyncio.gather(*(workflow.run(question=question) for question in questions))
    for answered, (page, words) in zip(answers, questions.values(), strict=True):
        assert answered.pages[0].node_id == page
        assert len(answered.pages) == 2
        assert answered.pages[0].score > answered.pages[1].score
        assert answered.answer.startswith(f"{page}: ")
        assert words in answered.answer


async def test_pages_as_they_look(tmp_path: Path, visual_model: Path) -> None:
    pdf = tmp_path / "made.pdf"
    pdf.write_bytes(pdfs.pdf(pdfs.text("Revenue"), pdfs.DRAWING, pdfs.text("Costs"), size=(300, 400)))
    with late_interaction.open(tmp_path / "index", model=visual_model, device="cpu") as index:
        assert len(index.sync(pdf).new) == 3
        workflow = example.AskPages(LateInteractionVectorStore(index), tmp_path, Sees(), k=3)
        answered = await workflow.run(question="a chart")
    assert sorted(page.node_id for page in answered.pages) == ["made.pdf#1", "made.pdf#2", "made.pdf#3"]
    with next(late_interaction.pdf_pages(pdf))["image"].render() as rendered:
        assert answered.answer == f"{answered.pages[0].node_id}: a picture of [{rendered.size}]"


async def test_an_index_without_pages_says_so(tmp_path: Path, minilm: ColBERTModel) -> None:
    with late_interaction.open(tmp_path / "index", model=minilm) as index:
        workflow = example.AskPages(LateInteractionVectorStore(index), ISLAND.parent, example.FakeLLM())
        answered = await workflow.run(question="What does a ticket cost?")
    assert (answered.answer, answered.pages) == ("There is no page to read.", [])


def test_the_command_of_its_readme(tmp_path: Path) -> None:
    script = ROOT / "examples/llamaindex_pages/ask_pages.py"
    command = [sys.executable, script, ISLAND, "What does a ticket cost?"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    told, answer, best, *_ = done.stdout.splitlines()
    assert told.startswith("4 new")
    assert "four euros" in answer
    assert best.endswith("island.pdf#2")
