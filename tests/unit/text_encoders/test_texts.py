"""Lengths, texts that cannot be encoded, fingerprints, dtypes and backends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction.encoders import ColBERTModel
from tests.support import checkpoints
from tests.unit.text_encoders.models import BUILDERS, TEXTS, WITH_MARKERS, token_ids

# --- lengths


@pytest.mark.parametrize("family", BUILDERS)
def test_document_length_truncates(folders: dict[str, Path], family: str) -> None:
    model = ColBERTModel(folders[family], device="cpu", document_length=9, long_documents="truncate")
    dropped = 2 if family == "plain" else 0
    assert len(model.encode_documents(["cat " * 30])[0]) == model.document_length - dropped == 9 - dropped
    assert len(model.encode_documents(["cat"])[0]) == token_count(model, "cat") - dropped


def token_count(model: ColBERTModel, text: str) -> int:
    return len(token_ids(model, text, "document"))


@pytest.mark.slow
@pytest.mark.parametrize("family", WITH_MARKERS)
@pytest.mark.parametrize("length", [6, 20])
def test_query_length_moves_the_expansion(folders: dict[str, Path], family: str, length: int) -> None:
    model = ColBERTModel(folders[family], device="cpu", query_length=length)
    assert [len(matrix) for matrix in model.encode_queries(["cat", "cat " * 50])] == [length, length]
    assert model.fingerprint["query_expansion"]["length"] == model.query_length == length


@pytest.mark.parametrize(("length", "shortest"), [(6, 6), (20, 10)])
def test_query_length_is_the_ceiling_of_a_minimal_expansion(
    tmp_path: Path, length: int, shortest: int
) -> None:
    folder = checkpoints.native_checkpoint(tmp_path, query_expansion={"strategy": "min", "length": 10})
    model = ColBERTModel(folder, device="cpu", query_length=length)
    assert [len(matrix) for matrix in model.encode_queries(["cat", "cat " * 50])] == [shortest, length]


@pytest.mark.parametrize("family", ["multi-vector", "plain"])
def test_query_length_truncates_where_there_is_no_expansion(folders: dict[str, Path], family: str) -> None:
    model = ColBERTModel(folders[family], device="cpu", query_length=8)
    dropped = 2 if family == "plain" else 0
    assert len(model.encode_queries(["cat " * 50])[0]) == 8 - dropped
    assert len(model.encode_documents(["cat " * 10])[0]) == 12 - dropped


@pytest.mark.parametrize("argument", ["query_length", "document_length"])
@pytest.mark.parametrize("length", [-1, 0, 3, checkpoints.POSITIONS + 1])
def test_a_length_that_cannot_be_is_refused(folders: dict[str, Path], argument: str, length: int) -> None:
    with pytest.raises(ValueError, match=f"{argument}={length} .* at least 4, .* at most 64"):
        ColBERTModel(folders["stanford"], device="cpu", **{argument: length})


@pytest.mark.parametrize("family", BUILDERS)
def test_count_truncated_is_what_encoding_drops(folders: dict[str, Path], family: str) -> None:
    model = ColBERTModel(folders[family], device="cpu", document_length=9, long_documents="truncate")
    texts = ["cat " * n for n in range(1, 12)] + ["hello" * 8, "zz" * 5, "가나", "."]
    whole = ColBERTModel(folders[family], device="cpu", document_length=checkpoints.POSITIONS)
    lost = [token_count(whole, text) > token_count(model, text) for text in texts]
    assert True in lost
    assert False in lost
    assert [model.count_truncated([text]) for text in texts] == [int(cut) for cut in lost]
    assert model.count_truncated(texts) == sum(lost)


@pytest.mark.parametrize("family", BUILDERS)
def test_queries_that_are_cut_are_counted_too(folders: dict[str, Path], family: str) -> None:
    model = ColBERTModel(folders[family], device="cpu", query_length=9)
    texts = ["cat " * n for n in range(1, 12)]
    (longest,) = model.encode_queries([texts[-1]])
    cut = [n for n, text in enumerate(texts) if model.count_truncated([text], "query")]
    assert 0 not in cut
    for n, matrix in enumerate(model.encode_queries(texts)):
        same = matrix.shape == longest.shape and np.allclose(matrix, longest, atol=1e-4)
        assert n not in cut or same
    assert model.count_truncated(texts, "query") == len(cut) > 0
    assert model.count_truncated(texts) < len(cut)


# --- wrong texts


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("text", ["", "  ", "\n\t "])
def test_an_empty_text_is_named_by_its_position(
    models: dict[str, ColBERTModel], role: str, text: str
) -> None:
    model = models["stanford"]
    encode = model.encode_queries if role == "query" else model.encode_documents
    with pytest.raises(ValueError, match=f"The {role} at position 1 is empty or only white space"):
        encode(["cat", text, "dog"])


def test_a_bare_str_or_another_type_is_refused(models: dict[str, ColBERTModel]) -> None:
    with pytest.raises(TypeError, match=r"list of queries, not a bare str: \['hello'\]"):
        models["plain"].encode_queries("hello")
    with pytest.raises(TypeError, match="document at position 1 is not a str but int"):
        models["plain"].encode_documents(["cat", 3])  # type: ignore[list-item]


def test_half_a_surrogate_pair_is_refused(models: dict[str, ColBERTModel]) -> None:
    with pytest.raises(ValueError, match="document at position 1 is not valid Unicode"):
        models["plain"].encode_documents(["cat", "caf\udce9"])


def test_a_text_without_any_token_is_refused(models: dict[str, ColBERTModel]) -> None:
    with pytest.raises(ValueError, match=r"document at position 1, .* has no token"):
        models["plain"].encode_documents(["cat", "\u200b"])
    assert len(models["stanford"].encode_documents(["\u200b"])[0]) == 3


# --- fingerprints


@pytest.mark.parametrize("family", BUILDERS)
def test_a_fingerprint_is_json_and_repeats(
    folders: dict[str, Path], models: dict[str, ColBERTModel], family: str
) -> None:
    fingerprint = models[family].fingerprint
    again = ColBERTModel(folders[family], device="cpu", dtype="float32", batch_tokens=2).fingerprint
    assert json.loads(json.dumps(fingerprint)) == again


@pytest.mark.parametrize("family", BUILDERS)
def test_a_fingerprint_survives_a_move(
    folders: dict[str, Path], models: dict[str, ColBERTModel], tmp_path: Path, family: str
) -> None:
    moved = tmp_path / "elsewhere" / folders[family].name
    shutil.copytree(folders[family], moved)
    (moved / "README.md").write_text("A better model card.")
    assert ColBERTModel(moved, device="cpu").fingerprint == models[family].fingerprint


@pytest.mark.slow
def test_a_fingerprint_tells_settings_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    builders = {
        "weights": lambda path: checkpoints.stanford_checkpoint(path, seed=1),
        "attention": lambda path: checkpoints.stanford_checkpoint(path, attend_to_mask_tokens=True),
        "skiplist": lambda path: checkpoints.stanford_checkpoint(path, mask_punctuation=False),
    }
    fingerprints = [
        ColBERTModel(folders["stanford"], device="cpu", **options).fingerprint
        for options in ({}, {"query_length": 13}, {"document_length": 13})
    ]
    for name, build in builders.items():
        folder = build(tmp_path / name / "stanford")
        fingerprints.append(ColBERTModel(folder, device="cpu").fingerprint)
    assert {fingerprint["model"] for fingerprint in fingerprints} == {"stanford"}
    assert len({json.dumps(fingerprint) for fingerprint in fingerprints}) == len(fingerprints)


# --- dtypes and backends


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.02), ("bfloat16", 0.1)])
def test_half_precision_gives_unit_float32_vectors(
    folders: dict[str, Path], models: dict[str, ColBERTModel], dtype: str, tolerance: float
) -> None:
    import torch

    by_name = ColBERTModel(folders["stanford"], device="cpu", dtype=dtype)
    by_dtype = ColBERTModel(folders["stanford"], device="cpu", dtype=getattr(torch, dtype))
    assert {p.dtype for p in by_name._encoder.parameters()} == {getattr(torch, dtype)}
    (half,), (same,), (whole,) = (
        model.encode_documents(["the cat"]) for model in (by_name, by_dtype, models["stanford"])
    )
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, same)
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=1e-6)
    assert 0 < np.abs(half - whole).max() < tolerance


def test_a_half_precision_checkpoint_computes_in_float32_on_a_cpu(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    folder = checkpoints.plain_checkpoint(tmp_path / "half", sentence_transformers=False)
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    model = ColBERTModel(folder, device="cpu")
    assert {p.dtype for p in model._encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be auto or one of float32, float16, bfloat16, not 'int8'"),
        ({"dtype": "float16", "backend": "openvino"}, "dtype is for the torch backend"),
        ({"backend": "jax"}, "backend must be one of torch, onnx, openvino, not 'jax'"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"revision": "main"}, "revision='main' is for models on the hub"),
    ],
)
def test_a_wrong_argument_is_a_value_error(
    folders: dict[str, Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ColBERTModel(folders["stanford"], **options)


@pytest.mark.parametrize("family", BUILDERS)
def test_openvino_gives_what_torch_gives(
    folders: dict[str, Path], models: dict[str, ColBERTModel], family: str
) -> None:
    pytest.importorskip("optimum.intel", reason="needs sentence-transformers[openvino]")
    exported = ColBERTModel(folders[family], device="cpu", backend="openvino")
    assert exported.fingerprint == models[family].fingerprint
    for encode, reference in (
        (exported.encode_queries, models[family].encode_queries),
        (exported.encode_documents, models[family].encode_documents),
    ):
        for matrix, expected in zip(encode(TEXTS), reference(TEXTS), strict=True):
            np.testing.assert_allclose(matrix, expected, atol=0.1)  # it may choose to compute in bfloat16
