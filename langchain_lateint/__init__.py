"""LangChain adapter for late-interaction retrieval: a vector store, a retriever, a reranker, self-query.

The names below are imported on first use, so that `import langchain_lateint` costs nothing. They need
langchain-core: `pip install 'late-interaction[langchain]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.lazy import lazy_names

if TYPE_CHECKING:
    from langchain_lateint.embeddings import EmbeddingsModel
    from langchain_lateint.reranker import LateInteractionReranker
    from langchain_lateint.retrievers import LateInteractionRetriever
    from langchain_lateint.self_query import LateInteractionTranslator
    from langchain_lateint.vectorstores import LateInteractionVectorStore

_HOMES = {
    "langchain_lateint.embeddings": ("EmbeddingsModel",),
    "langchain_lateint.reranker": ("LateInteractionReranker",),
    "langchain_lateint.retrievers": ("LateInteractionRetriever",),
    "langchain_lateint.self_query": ("LateInteractionTranslator",),
    "langchain_lateint.vectorstores": ("LateInteractionVectorStore",),
}

__all__ = [
    "EmbeddingsModel",
    "LateInteractionReranker",
    "LateInteractionRetriever",
    "LateInteractionTranslator",
    "LateInteractionVectorStore",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES, needs="langchain_core", extra="langchain")
