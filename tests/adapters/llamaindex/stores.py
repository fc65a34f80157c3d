"""Stores to test, in a folder and in Astra's tables on the local Data API, and short forms of what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from late_interaction import LateInteractionModel
from llamaindex_lateint import LateInteractionVectorStore
from tests.support.models import HashModel
from tools.data_api import run_in_thread

MakeStore: TypeAlias = Callable[..., LateInteractionVectorStore]


@contextmanager
def stores_in(engine: str, folder: Path) -> Iterator[MakeStore]:
    """What makes stores in one place, and closes them; the same name gives the same index."""
    with ExitStack() as stack:
        place: dict[str, Any] = {"path": folder}
        if engine == "astra":
            server = stack.enter_context(run_in_thread())
            place = {"token": server.token, "api_endpoint": server.endpoint}

        def make(
            name: str = "nodes", model: LateInteractionModel | None = None, **options: Any
        ) -> LateInteractionVectorStore:
            model = HashModel() if model is None else model
            store = LateInteractionVectorStore(model=model, table_name=name, **place, **options)
            return stack.enter_context(store)

        yield make


def where(key: str, value: Any, op: str = "==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(op))])


def ids(nodes: Sequence[BaseNode] | None) -> list[str]:
    return [node.node_id for node in nodes or ()]
