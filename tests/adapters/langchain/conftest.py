"""What the tests of the LangChain adapter share."""

from __future__ import annotations

import pytest

from langchain_lateint import LateInteractionVectorStore
from tests.adapters.langchain.stores import METADATAS
from tests.adapters.langchain.texts import IDS, TEXTS


@pytest.fixture
def filled(store: LateInteractionVectorStore) -> LateInteractionVectorStore:
    store.add_texts(TEXTS, METADATAS, ids=IDS)
    return store
