"""Ten nodes that the tests of the LlamaIndex adapter share."""

from __future__ import annotations

from llama_index.core.schema import (
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)

WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine"]


def trees(parent: str | None = "forest") -> list[TextNode]:
    """One node for each of ten words; they share the word tree."""
    source = {} if parent is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=parent)}
    return [
        TextNode(id_=word, text=f"tree {word}", metadata={"rank": rank}, relationships=source)
        for rank, word in enumerate(WORDS)
    ]
