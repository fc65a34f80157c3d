"""Published checkpoints give their published values. Needs the Hugging Face hub: `uv run --with pyarrow pytest -m hub`.

Each table names its source. A test skips itself where the hub is out of reach.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest

from late_interaction import ColBERTModel, ColPaliModel, ModelError
from late_interaction.maxsim import maxsim

pytestmark = [pytest.mark.hub, pytest.mark.slow]

T = TypeVar("T")

# "Hello World", the first five of each vector's numbers, abridged to the rows of its own tokens, as fastembed's
# tests have them, with their tolerance (Apache-2.0; qdrant/fastembed, tests/test_late_interaction_embeddings.py
# at commit f776588). The query's other rows are those of its [MASK] tokens, of which the last one is given.
PUBLISHED: dict[str, dict[str, Any]] = {
    "answerdotai/answerai-colbert-small-v1": {
        "dim": 96,
        "document": [
            [-0.07281, 0.04632, -0.04711, 0.00762, -0.07374],
            [-0.04464, 0.04426, -0.074, 0.01801, -0.05233],
            [0.09936, -0.05123, -0.04925, -0.05276, -0.08944],
            [0.01644, 0.0203, -0.03789, 0.03165, -0.06501],
            [-0.07281, 0.04633, -0.04711, 0.00762, -0.07374],
        ],
        "query": [
            [-0.07284, 0.04657, -0.04746, 0.00786, -0.07342],
            [-0.0473, 0.04615, -0.07551, 0.01591, -0.0517],
            [0.09658, -0.0506, -0.04593, -0.05225, -0.09086],
            [0.01815, 0.0165, -0.03366, 0.03214, -0.07019],
            [-0.07284, 0.04657, -0.04746, 0.00787, -0.07342],
        ],
        "last": [-0.03473, 0.04792, -0.07033, 0.02196, -0.05314],
    },
    "colbert-ir/colbertv2.0": {
        "dim": 128,
        "document": [
            [0.0759, 0.0841, -0.0299, 0.0374, 0.0254],
            [0.0005, -0.0163, -0.0127, 0.2165, 0.1517],
            [-0.0257, -0.0575, 0.0135, 0.2202, 0.1896],
            [0.0846, 0.0122, 0.0032, -0.0109, -0.1041],
            [0.0477, 0.1078, -0.0314, 0.016, 0.0156],
        ],
        "query": [
            [0.0824, 0.0872, -0.0324, 0.0418, 0.024],
            [-0.0007, -0.0154, -0.0113, 0.2277, 0.1528],
            [-0.0251, -0.0565, 0.0136, 0.2236, 0.1838],
            [0.0848, 0.0056, 0.0041, -0.0036, -0.1032],
            [0.0574, 0.1072, -0.0332, 0.0233, 0.0209],
        ],
        "last": [0.1043, 0.0231, -0.0144, -0.0246, -0.067],
    },
}

# MaxSim of one query and four documents in float32, as PyLate gives it: the table by which sentence-transformers
# tests itself (Apache-2.0; huggingface/sentence-transformers, tests/multi_vector_encoder/test_pretrained.py at commit
# 164da7d), with its tolerance.
QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
SCORES = {
    "answerdotai/answerai-colbert-small-v1": [30.56916, 31.48954, 31.30291, 31.30716],
    "colbert-ir/colbertv2.0": [12.79703, 27.19449, 23.8495, 24.56564],
    "lightonai/Reason-ModernColBERT": [9.05118, 10.18419, 9.12381, 9.39101],
}

# Of 50 queries on NanoClimateFEVER, the share with a relevant document among the first 1, 5 and 10, as PyLate measured
# it for the model card (https://huggingface.co/lightonai/GTE-ModernColBERT-v1, "Nano Climate FEVER"). No test of a
# library has numbers of this checkpoint's vectors.
ACCURACY = {"lightonai/GTE-ModernColBERT-v1": {1: 0.36, 5: 0.78, 10: 0.86}}
NANO = "zeta-alpha-ai/NanoClimateFEVER"

# MaxSim of three queries and three pages, as colpali-engine 0.3.8 gives it on an L4 in bfloat16: the table by which
# transformers tested its port (Apache-2.0; huggingface/transformers, tests/models/colqwen2/test_modeling_colqwen2.py
# at commit 055eb5e). Another GPU moves a score by up to 0.13 there.
PAGES = "hf-internal-testing/document-visual-retrieval-test"
PAGE_SCORES = {
    "vidore/colqwen2-v1.0": [[16.25, 7.9062, 14.625], [9.5, 17.375, 10.5625], [15.0625, 10.875, 20.125]]
}


def from_hub(load: Callable[[], T]) -> T:
    """Return what is loaded from the hub, or skip the test where the hub is out of reach."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return load()
    except ModelError as error:
        if "is not in the cache" not in str(
            error
        ):  # A wrong name or a gated model is a failure, not a reason to skip.
            raise
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError):
        pass
    pytest.skip("the Hugging Face hub is out of reach")


def table(dataset: str, part: str = "") -> list[dict[str, Any]]:
    """Return the rows of a data set on the hub whose Parquet files begin with a name."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow: uv run --with pyarrow")
    from huggingface_hub import snapshot_download

    folder = from_hub(lambda: snapshot_download(dataset, repo_type="dataset", allow_patterns="*.parquet"))
    files = sorted(path for path in Path(folder).rglob("*.parquet") if path.match(f"{part}*/*.parquet"))
    assert files, f"{dataset} has no Parquet files of {part!r}"
    return [row for path in files for row in parquet.read_table(path).to_pylist()]


def text_model(name: str) -> ColBERTModel:
    return from_hub(lambda: ColBERTModel(name, dtype="float32", long_documents="truncate"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_vectors_are_those_published(name: str) -> None:
    model, published = text_model(name), PUBLISHED[name]
    assert model.dim == published["dim"]
    (document,), (query,) = model.encode_documents(["Hello World"]), model.encode_queries(["Hello World"])
    assert document.shape == (5, model.dim)
    assert query.shape == (32, model.dim)
    np.testing.assert_allclose(document[:, :5], published["document"], atol=2e-3)
    np.testing.assert_allclose(query[:5, :5], published["query"], atol=2e-3)
    np.testing.assert_allclose(query[-1, :5], published["last"], atol=2e-3)


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_published(name: str) -> None:
    model = text_model(name)
    scores = maxsim(model.encode_queries([QUERY])[0], model.encode_documents(DOCUMENTS))
    np.testing.assert_allclose(scores, SCORES[name], rtol=1e-3, atol=1e-3)


def accuracy(
    model: ColBERTModel, corpus: list[Any], queries: list[Any], qrels: list[Any]
) -> dict[int, float]:
    """Return the share of queries with a relevant document among the first 1, 5 and 10, scored exactly."""
    ids = np.array([row["_id"] for row in corpus])
    matrices = model.encode_documents([row["text"] for row in corpus])
    relevant: dict[str, set[str]] = {}
    for row in qrels:
        relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
    firsts = []
    encoded = model.encode_queries([row["text"] for row in queries])
    for row, query in zip(queries, encoded, strict=True):
        order = ids[np.argsort(-maxsim(query, matrices), kind="stable")[:10]]
        hits = np.isin(order, list(relevant[row["_id"]])).nonzero()[0]
        firsts.append(hits[0] if len(hits) else 10)
    return {k: float(np.mean(np.array(firsts) < k)) for k in (1, 5, 10)}


@pytest.mark.parametrize("name", ACCURACY)
def test_accuracy_is_that_published(name: str) -> None:
    corpus, queries, qrels = (table(NANO, part) for part in ("corpus", "queries", "qrels"))
    reached = accuracy(text_model(name), corpus, queries, qrels)
    assert reached == pytest.approx(ACCURACY[name], abs=0.021)  # One query of 50 may fall on the other side.


@pytest.mark.parametrize("name", PAGE_SCORES)
def test_scores_of_pages_are_those_published(name: str) -> None:
    rows = table(PAGES)
    model = from_hub(lambda: ColPaliModel(name, dtype="bfloat16"))
    from PIL import Image

    pages = model.encode_documents([Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows])
    scores = np.stack(
        [maxsim(query, pages) for query in model.encode_queries([row["query"] for row in rows])]
    )
    np.testing.assert_allclose(scores, PAGE_SCORES[name], atol=0.25)
