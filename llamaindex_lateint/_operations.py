"""The work behind the store's methods: nodes checked, stored, read and deleted, on a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from late_interaction import Document, IndexedIds, LateInteractionPipeline, RowOptions
from late_interaction.adapting import BadRow, Encodable, StoreImages, check_doc_id
from llamaindex_lateint.filters import of_documents
from llamaindex_lateint.nodes import PARENT, encodable_node, hash_of, node_of, with_ids_by_content
from llamaindex_lateint.querying import Selection


async def add_nodes(
    pipeline: LateInteractionPipeline, nodes: Sequence[BaseNode], options: RowOptions
) -> IndexedIds:
    """Encode nodes and store them."""
    images, stored = pipeline.model.supports_images, pipeline.settings.store_images

    def prepare() -> list[Encodable | BadRow]:
        named = with_ids_by_content(nodes) if options.get("ids") == "content" else nodes
        return [_row_of(node, images=images, store_images=stored) for node in named]

    return await pipeline.index_documents(await asyncio.to_thread(prepare), **options)


async def as_nodes(documents: Sequence[Document]) -> list[BaseNode]:
    """Return stored documents as nodes, made on another thread."""
    return await asyncio.to_thread(lambda: [node_of(document) for document in documents])


def _row_of(node: BaseNode, *, images: bool, store_images: StoreImages) -> Encodable | BadRow:
    try:
        return encodable_node(node, images=images, store_images=store_images)
    except ValueError as error:
        return BadRow(node.node_id, str(error))


def checked_nodes(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    if isinstance(nodes, BaseNode):
        raise TypeError("Pass a list of nodes, not a bare one: [node].")
    checked = list(nodes)
    for position, node in enumerate(checked):
        if not isinstance(node, BaseNode):
            raise TypeError(f"The node at position {position} is not a LlamaIndex node but {node!r:.60}.")
    return checked


def refuse(method: str, kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise TypeError(
            f"LateInteractionVectorStore.{method} has no argument {', '.join(map(repr, kwargs))}."
        )


def to_delete(node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Selection:
    selection = Selection.of(filters, node_ids)
    if node_ids is None and (filters is None or _are_empty(filters)):
        raise ValueError("Give node_ids or filters to say what to delete; clear() deletes everything.")
    return selection


def _are_empty(filters: MetadataFilters | MetadataFilter) -> bool:
    return isinstance(filters, MetadataFilters) and all(map(_are_empty, filters.filters))


async def delete_document(pipeline: LateInteractionPipeline, ref_doc_id: str) -> None:
    ref_doc_id = check_doc_id(ref_doc_id)
    await pipeline.delete_documents(of_documents([ref_doc_id]))
    for document in await pipeline.get_documents([ref_doc_id]):
        if PARENT not in document.metadata:
            await pipeline.delete_documents([ref_doc_id])


async def document_hash(pipeline: LateInteractionPipeline, ref_doc_id: str) -> str | None:
    ref_doc_id = check_doc_id(ref_doc_id)
    for document in await pipeline.find(of_documents([ref_doc_id]), limit=1):
        source = node_of(document).source_node
        return None if source is None else source.hash
    for document in await pipeline.get_documents([ref_doc_id]):
        if PARENT not in document.metadata:
            return hash_of(document)
    return None


async def delete_selected(pipeline: LateInteractionPipeline, selection: Selection) -> None:
    if selection.filters is None and selection.node_ids is not None:
        await pipeline.delete_documents(selection.node_ids)
    else:
        await pipeline.delete_documents([document.doc_id for document in await selection.documents(pipeline)])


async def selected_nodes(pipeline: LateInteractionPipeline, selection: Selection) -> list[BaseNode]:
    return await as_nodes(await selection.documents(pipeline))
