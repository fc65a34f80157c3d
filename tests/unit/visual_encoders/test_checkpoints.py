"""Visual checkpoints: fingerprints, adapters, the right class, and what is no such checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    ColBERTModel,
    ColPaliModel,
    MissingExtraError,
    ModelError,
)
from late_interaction.encoders import load_model
from late_interaction.encoders.checkpoint import content_hash
from tests.support import checkpoints

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from safetensors.torch import load_file, save_file

from tests.support.visual_checkpoints import CLASSES, adapter_checkpoint
from tests.unit.visual_encoders.models import DIMS, IMAGES, NAMES, TEXTS, largest_difference

pytestmark = pytest.mark.slow

# --- fingerprints


def test_a_fingerprint_is_json_and_tells_checkpoints_apart(
    folders: Callable[[str], Path], models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    prints = [json.dumps(dict(models(name).fingerprint)) for name in NAMES]
    assert len(set(prints)) == len(NAMES)
    moved = shutil.copytree(folders("colqwen2"), tmp_path / folders("colqwen2").name)
    assert ColPaliModel(moved, device="cpu").fingerprint == models("colqwen2").fingerprint
    change(moved / "model.safetensors", lambda name, weight: weight * 1.001 if "custom" in name else weight)
    assert ColPaliModel(moved, device="cpu").fingerprint != models("colqwen2").fingerprint


def test_a_checkpoint_in_the_hubs_cache_is_the_one_in_a_folder(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache links to large files named by their SHA-256, which need not be read again to know it."""
    folder = shutil.copytree(folders("colqwen2"), tmp_path / "snapshots" / "1")
    weights = folder / "model.safetensors"
    blob = tmp_path / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    read: list[str] = []
    digest = hashlib.file_digest

    def noting(stream: Any, name: str) -> Any:
        read.append(Path(stream.name).name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", noting)
    assert content_hash(folder) == content_hash(folders("colqwen2"))
    assert read.count("model.safetensors") == 1  # that in the folder
    assert read.count("config.json") == 2


# --- adapters

LINEAR = r"(q_proj|o_proj|Wqkv|Wo)"
TEXT_LAYERS = rf".*(language_model|text_model).*{LINEAR}$"


def projection_of(name: str) -> str:
    return "linear" if name == "colidefics3" else "custom_text_proj"


@pytest.mark.parametrize("name", CLASSES)
def test_an_adapter_is_opened_as_what_its_base_is(
    name: str, folders: Callable[[str], Path], models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    targets = f"{TEXT_LAYERS}|.*{projection_of(name)}$"
    folder = adapter_checkpoint(tmp_path / "no-name-of-a-model", folders(name), name, target_modules=targets)
    adapted, base = ColPaliModel(folder, device="cpu"), models(name)
    assert (adapted.family, adapted.dim) == (name, DIMS[name])
    assert adapted.fingerprint["base_content"] == base.fingerprint["content"]
    for items in (TEXTS, IMAGES):
        ours, plain = adapted.encode_documents(items), base.encode_documents(items)
        assert [matrix.shape for matrix in ours] == [matrix.shape for matrix in plain]
        assert min(np.abs(a - b).max() for a, b in zip(ours, plain, strict=True)) > 0.01
    assert isinstance(load_model(folder, device="cpu"), ColPaliModel)


@pytest.mark.parametrize(
    ("name", "base_key", "adapter_key"),
    [
        ("colqwen2", ("language_model.", "model."), ("model.language_model.", "model.model.")),
        ("colqwen2.5", ("language_model.", "model."), ("model.language_model.", "model.model.")),
        (
            "colpali",
            ("no such key", ""),
            ("model.model.model.language_model.", "model.model.language_model.model."),
        ),
    ],
)
def test_an_adapter_of_before_transformers_5_gives_the_same(
    name: str,
    base_key: tuple[str, str],
    adapter_key: tuple[str, str],
    folders: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Most published adapters name the weights as the models of their time did."""
    base = shutil.copytree(folders(name), tmp_path / "base")
    targets = f"{TEXT_LAYERS}|.*{projection_of(name)}$"
    folder = adapter_checkpoint(tmp_path / "adapter", base, name, target_modules=targets)
    new = ColPaliModel(folder, device="cpu").encode_documents([*TEXTS, *IMAGES])
    renamed = 0
    for file, (now, then) in (
        (base / "model.safetensors", base_key),
        (folder / "adapter_model.safetensors", adapter_key),
    ):
        weights = {key.replace(now, then, 1): weight for key, weight in load_file(file).items()}
        renamed += len(weights.keys() - load_file(file).keys())
        save_file(weights, file, metadata={"format": "pt"})
    assert renamed > 4
    old = ColPaliModel(folder, device="cpu").encode_documents([*TEXTS, *IMAGES])
    assert largest_difference(new, old) < 1e-6


@pytest.mark.parametrize("name", ["colqwen2", "colidefics3"])
def test_a_projection_may_be_whole_in_the_adapter(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """The base is then a plain vision-language model; without the adapter's it would be random."""
    projection = projection_of(name)
    settings: dict[str, Any] = {"target_modules": TEXT_LAYERS, "modules_to_save": [projection]}
    whole = adapter_checkpoint(tmp_path / "whole", folders(name), name, **settings)
    before = ColPaliModel(whole, device="cpu").encode_queries(TEXTS)
    bare = shutil.copytree(folders(name), tmp_path / "bare")
    change(bare / "model.safetensors", lambda key, weight: None if key.startswith(projection) else weight)
    edit(whole / "adapter_config.json", base_model_name_or_path=str(bare))
    assert largest_difference(before, ColPaliModel(whole, device="cpu").encode_queries(TEXTS)) < 1e-6
    targets = f"{TEXT_LAYERS}|.*{projection}$"
    part = adapter_checkpoint(tmp_path / "part", folders(name), name, target_modules=targets)
    edit(part / "adapter_config.json", base_model_name_or_path=str(bare))
    with pytest.raises(ModelError, match=rf"lacks weights of .*{projection}"):
        ColPaliModel(part, device="cpu")


def test_an_adapter_whose_weights_have_no_place_is_refused(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = adapter_checkpoint(
        tmp_path / "adapter", folders("colqwen2"), "colqwen2", target_modules=["q_proj"]
    )
    file = folder / "adapter_model.safetensors"
    save_file({name.replace("q_proj", "x_proj"): w for name, w in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"lacks weights of ColQwen2|have no place in ColQwen2"):
        ColPaliModel(folder, device="cpu")


# --- what is no such checkpoint


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change(file: Path, how: Callable[[str, Any], Any]) -> None:
    weights = {name: how(name, weight) for name, weight in load_file(file).items()}
    save_file({k: w for k, w in weights.items() if w is not None}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("name", NAMES)
def test_a_projection_is_never_made_up(name: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders(name), tmp_path / "model")
    # Some families save it behind "model." or "base_model.model.".
    projection = re.compile(r"(^|\.)(custom_text_proj|embedding_proj_layer)\.|^linear\.")

    def drop(key: str, weight: Any) -> Any:
        return None if projection.search(key) else weight

    change(folder / "model.safetensors", drop)
    with pytest.raises(ModelError, match=r"lacks weights of .* would be random"):
        ColPaliModel(folder, device="cpu")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_family(folder: Path) -> None:
    edit(folder / "config.json", architectures=["ColLlava"], model_type="llava")


def text_model(folder: Path) -> None:
    shutil.rmtree(folder)
    checkpoints.stanford_checkpoint(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_weights, "no weights in safetensors"),
        (
            other_family,
            r"unknown family.*ColLlava.*'llava'.*Known are ColPali \(paligemma\), ColQwen2",
        ),
        (text_model, "is not a model of images: open it with ColBERTModel"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "is damaged"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "could not be loaded: .* no tokenizer files"),
    ],
)
def test_what_is_no_such_checkpoint_says_so(
    spoil: Callable[[Path], Any], message: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders("colqwen2"), tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        ColPaliModel(folder, device="cpu")


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int8"}, {"device": "cpu", "device_map": "auto"}, {"batch_pixels": 0}],
)
def test_a_wrong_argument_is_a_value_error(options: dict[str, Any], folders: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"dtype|device|batch_pixels"):
        ColPaliModel(folders("colqwen2"), **options)


def test_without_the_engine_the_extra_is_named(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "colpali_engine", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'late-interaction\[colpali\]'"):
        ColPaliModel(folders("colqwen2"), device="cpu")
    assert ColPaliModel(folders("colqwen2-native"), device="cpu").family == "colqwen2-native"


# --- the right class


def test_load_model_goes_by_the_config(folders: Callable[[str], Path], tmp_path: Path) -> None:
    text = checkpoints.pylate_checkpoint(tmp_path / "colqwen2-in-name-only")
    assert isinstance(load_model(text, device="cpu"), ColBERTModel)
    assert isinstance(load_model(folders("colpali-native"), device="cpu", query_prefix="x"), ColPaliModel)
    with pytest.raises(TypeError, match="query_prefix"):
        load_model(text, query_prefix="x")
    with pytest.raises(ModelError, match="open it with ColPaliModel"):
        ColBERTModel(folders("colqwen2"))


def test_loading_says_nothing(
    folders: Callable[[str], Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ColPaliModel(folders("colqwen2"), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
