"""LlamaIndex adapter for late-interaction retrieval: a vector store that needs no embedding model.

The names below are imported on first use, so that `import llamaindex_lateint` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from late_interaction.errors import MissingExtraError

if TYPE_CHECKING:
    from llamaindex_lateint._watching import DroppedNodesWarning
    from llamaindex_lateint.no_embedding import NoEmbedding
    from llamaindex_lateint.rerank import LateInteractionRerank
    from llamaindex_lateint.retriever import LateInteractionRetriever
    from llamaindex_lateint.vector_store import LateInteractionVectorStore

_HOME_OF = {
    "DroppedNodesWarning": "llamaindex_lateint._watching",
    "LateInteractionRerank": "llamaindex_lateint.rerank",
    "LateInteractionRetriever": "llamaindex_lateint.retriever",
    "LateInteractionVectorStore": "llamaindex_lateint.vector_store",
    "NoEmbedding": "llamaindex_lateint.no_embedding",
}

__all__ = [
    "DroppedNodesWarning",
    "LateInteractionRerank",
    "LateInteractionRetriever",
    "LateInteractionVectorStore",
    "NoEmbedding",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_HOME_OF[name])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        raise MissingExtraError("The LlamaIndex adapter", "llamaindex", "llama-index-core") from error
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
