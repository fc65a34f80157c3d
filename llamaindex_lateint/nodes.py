"""Nodes as documents of an index, and back, exactly.

A document has the node's text as its content and the node's metadata as its own, each key in its place, so that
filters reach them and other users of the index read them. Everything else of the node (relationships, excluded
keys, character positions, templates) is one JSON text in `_node_content`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument

from late_interaction.types import Document

PARENT = "ref_doc_id"
"""The metadata field with the id of the document that a node is a part of; nodes without one lack it."""
PARENT_NAMES = (PARENT, "doc_id", "document_id")
"""The keys under which LlamaIndex's stores let one filter by that id."""

_CONTENT, _TYPE = "_node_content", "_node_type"
_TAKEN = re.compile(rf"(metadata\.)*({PARENT}|{_CONTENT}|{_TYPE})")
_MOVED = "metadata."
_CLASSES: dict[str, type[BaseNode]] = {
    known.class_name(): known
    for known in (TextNode, ImageNode, IndexNode, Node, LlamaDocument, ImageDocument)
}


@dataclass(frozen=True, slots=True)
class EncodableNode:
    """A node on its way into an index.

    Attributes:
        document: as an index holds it.
        text: what to encode of it; None where it is an image, which the document's content refers to.
    """

    document: Document
    text: str | None


def encodable_node(node: BaseNode, *, images: bool) -> EncodableNode:
    """A node as a document, and what of it to encode.

    Text is encoded with those metadata that the node shows to embedding models, and stored without.

    Args:
        node: the node.
        images: whether nodes with an image are to be encoded by it rather than by their text.

    Raises:
        ValueError: there is nothing to encode, or an image is in the node itself and not referred to.
    """
    reference = _image_reference(node)
    if reference is not None and images:
        return EncodableNode(_document(node, reference, "image"), None)
    if reference is not None and not node.get_content(MetadataMode.NONE).strip():
        raise ValueError(
            f"Node {node.node_id!r} is an image without text, and the store's model encodes text only. Give the "
            "node a text (a caption, the text of the page), or the store a model that encodes images."
        )
    text = node.get_content(MetadataMode.EMBED)
    if not text.strip():
        raise ValueError(f"Node {node.node_id!r} has no text to encode.")
    content = node.get_content(MetadataMode.NONE)
    return EncodableNode(_document(node, content if content.strip() else text, "text"), text)


def node_of(document: Document) -> BaseNode:
    """The node that a document was made of; for a document that no node was made of, a node like it."""
    metadata = {_given_key(key): value for key, value in document.metadata.items() if not _is_ours(key)}
    if _CONTENT not in document.metadata:
        return TextNode(id_=document.doc_id, text=document.content, metadata=metadata)
    data: dict[str, Any] = json.loads(document.metadata[_CONTENT])
    holder = _text_holder(data)
    if holder is not None and "text" not in holder:
        holder["text"] = document.content
    return _CLASSES[document.metadata[_TYPE]].from_dict({**data, "metadata": metadata})


def stored_key(key: str) -> str:
    """The metadata field in which a node's metadata key is stored: the same, but for a few that are taken."""
    return _MOVED + key if _TAKEN.fullmatch(key) else key


def _given_key(stored: str) -> str:
    return stored.removeprefix(_MOVED) if _TAKEN.fullmatch(stored) else stored


def _is_ours(stored: str) -> bool:
    return stored in (PARENT, _CONTENT, _TYPE)


def _document(node: BaseNode, content: str, content_type: str) -> Document:
    data = node.model_dump(mode="json", exclude={"embedding", "image", "metadata"})
    if isinstance(node, Node):
        data.pop("text", None)  # A Document's, which is in its text resource too.
    holder = _text_holder(data)
    if holder is not None and holder.get("text") == content:
        del holder["text"]
    stored = {stored_key(key): value for key, value in node.metadata.items()}
    if node.ref_doc_id is not None:
        stored[PARENT] = node.ref_doc_id
    ours = {_CONTENT: json.dumps(data), _TYPE: _class_name(node)}
    return Document(node.node_id, content, content_type, stored | ours)


def _class_name(node: BaseNode) -> str:
    """The name of LlamaIndex's class that a node is of, or is derived from."""
    bases = type(node).__mro__
    return min(
        _CLASSES, key=lambda name: bases.index(_CLASSES[name]) if _CLASSES[name] in bases else len(bases)
    )


def _text_holder(data: dict[str, Any]) -> dict[str, Any] | None:
    """Where the text stands in a dumped node."""
    holder: dict[str, Any] | None = data.get("text_resource", data)
    return holder


def _image_reference(node: BaseNode) -> str | None:
    """The path or URL of a node's image.

    Raises:
        ValueError: there is an image, or another medium, that is neither a file nor at a URL.
    """
    media: list[tuple[object, object, object]] = [(None, None, None)]
    if isinstance(node, ImageNode):
        media = [(node.image, node.image_path, node.image_url)]
    elif isinstance(node, Node):
        resources = (node.image_resource, node.audio_resource, node.video_resource)
        media = [(r.data, r.path, r.url) if r is not None else (None, None, None) for r in resources]
    if any(data and not (path or url) for data, path, url in media):
        raise ValueError(
            f"Node {node.node_id!r} carries a medium as bytes. An index holds media by reference: save it as a file "
            "and give its path, for an ImageNode as image_path=."
        )
    _, path, url = media[0]
    return str(path or url) if path or url else None
