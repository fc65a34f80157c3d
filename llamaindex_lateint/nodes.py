"""Convert nodes to documents of an index, and back, exactly.

A document has the node's text as its content and the node's metadata as its own, each key in its place, so that
filters reach them and other users of the index can read them. Everything else of the node (relationships, excluded
keys, character positions, templates) is stored as one JSON text in `_node_content`. Images are stored as the core
stores them, under "image" and "thumbnail". A node's own metadata of these names are renamed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    RelatedNodeInfo,
    RelatedNodeType,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import ImageDocument as LlamaImageDocument

from late_interaction import Document
from late_interaction.adapting import (
    IMAGE_KEY,
    THUMBNAIL_KEY,
    Encodable,
    ImageSource,
    NamedImage,
    StoreImages,
    content_id,
    is_blank,
)
from late_interaction.metadata import check_metadata, dumps, loads, plain_value

PARENT = "ref_doc_id"
"""The metadata field with the id of a node's parent document; nodes without a parent lack it."""
PARENT_NAMES = (PARENT, "doc_id", "document_id")
"""The keys that filter by that id in LlamaIndex's stores."""

IMAGE_NAMES = (IMAGE_KEY, THUMBNAIL_KEY)
"""The metadata fields in which a node's image is stored."""

_CONTENT, _TYPE = "_node_content", "_node_type"
_HASH = "hash"
_OURS = (PARENT, _CONTENT, _TYPE, *IMAGE_NAMES)
_TAKEN = re.compile(rf"(metadata\.)*({'|'.join(_OURS)})")
_MOVED = "metadata."
_CLASSES: dict[str, type[BaseNode]] = {
    known.class_name(): known
    for known in (TextNode, ImageNode, IndexNode, Node, LlamaDocument, LlamaImageDocument)
}


def encodable_node(node: BaseNode, *, images: bool, store_images: StoreImages = "reference") -> Encodable:
    """Return a node as a document, and what to encode of it.

    Text is encoded with the metadata that the node shows to embedding models, and stored without it. A node that has
    neither is stored all the same, and no search finds it.

    Args:
        node: the node.
        images: encode nodes that have an image by the image rather than by their text.
        store_images: what the index stores of images.

    Raises:
        ValueError: there is an image that cannot be encoded, or that is in the node itself and would be lost.
    """
    image = _image_of(node)
    content = node.get_content(MetadataMode.NONE)
    _check_media(node, image, store_images)
    if image and images:
        document = _document(node, "" if is_blank(content) else content)
        return Encodable(document, image=image_source(node, store_images))
    if image and is_blank(content):
        raise ValueError(
            f"Node {node.node_id!r} is an image without text, and the store's model encodes text only. Give the "
            "node a text (a caption, the text of the page), or the store a model that encodes images."
        )
    text = node.get_content(MetadataMode.EMBED)
    if is_blank(text):
        return Encodable(_document(node, content))
    document = _document(node, text if is_blank(content) else content)
    return Encodable(document, image=image_source(node, store_images), text=text)


def encoded_text(document: Document) -> str | None:
    """Return the text that was encoded of a node's document; None where it is its content, or an image."""
    if document.content_type != "text" or not is_node(document.metadata):
        return None
    return node_of(document).get_content(MetadataMode.EMBED)


def with_ids_by_content(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """Return copies of nodes whose ids are made of their content and metadata, so that each run gives the same ids.

    The id of a node's source counts too, unless it is random, as LlamaIndex makes them: another in each run.
    Relationships among the nodes have the new ids. A node that cannot be stored keeps its id.
    """
    ids: dict[str, str] = {}
    for node in nodes:
        try:
            metadata = {stored_key(key): value for key, value in node.metadata.items()}
            if node.ref_doc_id is not None and not _is_random(node.ref_doc_id):
                metadata[PARENT] = node.ref_doc_id
            ids[node.node_id] = content_id(node.get_content(MetadataMode.NONE), metadata, image_source(node))
        except (TypeError, ValueError):  # It is refused when it is stored, and its reason is told there.
            ids[node.node_id] = node.node_id
    return [_renamed(node, ids) for node in nodes]


def _is_random(doc_id: str) -> bool:
    try:
        return uuid.UUID(doc_id).version == 4
    except ValueError:
        return False


def _renamed(node: BaseNode, ids: Mapping[str, str]) -> BaseNode:
    def renamed(info: RelatedNodeInfo) -> RelatedNodeInfo:
        return info.model_copy(update={"node_id": ids.get(info.node_id, info.node_id)})

    relationships = {
        kind: [renamed(one) for one in related] if isinstance(related, list) else renamed(related)
        for kind, related in node.relationships.items()
    }
    return node.model_copy(update={"id_": ids[node.node_id], "relationships": relationships})


def node_of(document: Document) -> BaseNode:
    """Return the node that a document was made from, or a new node for a document that others wrote."""
    if not is_node(document.metadata):
        return _node_like(document)
    metadata = {_given_key(key): value for key, value in document.metadata.items() if key not in _OURS}
    data: dict[str, Any] = loads(document.metadata[_CONTENT])
    data.pop(_HASH, None)
    holder = _text_holder(data)
    if holder is not None and "text" not in holder:
        holder["text"] = document.content
    _put_image_back(data, document.metadata)
    return _CLASSES[document.metadata[_TYPE]].from_dict({**data, "metadata": metadata})


def hash_of(document: Document) -> str:
    """Return the hash that a node had before its metadata took their plain form, by which LlamaIndex sees a change."""
    stored = loads(document.metadata[_CONTENT]).get(_HASH) if is_node(document.metadata) else None
    return stored or node_of(document).hash


def is_node(metadata: Mapping[str, Any]) -> bool:
    """Return whether stored metadata are those of a node, and not of a document that others wrote."""
    return _CONTENT in metadata


def stored_key(key: str) -> str:
    """Return the metadata field in which a node's metadata key is stored: the same, except for a few reserved keys."""
    return _MOVED + key if _TAKEN.fullmatch(key) else key


def _given_key(stored: str) -> str:
    return stored.removeprefix(_MOVED) if _TAKEN.fullmatch(stored) else stored


def _document(node: BaseNode, content: str) -> Document:
    data = _dumped(node)
    if node.ref_doc_id is None:
        data[_HASH] = node.hash
    if isinstance(node, Node):
        # A Document has its text here and in its text resource.
        data.pop("text", None)
    holder = _text_holder(data)
    if content and holder is not None and holder.get("text") == content:
        del holder["text"]
    stored = {stored_key(key): value for key, value in node.metadata.items()}
    if node.ref_doc_id is not None:
        stored[PARENT] = node.ref_doc_id
    ours = {_CONTENT: dumps(plain_value(data)), _TYPE: _class_name(node)}
    return Document(node.node_id, content, metadata=stored | ours)


def _dumped(node: BaseNode) -> dict[str, Any]:
    """Return a node as plain values, without the parts that are stored elsewhere."""
    try:
        related = {kind: _with_plain_metadata(others) for kind, others in node.relationships.items()}
        data = node.model_dump(mode="json", exclude={"embedding", "image", "metadata", "relationships"})
    except ValueError as error:
        raise ValueError(
            f"Node {node.node_id!r} holds something that cannot be stored: {error}. An IndexNode's object that is not "
            "a node must be kept by the index: VectorStoreIndex(objects=[…]) does so."
        ) from error
    data["relationships"] = related
    if isinstance(node, IndexNode) and isinstance(node.obj, BaseNode):
        # `from_dict` reads this form, which `model_dump` writes only since LlamaIndex 0.14.
        data["obj"] = {DATA_KEY: node.obj.model_dump(mode="json"), TYPE_KEY: node.obj.get_type()}
    return data


def _with_plain_metadata(related: RelatedNodeType) -> Any:
    """Return a node's relations, which have metadata of their own, as plain values."""
    if isinstance(related, list):
        return [_with_plain_metadata(one) for one in related]
    return {
        **related.model_dump(mode="json", exclude={"metadata"}),
        "metadata": check_metadata(related.metadata),
    }


def _class_name(node: BaseNode) -> str:
    """Return the name of LlamaIndex's class that a node's class is, or is derived from."""
    bases = type(node).__mro__
    return min(
        _CLASSES, key=lambda name: bases.index(_CLASSES[name]) if _CLASSES[name] in bases else len(bases)
    )


def _text_holder(data: dict[str, Any]) -> dict[str, Any] | None:
    """Return the part of a dumped node that holds its text."""
    holder: dict[str, Any] | None = data.get("text_resource", data)
    return holder


@dataclass(frozen=True, slots=True)
class _Image:
    """A node's image, as base64, a path, a URL, or several of these."""

    data: str | None
    path: str | None
    url: str | None

    @property
    def reference(self) -> str | None:
        return self.path or self.url


def _image_of(node: BaseNode) -> _Image | None:
    if isinstance(node, ImageNode):
        image = _Image(node.image or None, node.image_path or None, node.image_url or None)
    elif isinstance(node, Node) and (resource := node.image_resource) is not None:
        image = _Image(
            resource.data.decode() if resource.data else None,
            str(resource.path) if resource.path else None,
            str(resource.url) if resource.url else None,
        )
    else:
        return None
    return image if image.data or image.reference else None


def _check_media(node: BaseNode, image: _Image | None, store_images: StoreImages) -> None:
    """Raise a ValueError for a medium that is neither stored nor referred to, and so would be lost."""
    if image is not None and image.reference is None and store_images == "reference":
        raise ValueError(
            f"Node {node.node_id!r} carries an image as bytes, and this store keeps references to images. Save it "
            "as a file and give its path, for an ImageNode as image_path=, or make the store with "
            "store_images='full' or 'thumbnail'."
        )
    others = (node.audio_resource, node.video_resource) if isinstance(node, Node) else ()
    if any(other and other.data and not (other.path or other.url) for other in others):
        raise ValueError(
            f"Node {node.node_id!r} carries a medium as bytes. An index holds sound and video by reference: save "
            "it as a file and give its path."
        )


def image_source(node: BaseNode, store_images: StoreImages = "full") -> ImageSource | None:
    """Return a node's image as `load_image` and a pipeline take it, preferring bytes to a path, and a path to a URL.

    Args:
        node: the node.
        store_images: what the pipeline stores of images.

    Returns:
        The image, or None if the node has none.
    """
    if (image := _image_of(node)) is None:
        return None
    if image.data is None:
        return Path(image.path) if image.path else image.url
    uri = image.data if image.data.startswith("data:") else f"data:;base64,{image.data}"
    if image.reference is not None and store_images == "reference":
        return NamedImage(uri, image.reference)
    return uri


def _put_image_back(data: dict[str, Any], metadata: Mapping[str, Any]) -> None:
    """Put the stored image back into a dumped node, whole or as a thumbnail."""
    if (stored := _stored_image(metadata)) is None:
        return
    media_type, encoded = stored
    resource = data.get("image_resource")
    holder, key, kind = (
        (data, "image", "image_mimetype") if resource is None else (resource, "data", "mimetype")
    )
    holder[key] = encoded
    if holder.get(kind) is not None:
        holder[kind] = media_type


def _stored_image(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the media type and the base64 of a stored image, or None if only its path or URL is stored."""
    for key in (THUMBNAIL_KEY, IMAGE_KEY):
        uri = metadata.get(key)
        if isinstance(uri, str) and uri.startswith("data:") and ";base64," in uri:
            media_type, encoded = uri.removeprefix("data:").split(";base64,", 1)
            return media_type, encoded
    return None


def _node_like(document: Document) -> BaseNode:
    """Return a node for a document that others wrote."""
    if document.content_type != "image":
        return TextNode(id_=document.doc_id, text=document.content, metadata=dict(document.metadata))
    data: dict[str, Any] = {"id_": document.doc_id, "text": document.content}
    reference = document.metadata.get(IMAGE_KEY)
    if isinstance(reference, str) and not reference.startswith("data:"):
        is_url = re.match(r"https?://", reference, re.IGNORECASE) is not None
        data["image_url" if is_url else "image_path"] = reference
    _put_image_back(data, document.metadata)
    metadata = {key: value for key, value in document.metadata.items() if key not in IMAGE_NAMES}
    return ImageNode(**data, metadata=metadata)
