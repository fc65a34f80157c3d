"""LlamaIndex adapter for late-interaction retrieval: a vector store that needs no embedding model.

The names below are imported on first use, so that `import llamaindex_lateint` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.lazy import lazy_names

if TYPE_CHECKING:
    from llamaindex_lateint._watching import DroppedNodesWarning
    from llamaindex_lateint.no_embedding import NoEmbedding
    from llamaindex_lateint.rerank import LateInteractionRerank
    from llamaindex_lateint.retriever import LateInteractionRetriever
    from llamaindex_lateint.vector_store import LateInteractionVectorStore

_HOMES = {
    "llamaindex_lateint._watching": ("DroppedNodesWarning",),
    "llamaindex_lateint.rerank": ("LateInteractionRerank",),
    "llamaindex_lateint.retriever": ("LateInteractionRetriever",),
    "llamaindex_lateint.vector_store": ("LateInteractionVectorStore",),
    "llamaindex_lateint.no_embedding": ("NoEmbedding",),
}

__all__ = [
    "DroppedNodesWarning",
    "LateInteractionRerank",
    "LateInteractionRetriever",
    "LateInteractionVectorStore",
    "NoEmbedding",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES, needs="llama_index", extra="llamaindex")
