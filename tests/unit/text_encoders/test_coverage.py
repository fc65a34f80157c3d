"""Published layouts beyond the common ones: bge-m3, X-MOD, jina-colbert-v2, and those that nothing here encodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import ColBERTModel, ColPaliModel, ModelError, SyncPipeline, load_model
from late_interaction.encoders.checkpoint import _OF_THEIR_OWN_CODE
from tests.support import checkpoints

TEXTS = ["hello world", "the cat, the dog"]
DOCS = Path(__file__).resolve().parents[3] / "docs" / "encoders.md"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
def test_bge_m3_is_encoded_by_its_colbert_head(tmp_path: Path, cache: None) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = checkpoints.bge_checkpoint(tmp_path / "bge-m3")
    with pytest.raises(ModelError, match=r"pickle.*allow_pickle=True"):
        ColBERTModel(folder, device="cpu")
    model = load_model(folder, device="cpu", allow_pickle=True)
    assert isinstance(model, ColBERTModel)
    assert model.family == model.fingerprint["family"] == "bge-m3"

    # As FlagEmbedding computes it: every token but the first, those of padding left out, projected and normalised.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    converted = next((tmp_path / "cache" / "late-interaction" / "converted").iterdir())
    backbone = AutoModel.from_pretrained(converted).eval()
    head = torch.load(folder / "colbert_linear.pt", weights_only=True)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = backbone(**inputs).last_hidden_state[:, 1:]
    projected = torch.nn.functional.normalize(hidden @ head["weight"].T + head["bias"], dim=-1)
    for encode in (model.encode_queries, model.encode_documents):
        for ours, theirs, mask in zip(
            encode(TEXTS), projected, inputs["attention_mask"][:, 1:].bool(), strict=True
        ):
            np.testing.assert_allclose(ours, theirs[mask].numpy(), atol=1e-5)
    assert len(model.document_spans(TEXTS[0])) == len(model.encode_documents(TEXTS[:1])[0])


def test_bge_m3_without_its_head_in_safetensors_says_what_to_do(tmp_path: Path) -> None:
    folder = checkpoints.plain_checkpoint(tmp_path / "bge", sentence_transformers=False)
    (folder / "colbert_linear.pt").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"colbert_linear.pt.*late-interaction convert"):
        ColBERTModel(folder, device="cpu")


@pytest.mark.slow
def test_the_language_of_an_x_mod_can_be_given(tmp_path: Path) -> None:
    folder = checkpoints.xmod_checkpoint(tmp_path / "xmod")
    with pytest.raises(ModelError, match="names no default language: give language=, one of en_XX, fr_XX"):
        ColBERTModel(folder, device="cpu")
    with pytest.raises(ModelError, match="has no language 'de_DE': give language=, one of en_XX, fr_XX"):
        ColBERTModel(folder, device="cpu", language="de_DE")
    french, english = (ColBERTModel(folder, device="cpu", language=name) for name in ("fr_XX", "en_XX"))
    assert (french.fingerprint["language"], english.fingerprint["language"]) == ("fr_XX", "en_XX")
    (ours,), (other,) = (model.encode_documents(TEXTS[:1]) for model in (french, english))
    assert np.abs(ours - other).max() > 0.01
    with SyncPipeline(tmp_path / "index", french) as index:
        index.index_documents([{"content": text} for text in TEXTS])
    import late_interaction

    with late_interaction.open(tmp_path / "index", model=folder, device="cpu") as index:
        assert index.search(TEXTS[0], k=1)[0].content == TEXTS[0]


@pytest.mark.slow
def test_an_x_mod_with_a_default_language_needs_none(tmp_path: Path) -> None:
    folder = checkpoints.xmod_checkpoint(tmp_path / "xmod", default_language="en_XX")
    model = ColBERTModel(folder, device="cpu")
    assert "language" not in model.fingerprint
    given = ColBERTModel(folder, device="cpu", language="en_XX")
    np.testing.assert_array_equal(model.encode_documents(TEXTS)[0], given.encode_documents(TEXTS)[0])


def test_a_language_for_another_model_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="language='fr_XX' is for X-MOD models"):
        ColBERTModel(folders["stanford"], device="cpu", language="fr_XX")


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["JinaEmbeddingsV4Model"], "model_type": "qwen2_5_vl", "vision_config": {}},
        {"architectures": ["llama_NemoRetrieverColEmbed"], "model_type": "llama_nemoretrievercolembed"},
        {
            "architectures": ["Qwen3VLNemotronEmbedModel"],
            "model_type": "qwen3_vl_nemotron_embed",
            "vision_config": {},
        },
        {"architectures": ["ColQwen3"], "model_type": "colqwen3", "vision_config": {}},
        {"architectures": ["OpsColQwen3Model"], "model_type": "ops_colqwen3", "vision_config": {}},
        {"architectures": ["ColQwen2_5Omni"], "model_type": "qwen2_5_omni", "thinker_config": {}},
    ],
)
def test_what_only_its_authors_code_encodes_is_refused_with_what_can_be_done(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Model"}}))
    for load in (load_model, ColBERTModel, ColPaliModel):
        with pytest.raises(ModelError, match=r"trust_remote_code=True.*subclass of LateInteractionModel"):
            load(folder, device="cpu")


def test_the_docs_name_each_of_them() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for reason in _OF_THEIR_OWN_CODE.values():
        assert reason.split(" ")[0].lower() in text.lower()
