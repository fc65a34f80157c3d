"""On a CPU the texts of a batch stand one behind the other, and have the vectors that they have in a padded batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from late_interaction import ColBERTModel
from tests.support.checkpoints import transformer_checkpoint
from tests.unit.text_encoders.models import BUILDERS

WORDS = "the cat and the dog search the wing of the flow of heat"
TEXTS = [WORDS, "wing", f"{WORDS}. {WORDS}. {WORDS}", "cat, dog", "the flow of heat", "dog, cat", "token"]
BEGINS = {"bos_token_id": 2, "eos_token_id": 3}
ONE_KEY = {"num_key_value_heads": 1, "head_dim": 16, **BEGINS}
TAKES_IT: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"max_position_embeddings": 66},  # positions begin behind the padding's
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "ModernBert": {
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 2,
        "sep_token_id": 3,
        **BEGINS,
    },
    "Qwen3": ONE_KEY,  # causal, with keys that heads share
}
TAKES_PADDED: dict[str, dict[str, Any]] = {
    "T5Encoder": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "Lfm2": {
        "num_key_value_heads": 1,
        "layer_types": ["conv", "full_attention"],
        **BEGINS,
    },  # mixes neighbours
}


def both(folder: Path) -> tuple[ColBERTModel, ColBERTModel]:
    """Return the model as it is by default, and one that pads."""
    return ColBERTModel(folder, device="cpu"), ColBERTModel(folder, device="cpu", attn_implementation="sdpa")


def built(folder: Path, name: str, options: dict[str, Any]) -> Path:
    config = getattr(transformers, f"{name.removesuffix('Encoder')}Config")
    return transformer_checkpoint(folder, getattr(transformers, f"{name}Model"), config, **options)


def without_padding(model: ColBERTModel) -> bool:
    features = model._encoder.preprocess(TEXTS[:2], task="document")
    return "attention_mask" not in features and len(features["input_ids"]) == 1


def assert_same_vectors(one: ColBERTModel, other: ColBERTModel) -> None:
    for role in ("documents", "queries"):
        encoded = [getattr(model, f"encode_{role}")(TEXTS) for model in (one, other)]
        for ours, padded in zip(*encoded, strict=True):
            np.testing.assert_allclose(ours, padded, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKES_IT)
def test_an_architecture_gives_the_same_vectors(tmp_path: Path, name: str) -> None:
    ours, padded = both(built(tmp_path, name, TAKES_IT[name]))
    assert without_padding(ours)
    assert not without_padding(padded)
    assert_same_vectors(ours, padded)


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_a_format_gives_the_same_vectors(folders: dict[str, Path], family: str) -> None:
    ours, padded = both(folders[family])
    assert without_padding(ours)
    assert_same_vectors(ours, padded)
    assert ours.fingerprint == padded.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKES_PADDED)
def test_an_architecture_that_would_give_other_vectors_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    ours, padded = both(built(tmp_path, name, TAKES_PADDED[name]))
    assert not without_padding(ours)
    assert ours._encoder[0].model.config._attn_implementation == "sdpa"
    assert_same_vectors(ours, padded)


@pytest.mark.slow
def test_a_query_with_expansion_is_padded(folders: dict[str, Path]) -> None:
    model = ColBERTModel(folders["stanford"], device="cpu")
    features = model._encoder.preprocess(["cat"], prompt="", task="query")
    assert features["input_ids"].shape == (1, 12)
    assert features["attention_mask"].sum() < 12


@pytest.mark.slow
def test_in_16_bits(folders: dict[str, Path]) -> None:
    model = ColBERTModel(folders["plain"], device="cpu", dtype="bfloat16")
    padded = ColBERTModel(folders["plain"], device="cpu", dtype="bfloat16", attn_implementation="sdpa")
    assert without_padding(model)
    for one, other in zip(model.encode_documents(TEXTS), padded.encode_documents(TEXTS), strict=True):
        assert (one * other).sum(axis=1).min() > 0.999
