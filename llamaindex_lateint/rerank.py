"""LateInteractionRerank: rerank the nodes of any retriever by MaxSim, without pooling and without a store."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, field_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from late_interaction import LateInteractionModel, PickleError, load_image, load_model
from late_interaction.adapting import FloatMatrix, Item, is_blank, maxsim
from llamaindex_lateint.nodes import image_source


class LateInteractionRerank(BaseNodePostprocessor):
    """Scores the nodes of any retriever by MaxSim and keeps the best; it needs no store.

    >>> from llama_index.core.schema import NodeWithScore, TextNode
    >>> from llamaindex_lateint import LateInteractionRerank
    >>> rerank = LateInteractionRerank(model="demo", top_n=1)
    >>> texts = ["The car needs petrol.", "The dog guards the house."]
    >>> found = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    >>> rerank.postprocess_nodes(found, query_str="who watches my home?")[0].text
    'The dog guards the house.'

    A node is encoded as in the vector store: by its image if the model encodes images, and otherwise by its text
    with the metadata that the node shows to embedding models. Nodes with neither cannot be scored, so they come last,
    in their order, with the score None.

    Attributes:
        model: encodes the query and the nodes; a `LateInteractionModel`, or the name of a checkpoint.
        top_n: how many nodes to keep.
        allow_urls: fetch images that are given as URLs.
        keep_retrieval_score: put the score that the retriever gave under "retrieval_score" into the node's metadata.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: LateInteractionModel = Field(exclude=True)
    top_n: int = Field(default=5, ge=1)
    allow_urls: bool = False
    keep_retrieval_score: bool = False

    @field_validator("model", mode="before")
    @classmethod
    def _load(cls, model: Any) -> Any:
        return load_model(model) if isinstance(model, str) else model

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds; LlamaIndex would silently leave out a model that cannot be pickled."""
        try:
            pickle.dumps(self.model)
        except PickleError:
            raise
        except Exception as error:
            raise PickleError(
                f"{self.class_name()} cannot be pickled, since its model {self.model.model_name} cannot: {error}."
            ) from error
        state: dict[str, Any] = super().__getstate__()
        return state

    @classmethod
    def class_name(cls) -> str:
        """Return the name in LlamaIndex's serialised settings."""
        return "LateInteractionRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self.model.encode_queries([_query(query_bundle)])[0]
        items = self._items(nodes)
        return self._ranked(nodes, query, items, self._encoded(items))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = (await self.model.aencode_queries([_query(query_bundle)]))[0]
        items = await asyncio.to_thread(self._items, nodes)
        matrices = await self.model.run(self._encoded, items)
        return await asyncio.to_thread(self._ranked, nodes, query, items, matrices)

    def _items(self, nodes: Sequence[NodeWithScore]) -> dict[int, Item]:
        """Return what to encode of each node, by its position, leaving out nodes with neither text nor image."""
        items = {position: self._item(node) for position, node in enumerate(nodes)}
        return {
            position: item
            for position, item in items.items()
            if not (isinstance(item, str) and is_blank(item))
        }

    def _item(self, node: NodeWithScore) -> Item:
        image = image_source(node.node) if self.model.supports_images else None
        if image is None:
            return node.get_content(MetadataMode.EMBED)
        return load_image(image, allow_urls=self.allow_urls)

    def _encoded(self, items: dict[int, Item]) -> list[FloatMatrix]:
        encode: Any = self.model.encode_documents
        return list(encode(list(items.values()))) if items else []

    def _ranked(
        self,
        nodes: Sequence[NodeWithScore],
        query: FloatMatrix,
        items: dict[int, Item],
        matrices: Sequence[FloatMatrix],
    ) -> list[NodeWithScore]:
        """Return the best nodes, given the matrices of those that could be encoded."""
        scores = dict(zip(items, maxsim(query, matrices).tolist(), strict=True))
        order = sorted(range(len(nodes)), key=lambda position: -scores.get(position, float("-inf")))
        best = order[: self.top_n]
        if self.keep_retrieval_score:
            for i in best:
                nodes[i].node.metadata["retrieval_score"] = nodes[i].score
        return [NodeWithScore(node=nodes[i].node, score=scores.get(i)) for i in best]


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None or not query_bundle.query_str.strip():
        raise ValueError("Reranking needs a query: pass query_str or query_bundle.")
    return query_bundle.query_str
