"""The engines that every test of the LlamaIndex adapter runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from late_interaction import LateInteractionModel
from llamaindex_lateint import LateInteractionVectorStore
from tests.models import HashModel

MakeStore: TypeAlias = Callable[..., LateInteractionVectorStore]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Makes stores in one folder, and closes them."""
    made: list[LateInteractionVectorStore] = []

    def make(
        name: str = "nodes", model: LateInteractionModel | None = None, **options: object
    ) -> LateInteractionVectorStore:
        store = LateInteractionVectorStore(
            model=HashModel() if model is None else model, path=tmp_path, table_name=name, **options
        )
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> LateInteractionVectorStore:
    return make_store()
