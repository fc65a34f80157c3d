"""Our token matrices are those of PyLate and colbert-ai on the same weights, in every format.

What those libraries gave is in golden/parity.npz, which benchmarks/parity/make_golden.py writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import ColBERTModel, ModelError
from late_interaction.types import FloatMatrix
from tests.support import parity

ATOL = 1e-4
PAIRS = [(name, reference) for name, case in parity.CASES.items() for reference in case.references]


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    with np.load(parity.GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("parity")
    return {name: case.build(root / f"case-{i}") for i, (name, case) in enumerate(parity.CASES.items())}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, ColBERTModel]:
    # The references cut what is longer than they read.
    return {
        name: ColBERTModel(folder, device="cpu", long_documents="truncate")
        for name, folder in folders.items()
    }


def matrices(model: ColBERTModel) -> dict[str, FloatMatrix]:
    encoded = {
        "query": model.encode_queries(parity.QUERIES),
        "document": model.encode_documents(parity.DOCUMENTS),
    }
    return {f"{role}/{i}": matrix for role, found in encoded.items() for i, matrix in enumerate(found)}


@pytest.mark.slow
@pytest.mark.parametrize("name", parity.CASES)
def test_the_golden_matrices_belong_to_these_weights(
    golden: Mapping[str, np.ndarray], folders: dict[str, Path], name: str
) -> None:
    assert parity.weights_hash(folders[name]) == golden[f"{name}/weights"].item()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference"), PAIRS)
def test_matrices_are_those_of_the_reference(
    golden: Mapping[str, np.ndarray], models: dict[str, ColBERTModel], name: str, reference: str
) -> None:
    model = models[name]
    if (name, reference) == ("jina", "colbert-ai"):
        model = with_skiplist_of_colbert_ai(model)
    for text, matrix in matrices(model).items():
        expected = golden[f"{name}/{reference}/{text}"]
        assert matrix.shape == expected.shape, text
        np.testing.assert_allclose(matrix, expected, atol=ATOL, err_msg=text)


def with_skiplist_of_colbert_ai(model: ColBERTModel) -> ColBERTModel:
    """It skips the first piece of each mark on its own: with a SentencePiece vocabulary that can be the bare "▁".

    PyLate and sentence-transformers skip the marks themselves, and so do we.
    """
    other = ColBERTModel(model.model_name, device="cpu", long_documents="truncate")
    (mask,) = (module for module in other._encoder if hasattr(module, "skiplist_words"))
    first = {other._tokenizer.tokenize(mark)[0] for mark in mask.skiplist_words}
    assert first == {"▁"}
    mask.skiplist_words = list(first)
    mask.resolve_with_tokenizer(other._tokenizer)
    return other


# sentence-transformers' own format has no place for a marker behind the first token.
TEXT_MARKERS = [name for name in parity.CASES if "BOS" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXT_MARKERS)
def test_saved_by_sentence_transformers_it_gives_the_same(
    models: dict[str, ColBERTModel], tmp_path: Path, name: str
) -> None:
    models[name]._encoder.save_pretrained(str(tmp_path / "native"), create_model_card=False)
    native = ColBERTModel(tmp_path / "native", device="cpu", long_documents="truncate")
    assert native.family == "multi-vector"
    assert (native.query_length, native.document_length) == (
        models[name].query_length,
        models[name].document_length,
    )
    expected = matrices(models[name])
    for text, matrix in matrices(native).items():
        assert matrix.shape == expected[text].shape, text
        np.testing.assert_allclose(matrix, expected[text], atol=1e-6, err_msg=text)


# --- published checkpoints --------------------------------------------------------------------------------

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


@pytest.mark.hub
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_give_their_published_values(name: str) -> None:
    try:
        model = ColBERTModel(name, device="cpu", long_documents="truncate")
    except ModelError as error:
        if "downloading it from the Hugging Face Hub failed" not in str(error):
            raise
        pytest.skip("the Hugging Face hub is out of reach")
    published = PUBLISHED[name]
    assert model.dim == published["dim"]
    (document,), (query,) = model.encode_documents(["Hello World"]), model.encode_queries(["Hello World"])
    assert document.shape == (5, model.dim)
    assert query.shape == (32, model.dim)
    np.testing.assert_allclose(document[:, :5], published["document"], atol=2e-3)
    np.testing.assert_allclose(query[:5, :5], published["query"], atol=2e-3)
    np.testing.assert_allclose(query[-1, :5], published["last"], atol=2e-3)
