"""examples/langgraph_agent searches by its tool, answers from what came back, and remembers its conversations."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import MessagesState

import late_interaction
from examples.langgraph_agent import agent as example
from late_interaction import ColBERTModel, SyncPipeline
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def index(tmp_path: Path, minilm: ColBERTModel) -> Iterator[SyncPipeline]:
    with late_interaction.open(tmp_path / "index", model=minilm) as index:
        index.sync(example.NOTES)
        yield index


def asked(question: str) -> MessagesState:
    return MessagesState(messages=[HumanMessage(question)])


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name}}


def test_it_searches_answers_and_remembers(index: SyncPipeline) -> None:
    agent = example.make_agent(index, example.FakeLLM())
    first = agent.invoke(asked("When does the boat leave?"), thread("1"))["messages"]
    assert [message.type for message in first] == ["human", "ai", "tool", "ai"]
    assert first[1].tool_calls[0]["args"] == {"query": "When does the boat leave?"}
    assert "[ferry.md]" in first[2].content
    assert "at nine in the morning" in first[3].text
    second = agent.invoke(asked("Where do puffins nest?"), thread("1"))["messages"]
    assert [message.id for message in second[:4]] == [message.id for message in first]
    assert "western cliffs" in second[-1].text
    found = next(message for message in reversed(second) if isinstance(message, ToolMessage))
    assert found.artifact[0].id == "birds.md#1"
    assert found.artifact[0].metadata["score"] > found.artifact[1].metadata["score"]


async def test_many_conversations_at_once(index: SyncPipeline) -> None:
    agent = example.make_agent(index, example.FakeLLM())
    questions = {"When does the boat leave?": "at nine", "Where do puffins nest?": "western cliffs"}
    runs = [
        (words, agent.ainvoke(asked(question), thread(f"{turn} {question}")))
        for turn in range(5)
        for question, words in questions.items()
    ]
    answers = await asyncio.gather(*(run for _, run in runs))
    for (words, _), answer in zip(runs, answers, strict=True):
        assert words in answer["messages"][-1].text


def test_the_command_of_its_readme(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples/langgraph_agent/agent.py", "When does the boat leave?"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.count("search_notes") == 2
    assert "The notes say: [ferry.md]" in done.stdout
