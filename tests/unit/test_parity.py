"""Our token matrices are those of PyLate and colbert-ai on the same weights, in every format.

What those libraries gave is in golden/parity.npz, which benchmarks/parity/make_golden.py writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from late_interaction import ColBERTModel
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
