"""What only the end of a long document says is found through both frameworks, and ranked by their rerankers."""

from pathlib import Path

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from langchain_lateint import LateInteractionReranker
from langchain_lateint import LateInteractionVectorStore as LangChainStore
from late_interaction import ColBERTModel
from llamaindex_lateint import LateInteractionRerank
from llamaindex_lateint import LateInteractionVectorStore as LlamaIndexStore

pytestmark = pytest.mark.slow

FILLER = "The committee met on Tuesday and adopted the minutes of its last meeting. " * 40
ANSWER = "Saffron crocuses flower in October near Isfahan."
QUERY = "When do saffron crocuses flower?"
TEXTS = [FILLER + "Nothing else was said.", FILLER + ANSWER, FILLER]


def test_langchain(minilm: ColBERTModel, tmp_path: Path) -> None:
    with LangChainStore(model=minilm, path=tmp_path) as store:
        ids = store.add_texts(TEXTS, ids=["a", "b", "c"])
        assert ids.truncated == {}
        assert [document.id for document in store.similarity_search(QUERY, k=1)] == ["b"]
    ranked = LateInteractionReranker(model=minilm, top_n=1).compress_documents(
        [Document(text) for text in TEXTS], QUERY
    )
    assert [document.page_content for document in ranked] == [TEXTS[1]]


def test_llamaindex(minilm: ColBERTModel, tmp_path: Path) -> None:
    nodes = [TextNode(id_=name, text=text) for name, text in zip("abc", TEXTS, strict=True)]
    with LlamaIndexStore(model=minilm, path=tmp_path) as store:
        assert store.add(nodes).truncated == {}
        assert [
            found.node_id for found in store.as_index().as_retriever(similarity_top_k=1).retrieve(QUERY)
        ] == ["b"]
    reranker = LateInteractionRerank(model=minilm, top_n=1)
    ranked = reranker.postprocess_nodes([NodeWithScore(node=node) for node in nodes], QueryBundle(QUERY))
    assert [found.node.node_id for found in ranked] == ["b"]
