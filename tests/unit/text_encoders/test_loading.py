"""Checkpoints that cannot be loaded, and a hub that is out of reach."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from late_interaction import ModelError
from late_interaction.encoders import ColBERTModel
from tests.support import checkpoints
from tests.unit.text_encoders.models import BUILDERS, TEXTS


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "damage", "message"),
    [
        ("stanford", lambda f: shutil.rmtree(f) or f.mkdir(), "holds no model"),
        ("stanford", lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        ("stanford", lambda f: (f / "model.safetensors").write_bytes(b"no"), "model.safetensors is damaged"),
        ("stanford", lambda f: (f / "model.safetensors").unlink(), "has no weights in model.safetensors"),
        (
            "stanford",
            lambda f: drop_weights(f, "linear.weight"),
            "have no linear.weight, which is the projection",
        ),
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
