"""What several of the tests use: a table of tokens, rows for it, and short forms of what a server answers."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from astrapy import AsyncDatabase, AsyncTable
from astrapy.api_options import APIOptions, SerdesOptions
from astrapy.data_types import DataAPIVector
from astrapy.exceptions import (
    DataAPIResponseException,
)
from astrapy.info import (
    CreateTableDefinition,
    TableVectorIndexOptions,
)

DIM = 8
TOKENS = {
    "columns": {
        "doc_id": "text",
        "token_id": "int",
        "lang": "text",
        "year": "int",
        "note": "text",
        "tags": {"type": "set", "valueType": "text"},
        "v": {"type": "vector", "dimension": DIM},
        "w": {"type": "vector", "dimension": DIM},
    },
    "primaryKey": {"partitionBy": ["doc_id"], "partitionSort": {"token_id": 1}},
}
Test = Callable[[dict[str, Any]], bool]
PLAIN_VALUES = APIOptions(serdes_options=SerdesOptions(custom_datatypes_in_reading=False))


# one server for the cases that change nothing; its fixtures and tests live on one loop
one_loop = pytest.mark.asyncio(loop_scope="module")
shared_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")


async def make_tokens(database: AsyncDatabase, metric: str = "dot_product") -> AsyncTable[dict[str, Any]]:
    """The table of tokens, with indexes on v, lang, year and tags but not on note, w and token_id."""
    table = await database.create_table("tokens", definition=CreateTableDefinition.coerce(TOKENS))
    await table.create_vector_index("tokens_v", "v", options=TableVectorIndexOptions(metric=metric))
    for column in ("lang", "year", "tags"):
        await table.create_index(f"tokens_{column}", column)
    return table


def rows(documents: int, per_document: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(documents * per_document, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        {
            "doc_id": f"d{position // per_document}",
            "token_id": position % per_document,
            "lang": ("en", "de", "fr")[position % 3],
            "year": 2000 + position % 7,
            "note": f"n{position % 2}",
            "tags": {("even", "odd")[position % 2]},
            "v": DataAPIVector(vector.tolist()),
        }
        for position, vector in enumerate(vectors)
    ]


SHARED_ROWS = rows(6, 20)


async def fails(action: Awaitable[Any]) -> str:
    """The code of the one error that an action meets."""
    with pytest.raises(DataAPIResponseException) as caught:
        await action
    (error,) = caught.value.error_descriptors
    assert error.title
    assert error.message
    server = error.scope == "DATABASE" or "SERVER_ERROR" in str(error.error_code)
    assert error.family == ("SERVER" if server else "REQUEST")
    return str(error.error_code)


async def raw(table: Any, command: str, body: dict[str, Any]) -> dict[str, Any]:
    """A reply as it stands on the wire."""
    reply = await table.command({command: body})
    assert isinstance(reply, dict)
    return reply


async def warnings_of(table: Any, **body: Any) -> list[str]:
    reply = await raw(table, "find", body)
    return [warning["errorCode"] for warning in reply["status"].get("warnings", [])]


def exact_similarities(
    metric: str, matrix: np.ndarray[Any, Any], query: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    scores: np.ndarray[Any, Any] = (1 + matrix @ query) / 2
    if metric == "cosine":
        scores = (1 + matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)) / 2
    elif metric == "euclidean":
        scores = 1 / (1 + ((matrix - query) ** 2).sum(axis=1))
    return scores
