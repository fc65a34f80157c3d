"""Rerank the nodes of any retriever by MaxSim, with the model's own projection and no pooling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from late_interaction import LateInteractionModel
from late_interaction.maxsim import maxsim
from late_interaction.types import FloatMatrix


class LateInteractionRerank(BaseNodePostprocessor):
    """Scores the nodes of any retriever by MaxSim and keeps the best; needs no store.

    A node's text is encoded as the vector store does it, with those metadata that the node shows to embedding
    models. Nodes without text cannot be scored: they come last, in the order they came in, with the score None.

    Args:
        model: encodes the query and the nodes.
        top_n: how many nodes to keep.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: LateInteractionModel = Field(exclude=True)
    top_n: int = Field(default=5, ge=1)

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's serialised settings."""
        return "LateInteractionRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        texts = _texts(nodes)
        query = self.model.encode_queries([_query(query_bundle)])[0]
        return self._ranked(nodes, query, self.model.encode_documents(list(texts.values())) if texts else [])

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        texts = _texts(nodes)
        query = (await self.model.aencode_queries([_query(query_bundle)]))[0]
        matrices = await self.model.aencode_documents(list(texts.values())) if texts else []
        return await asyncio.to_thread(self._ranked, nodes, query, matrices)

    def _ranked(
        self, nodes: Sequence[NodeWithScore], query: FloatMatrix, matrices: Sequence[FloatMatrix]
    ) -> list[NodeWithScore]:
        """The best nodes by the matrices of those that have a text."""
        scores = dict(zip(_texts(nodes), maxsim(query, matrices).tolist(), strict=True))
        order = sorted(range(len(nodes)), key=lambda position: -scores.get(position, float("-inf")))
        return [NodeWithScore(node=nodes[i].node, score=scores.get(i)) for i in order[: self.top_n]]


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None or not query_bundle.query_str.strip():
        raise ValueError("A query is needed to rerank nodes by: pass query_str or query_bundle.")
    return query_bundle.query_str


def _texts(nodes: Sequence[NodeWithScore]) -> dict[int, str]:
    """What to encode of each node, by its position; nodes without text are left out."""
    texts = ((position, node.get_content(MetadataMode.EMBED)) for position, node in enumerate(nodes))
    return {position: text for position, text in texts if text.strip()}
