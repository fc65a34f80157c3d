"""LangChain adapter for late-interaction retrieval: a vector store, a retriever, a reranker, self-query.

The names below are imported on first use, so that `import langchain_lateint` costs nothing. They need
langchain-core: `pip install 'late-interaction[langchain]'`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_lateint.embeddings import EmbeddingsModel
    from langchain_lateint.reranker import LateInteractionReranker
    from langchain_lateint.retrievers import LateInteractionRetriever
    from langchain_lateint.self_query import LateInteractionTranslator
    from langchain_lateint.vectorstores import LateInteractionVectorStore

_HOME_OF = {
    "EmbeddingsModel": "embeddings",
    "LateInteractionReranker": "reranker",
    "LateInteractionRetriever": "retrievers",
    "LateInteractionTranslator": "self_query",
    "LateInteractionVectorStore": "vectorstores",
}

__all__ = [
    "EmbeddingsModel",
    "LateInteractionReranker",
    "LateInteractionRetriever",
    "LateInteractionTranslator",
    "LateInteractionVectorStore",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value: object = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        from late_interaction import MissingExtraError

        raise MissingExtraError(f"{__name__}.{name}", "langchain", "langchain-core") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
