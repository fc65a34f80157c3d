"""LangChain's searches by words, and by words and vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField

from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
from tests.adapters.langchain.texts import ids
from tests.support.models import HashModel

TEXTS = {
    "pie": "apple pie with cinnamon",
    "sea": "the tide comes in at noon",
    "ship": "a ship leaves at high tide",
}
HYBRID: dict[str, Any] = {"mode": "hybrid", "lexical_weight": 0.9}


@pytest.fixture
def words(tmp_path: Path) -> Iterator[LateInteractionVectorStore]:
    with LateInteractionVectorStore(model=HashModel(), path=tmp_path) as store:
        store.add_texts(list(TEXTS.values()), ids=list(TEXTS))
        yield store


async def test_every_search_takes_a_mode(words: LateInteractionVectorStore) -> None:
    assert [d.id for d in words.similarity_search("tides", mode="lexical")] == ["sea", "ship"]
    assert [d.id for d in await words.asimilarity_search("tides", mode="lexical")] == ["sea", "ship"]
    (best, score), *_ = words.similarity_search_with_score("cinnamon", **HYBRID)
    assert best.id == "pie"
    assert 0.9 <= score <= 1
    assert (await words.asimilarity_search_with_score("cinnamon", **HYBRID))[0][1] == pytest.approx(score)
    assert len(words.max_marginal_relevance_search("tides", 2, **HYBRID)) == 2
    assert [d.id for d in words.max_marginal_relevance_search("tides", 2, mode="lexical")] == ["sea", "ship"]
    (vectors,) = HashModel().encode_queries(["cinnamon"])
    assert words.similarity_search_by_vector(vectors, 1, text="cinnamon", **HYBRID)[0].id == "pie"
    with pytest.raises(ValueError, match="text="):
        words.similarity_search_by_vector(vectors, 1, **HYBRID)
    with pytest.raises(TypeError, match="text"):
        words.similarity_search("tides", text="tides", **HYBRID)


@pytest.mark.parametrize("options", [HYBRID, {"mode": "lexical"}])
def test_relevance_is_from_0_to_1(words: LateInteractionVectorStore, options: dict[str, Any]) -> None:
    found = words.similarity_search_with_relevance_scores("cinnamon tides", k=3, **options)
    assert len(found) == 3
    assert all(0 <= score <= 1 for _, score in found)
    assert found[0][1] > 0.3
    over = words.similarity_search_with_relevance_scores("cinnamon", score_threshold=0.3, **options)
    assert [document.id for document, _ in over] == ["pie"]
    own = words.copy(relevance_score_fn=lambda score: 0.25)
    assert {score for _, score in own.similarity_search_with_relevance_scores("cinnamon", **options)} == {
        0.25
    }


@pytest.mark.parametrize("search_type", ["hybrid", "lexical"])
async def test_search_types_of_words(words: LateInteractionVectorStore, search_type: str) -> None:
    retriever = words.as_retriever(search_type=search_type, k=1)
    assert retriever.search_type == search_type
    own = LateInteractionRetriever(vectorstore=words, search_type=search_type, k=1)
    for one in (retriever, own):
        assert [document.id for document in one.invoke("cinnamon")] == ["pie"]
        assert [document.id for document in await one.ainvoke("cinnamon")] == ["pie"]
    assert words.search("cinnamon", search_type, k=1)[0].id == "pie"
    assert (await words.asearch("cinnamon", search_type, k=1))[0].id == "pie"
    with pytest.raises(ValueError, match="exclude each other"):
        words.as_retriever(search_type=search_type, mode="late")


@pytest.mark.parametrize("kind", [LateInteractionRetriever, LateInteractionVectorStore.as_retriever])
async def test_a_search_type_is_the_one_that_was_configured_last(
    words: LateInteractionVectorStore, kind: Any
) -> None:
    def retriever(search_type: str) -> Any:
        if kind is LateInteractionRetriever:
            return kind(vectorstore=words, search_type=search_type)
        return kind(words, search_type=search_type)

    for first in ("lexical", "hybrid", "similarity"):
        changing = retriever(first).configurable_fields(search_type=ConfigurableField(id="st"))
        for then in ("similarity", "lexical", "hybrid", "mmr"):
            asked = changing.with_config(configurable={"st": then})
            expected = ids(words.search("tides", then))
            assert ids(asked.invoke("tides")) == ids(await asked.ainvoke("tides")) == expected
    assert ids(words.search("tides", "lexical")) != ids(words.search("tides", "similarity"))
    one_call = retriever("hybrid").invoke("tides", mode="lexical")
    assert ids(one_call) == ids(words.search("tides", "lexical"))


def test_explanations_tell_of_words(words: LateInteractionVectorStore) -> None:
    weight = words.as_retriever(search_type="hybrid", lexical_weight=0.9, with_scores=True)
    assert weight.invoke("cinnamon")[0].metadata["score"] > 0.9
