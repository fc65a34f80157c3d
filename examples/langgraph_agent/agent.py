"""An agent that decides when to search: LangGraph, with a late-interaction retriever as its tool.

From the root of the checkout::

    python examples/langgraph_agent/agent.py "When does the boat leave?"
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, create_retriever_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import late_interaction
from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore

NOTES = Path(__file__).parents[1] / "notes"

Agent = CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]


class FakeLLM(BaseChatModel):
    """Calls its first tool with the question, then quotes what came back, so that the agent runs without a key."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Remember the tools, as a real chat model does."""
        return self.bind(tools=[tool.name for tool in tools if isinstance(tool, BaseTool)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            reply = AIMessage(f"The notes say: {last.text.partition('---')[0].strip()}")
        else:
            call = {"name": kwargs["tools"][0], "args": {"query": last.text}, "id": f"call-{len(messages)}"}
            reply = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def make_agent(index: late_interaction.SyncPipeline, llm: BaseChatModel) -> Agent:
    """Make an agent over an index; it remembers each conversation by its `thread_id`.

    Args:
        index: what it searches.
        llm: a chat model that calls tools.
    """
    store = LateInteractionVectorStore(index)
    search = create_retriever_tool(
        LateInteractionRetriever(vectorstore=store, k=2, with_scores=True),
        "search_notes",
        "Search the notes about the island. Ask in a few words.",
        document_prompt=PromptTemplate.from_template("[{source}] {page_content}"),
        document_separator="\n---\n",
        response_format="content_and_artifact",  # the artifact of the tool's message has the documents themselves
    )
    think = itemgetter("messages") | llm.bind_tools([search]) | (lambda reply: {"messages": [reply]})
    graph = StateGraph(MessagesState)
    graph.add_node("llm", think)
    graph.add_node("tools", ToolNode([search]))
    graph.add_edge(START, "llm")
    graph.add_conditional_edges("llm", tools_condition)
    graph.add_edge("tools", "llm")
    return graph.compile(checkpointer=InMemorySaver())


def main(question: str) -> None:
    """Print each step of an answer."""
    index = late_interaction.open("my_index", model="demo")
    index.sync(NOTES)
    llm = FakeLLM()  # or init_chat_model("anthropic:claude-…"), from langchain.chat_models
    agent = make_agent(index, llm)
    asked = MessagesState(messages=[HumanMessage(question)])
    for state in agent.stream(asked, {"configurable": {"thread_id": "1"}}, stream_mode="values"):
        state["messages"][-1].pretty_print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "When does the boat leave?")
