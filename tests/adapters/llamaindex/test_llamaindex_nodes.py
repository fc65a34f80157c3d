"""What goes into the store comes out: nodes, and what is encoded of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument

from llamaindex_lateint import LateInteractionVectorStore
from llamaindex_lateint.nodes import encodable_node, node_of
from tests.adapters.llamaindex.asking import ask, ids
from tests.adapters.llamaindex.trees import trees

# --- nodes


MOMENT = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))


class OwnNode(TextNode):
    """Somebody's own kind of node."""


RELATED = {
    NodeRelationship.SOURCE: RelatedNodeInfo(
        node_id="book", node_type="4", metadata={"author": "Ada"}, hash="h"
    ),
    NodeRelationship.NEXT: RelatedNodeInfo(node_id="n2"),
    NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
}
KINDS: dict[str, BaseNode] = {
    "text": TextNode(
        id_="n",
        text="  the text, with its spaces \n",
        metadata={"a": {"b": [1, 2.5, None, True]}, "a.b": "dotted", "zß": "€", "empty": []},
        relationships=RELATED,
        excluded_embed_metadata_keys=["a"],
        excluded_llm_metadata_keys=["zß"],
        start_char_idx=3,
        end_char_idx=31,
        text_template="{content} {metadata_str}",
        metadata_seperator="; ",  # As 0.13 spells it, and 0.14 still reads it.
    ),
    "names that are ours": TextNode(
        id_="n",
        text="text",
        metadata={
            "ref_doc_id": "mine",
            "_node_content": "mine",
            "_node_type": 7,
            "metadata.ref_doc_id": "x",
            "metadata.metadata._node_type": "y",
            "doc_id": "d",
            "image": "i",
            "metadata.thumbnail": "t",
            "content": "c",
            "content_type": "image",
            "text": "t",
        },
        relationships=RELATED,
    ),
    "metadata only": TextNode(id_="n", text="", metadata={"title": "A title"}),
    "white space": TextNode(id_="n", text=" \n", metadata={"title": "A title"}),
    "index": IndexNode(id_="n", text="see there", index_id="there", metadata={"x": 1}),
    "index of a node": IndexNode(id_="n", text="see", index_id="i", obj=TextNode(id_="t", text="there")),
    "image with text": ImageNode(
        id_="n", text="A page.", image_path="pages/1.png", metadata={"page": 1}, relationships=RELATED
    ),
    "image at a URL": ImageNode(id_="n", text="A page.", image_url="https://example.org/1.png"),
    "multimodal": Node(
        id_="n",
        text_resource=MediaResource(text="A page."),
        image_resource=MediaResource(path="pages/1.png", mimetype="image/png"),
        metadata={"page": 1},
    ),
    "document": LlamaDocument(id_="n", text="All of it.", metadata={"lang": "en"}),
    "image document": ImageDocument(id_="n", text="A page.", metadata={"lang": "en"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_comes_back_as_it_was(store: LateInteractionVectorStore, kind: str) -> None:
    node = KINDS[kind]
    assert store.add([node]) == ["n"]
    (back,) = store.get_nodes(["n"])
    assert type(back) is type(node)
    assert back == node
    assert back.hash == node.hash
    assert list(back.metadata) == list(node.metadata)
    assert store.query(ask("anything")).nodes == [node]


def test_a_node_of_ones_own_class_comes_back_as_the_class_it_is_derived_from(
    store: LateInteractionVectorStore,
) -> None:
    store.add([OwnNode(id_="n", text="mine", metadata={"x": 1})])
    assert store.get_nodes() == [TextNode(id_="n", text="mine", metadata={"x": 1})]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.text() | st.from_regex(
    r"(metadata\.){0,2}(ref_doc_id|doc_id|_node_content|_node_type|text|image|thumbnail)", fullmatch=True
)


@pytest.mark.slow
@given(
    text=st.text(),
    metadata=st.dictionaries(keys, json_values, max_size=4),
    parent=st.none() | st.text(min_size=1),
)
def test_every_node_is_restored_from_what_is_stored(
    text: str, metadata: dict[str, Any], parent: str | None
) -> None:
    source = {} if parent is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=parent)}
    node = TextNode(text=text + "x", metadata=metadata, relationships=source, embedding=[0.0])
    back = node_of(encodable_node(node, images=False).document)
    assert back == node.model_copy(update={"embedding": None})


def test_metadata_of_a_node_and_of_its_relations_take_their_plain_form(
    store: LateInteractionVectorStore,
) -> None:
    rich: dict[str, Any] = {
        "n": np.int64(3),
        "at": MOMENT,
        "day": MOMENT.date(),
        "tags": ("a",),
        "x": float("nan"),
    }
    plain = {"n": 3, "at": MOMENT, "day": "2024-05-01", "tags": ["a"], "x": None}
    document = LlamaDocument(id_="book", text="One sentence. Another one.", metadata=rich)
    [node] = SentenceSplitter().get_nodes_from_documents([document])
    store.add([node, document])
    back, whole = store.get_nodes([node.node_id, "book"])
    assert back.metadata == whole.metadata == plain
    assert back.source_node == RelatedNodeInfo(
        node_id="book", node_type=node.source_node.node_type, metadata=plain, hash=document.hash
    )
    assert store.as_index().refresh_ref_docs([document]) == [False]
    store.delete_nodes([node.node_id])
    assert store.as_index().refresh_ref_docs([document]) == [False]


def test_metadata_for_embedding_are_encoded_and_not_stored_in_the_text(
    store: LateInteractionVectorStore,
) -> None:
    shown = TextNode(id_="shown", text="plain", metadata={"kind": "juniper"})
    hidden = TextNode(
        id_="hidden", text="plain", metadata={"kind": "juniper"}, excluded_embed_metadata_keys=["kind"]
    )
    store.add([hidden, shown])
    result = store.query(ask("juniper", 2))
    assert ids(result.nodes) == ["shown", "hidden"]
    assert [node.get_content() for node in result.nodes or ()] == ["plain", "plain"]


def test_documents_of_others_are_nodes_too(store: LateInteractionVectorStore) -> None:
    store.client.initialize()
    store.client.index_document({"doc_id": "d", "content": "written by the core", "year": 2001})
    assert store.get_nodes() == [TextNode(id_="d", text="written by the core", metadata={"year": 2001})]
    store.add([TextNode(id_="n", text="written by LlamaIndex", metadata={"year": 2002})])
    (found,) = store.client.find({"year": {"$gt": 2001}})
    assert (found.doc_id, found.content, found.metadata["year"]) == ("n", "written by LlamaIndex", 2002)


# --- images


def test_an_image_is_encoded_by_its_text_where_the_model_reads_text_only(
    store: LateInteractionVectorStore,
) -> None:
    page = ImageNode(id_="page", text="a chart of rainfall", image_path="pages/7.png")
    store.add([*trees(), page])
    (found,) = store.query(ask("rainfall chart", 1)).nodes or ()
    assert found == page


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            ImageNode(id_="bare", image_path="pages/7.png", metadata={"page": 7}),
            "'bare' is an image without text",
        ),
        (ImageNode(id_="bytes", text="a page", image="aGVsbG8="), "'bytes' carries an image as bytes"),
        (Node(id_="data", image_resource=MediaResource(data=b"hello")), "'data' carries an image as bytes"),
        (Node(id_="sound", audio_resource=MediaResource(data=b"hello")), "'sound' carries a medium as bytes"),
        (
            IndexNode(id_="pointer", text="see", index_id="i", obj=object()),
            "'pointer' holds something that cannot be stored",
        ),
    ],
)
async def test_what_cannot_be_encoded_is_refused_before_anything_is_stored(
    store: LateInteractionVectorStore, node: BaseNode, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.add([*trees(), node])
    with pytest.raises(ValueError, match=message):
        await store.async_add([*trees(), node])
    assert store.get_nodes() == []


def test_the_bytes_of_an_image_that_is_referred_to_are_not_stored(store: LateInteractionVectorStore) -> None:
    store.add([ImageNode(id_="page", text="a page", image="aGVsbG8=", image_path="pages/7.png")])
    assert store.get_nodes() == [ImageNode(id_="page", text="a page", image_path="pages/7.png")]
