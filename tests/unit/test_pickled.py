"""Weights in a pickle: refused with the way in, and read as tensors and nothing else."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from late_interaction import ColBERTModel, ColPaliModel, ModelError
from tests.support import checkpoints, commands, visual_checkpoints

TEXTS = ["hello world", "the flow of heat, the wing."]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "late-interaction" / "converted"


def shard(folder: Path) -> None:
    """Pickle the weights as large models have them: in two files, and an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = {name: f"pytorch_model-0000{1 + (i % 2)}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: weights[name] for name in names if files[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "spoil"),
    [
        (checkpoints.stanford_checkpoint, checkpoints.pickle_weights),
        (checkpoints.pylate_checkpoint, lambda folder: checkpoints.pickle_weights(folder / "1_Dense")),
        (checkpoints.pylate_checkpoint, checkpoints.pickle_weights),
        (checkpoints.plain_checkpoint, checkpoints.pickle_weights),
        (checkpoints.plain_checkpoint, shard),
    ],
)
def test_they_give_the_same_vectors(
    tmp_path: Path, cache: Path, build: Callable[[Path], Path], spoil: Callable[[Path], None]
) -> None:
    folder = build(tmp_path / "model")
    before = ColBERTModel(folder, device="cpu")
    expected = before.encode_documents(TEXTS)
    spoil(folder)
    files = sorted(folder.rglob("*"))
    with pytest.raises(
        ModelError, match=r"late-interaction convert NAME FOLDER.*allow_pickle=True.*refs/pr/"
    ):
        ColBERTModel(folder, device="cpu")

    model = ColBERTModel(folder, device="cpu", allow_pickle=True)
    np.testing.assert_array_equal(model.encode_documents(TEXTS)[0], expected[0])
    assert model.model_name == str(folder)
    assert model.fingerprint["model"] == "model"
    assert sorted(folder.rglob("*")) == files

    assert commands.run("convert", folder, tmp_path / "out").exit_code == 0
    written = ColBERTModel(tmp_path / "out", device="cpu")
    np.testing.assert_array_equal(written.encode_documents(TEXTS)[1], expected[1])
    assert written.fingerprint["content"] == model.fingerprint["content"]
    assert not [*(tmp_path / "out").rglob("*.bin*")]

    ColBERTModel(folder, device="cpu", allow_pickle=True)
    assert len([*cache.iterdir()]) == 1  # made once


@pytest.mark.slow
def test_a_visual_adapters_too(tmp_path: Path) -> None:
    from tests.unit.visual_encoders.models import TEXTS as VISUAL_TEXTS

    base = visual_checkpoints.visual_checkpoint(tmp_path / "base", "colpali")
    folder = visual_checkpoints.adapter_checkpoint(
        tmp_path / "adapter", base, "colpali", target_modules=r".*language_model.*(q_proj|o_proj)$"
    )
    expected = ColPaliModel(folder, device="cpu").encode_documents(VISUAL_TEXTS)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="allow_pickle=True"):
        ColPaliModel(folder, device="cpu")
    model = ColPaliModel(folder, device="cpu", allow_pickle=True)
    np.testing.assert_array_equal(model.encode_documents(VISUAL_TEXTS)[0], expected[0])


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harm",))


@pytest.mark.parametrize("content", [Harm(), {"weight": Harm()}, {"epoch": 3}, [torch.zeros(1)]])
def test_a_pickle_of_more_than_tensors_is_refused(
    tmp_path: Path, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin (cannot be read as|holds more than) tensors"):
        ColBERTModel(folder, device="cpu", allow_pickle=True)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    result = commands.run("convert", folder, "out")
    assert result.exit_code == 1
    assert "tensors" in result.stderr
    assert not Path("harm").exists()
    assert not Path("out").exists()


def test_safetensors_are_taken_where_they_are(tmp_path: Path, cache: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    model = ColBERTModel(folder, device="cpu", allow_pickle=True)
    assert model.fingerprint == ColBERTModel(folder, device="cpu").fingerprint
    assert not cache.exists()
    result = commands.run("convert", folder, tmp_path / "out")
    assert (result.exit_code, "nothing to convert" in result.stderr) == (1, True)


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    checkpoints.pickle_weights(folder)
    (tmp_path / "out").mkdir()
    assert "is there already" in commands.run("convert", folder, tmp_path / "out").stderr
