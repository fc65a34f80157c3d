"""The layouts of the visual models in sentence-transformers' table, each on a tiny checkpoint, with texts and images.

The table (docs/multi_vector_encoder/pretrained_models.md of sentence-transformers) names some forty models. Those that
differ by name alone are one case here; docs/encoders.md says which model has which layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder

from late_interaction import ColPaliModel, ModelError, load_model
from late_interaction.encoders.auto import model_class
from late_interaction.encoders.multi_vector import MultiVectorModel
from tests.support.visual_checkpoints import (
    TEMPLATE,
    adapter_checkpoint,
    modules_checkpoint,
    visual_checkpoint,
)
from tests.unit.visual_encoders.models import IMAGES, TEXTS, largest_difference

pytestmark = pytest.mark.slow

TEXT_LAYERS = r".*(language_model|text_model).*(q_proj|o_proj|Wqkv|Wo)$"
BASE, MASK = "sentence_transformers.base.modules", "sentence_transformers.multi_vector_encoder.modules"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            path = tmp_path_factory.mktemp(name)
            made[name] = modules_checkpoint(path) if name == "modules" else visual_checkpoint(path, name)
        return made[name]

    return folder


def add_files(folder: Path, *, dense: torch.Tensor | None, own: str | None = None) -> None:
    """Put sentence-transformers' files beside a model, with its projection in a Dense or in a class of its own."""
    kinds = [f"{BASE}.transformer.Transformer"]
    kinds += [f"{BASE}.dense.Dense"] if dense is not None else []
    kinds += [f"{MASK}.multi_vector_mask.MultiVectorMask", f"{BASE}.normalize.Normalize"]
    entries = []
    for i, kind in enumerate(kinds):
        name = kind.rpartition(".")[2]
        part = f"{i}_{name}" if i else ""
        entries.append({"idx": i, "name": str(i), "path": part, "type": kind})
        (folder / part).mkdir(exist_ok=True)
        if name == "Normalize":
            names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
            (folder / part / "config.json").write_text(json.dumps(names))
    (folder / "modules.json").write_text(json.dumps(entries))
    settings = {"model_type": "MultiVectorEncoder", "prompts": {"query": "", "document": ""}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    forward = {"method": "forward", "method_output_name": own or "last_hidden_state"}
    transformer = {
        "transformer_task": "retrieval" if own else "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": {
            "text": forward,
            "image": forward,
            "message": {**forward, "format": "structured"},
        },
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(transformer))
    if dense is not None:
        width, hidden = dense.shape
        config = {
            "in_features": hidden,
            "out_features": width,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
            "module_input_name": "token_embeddings",
        }
        (folder / "1_Dense" / "config.json").write_text(json.dumps(config))
        save_file({"linear.weight": dense.contiguous()}, folder / "1_Dense" / "model.safetensors")
    for file in ("processor_config.json", "preprocessor_config.json"):
        if (folder / file).is_file():
            (folder / "chat_template.jinja").write_text(TEMPLATE)


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def projection(folder: Path) -> torch.Tensor:
    weights = load_file(folder / "model.safetensors")
    return next(
        w for name, w in weights.items() if name.endswith(("custom_text_proj.weight", "linear.weight"))
    )


def opened(folder: Path, **options: Any) -> ColPaliModel | MultiVectorModel:
    model = load_model(folder, device="cpu", **options)
    assert isinstance(model, ColPaliModel | MultiVectorModel)
    return model


def is_what_sentence_transformers_gives(model: MultiVectorModel, folder: Path, **options: Any) -> None:
    reference = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True, **options)
    items = [TEXTS[0], IMAGES[0], TEXTS[1], IMAGES[1]]
    for ours, theirs in (
        (model.encode_documents(items), reference.encode_document),
        (model.encode_queries(items), reference.encode_query),
    ):
        expected = [theirs([item], convert_to_numpy=True)[0] for item in items]
        assert largest_difference(ours, expected) < 1e-5


# --- in the layouts of colpali-engine and transformers, with sentence-transformers' files beside


@pytest.mark.parametrize("family", ["colpali", "colqwen2", "colqwen2.5", "colidefics3", "colmodernvbert"])
def test_an_adapter_whose_base_has_the_projection(
    family: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """vidore's colpali, colqwen2, colqwen2.5 and colSmol, tsystems', Metric-AI's."""
    folder = adapter_checkpoint(tmp_path / "adapter", folders(family), family, target_modules=TEXT_LAYERS)
    before = opened(folder).encode_documents([*TEXTS, *IMAGES])
    add_files(folder, dense=projection(folders(family)))
    model = opened(folder)
    assert isinstance(model, ColPaliModel)
    assert model.family == family
    assert largest_difference(model.encode_documents([*TEXTS, *IMAGES]), before) == 0


def test_an_adapter_that_brings_the_projection(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """colnomic-embed-multimodal, over a plain Qwen2.5-VL."""
    base = shutil.copytree(folders("colqwen2.5"), tmp_path / "base")
    settings: dict[str, Any] = {"target_modules": TEXT_LAYERS, "modules_to_save": ["custom_text_proj"]}
    folder = adapter_checkpoint(tmp_path / "adapter", base, "colqwen2.5", **settings)
    weights = {k: w for k, w in load_file(base / "model.safetensors").items() if "custom_text" not in k}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    edit(base / "config.json", architectures=["Qwen2_5_VLForConditionalGeneration"])
    add_files(folder, dense=torch.ones(128, 32))
    assert isinstance(opened(folder), ColPaliModel)


@pytest.mark.parametrize(("family", "dim"), [("colqwen2.5", 128), ("colqwen3.5", 320), ("colqwen3", 320)])
def test_a_whole_model(family: str, dim: int, folders: Callable[[str], Path], tmp_path: Path) -> None:
    """The -merged ones; EVIE, athrael-soju's and Vultron's colqwen3.5, 128 or 320 wide; ColTurk's colqwen3."""
    folder = shutil.copytree(folders(family), tmp_path / "model")
    if family == "colqwen3.5":
        edit(folder / "config.json", dim=dim)
        weights = load_file(folder / "model.safetensors")
        for name in [name for name in weights if "custom_text_proj" in name]:
            weights[name] = torch.cat([weights[name]] * 3)[:dim] + 0.1
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    add_files(folder, dense=projection(folder))
    model = opened(folder)
    assert isinstance(model, ColPaliModel)
    assert (model.family, model.dim) == (family, dim)
    for matrix in (*model.encode_queries(TEXTS), *model.encode_documents(IMAGES)):
        assert matrix.shape[1] == dim


@pytest.mark.parametrize("family", ["colpali-native", "colqwen2-native", "colmodernvbert-native"])
def test_transformers_own(family: str, folders: Callable[[str], Path]) -> None:
    """The -hf ones, and colmodernvbert-merged."""
    model = opened(folders(family))
    assert isinstance(model, ColPaliModel)
    assert model.encode_documents(IMAGES[:1])[0].shape[1] == model.dim


# --- by sentence-transformers alone


@pytest.mark.parametrize("model_type", ["lfm2_vl", "mistral3", "qwen2_5_omni_thinker"])
def test_another_backbone_is_left_to_sentence_transformers(model_type: str, tmp_path: Path) -> None:
    """SauerkrautLM-ColLFM2 and -ColMinistral3, colqwen-omni: only that the class is chosen."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    folder.mkdir()
    (base / "config.json").write_text(json.dumps({"model_type": model_type, "vision_config": {}}))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    with pytest.raises(ModelError, match=r"unknown family.*sentence-transformers' modules\.json"):
        model_class(folder)
    add_files(folder, dense=torch.ones(16, 32))
    assert model_class(folder) is MultiVectorModel


def test_a_whole_model_of_another_width(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """SauerkrautLM-ColQwen3: 128 wide, where colpali-engine's class has 320."""
    folder = shutil.copytree(folders("colqwen3"), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "custom_text_proj" in name]:
        weights[name] = weights[name][:128].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"other shapes than those of ColQwen3.*modules\.json"):
        load_model(folder, device="cpu")
    add_files(folder, dense=projection(folder))
    model = opened(folder)
    assert isinstance(model, MultiVectorModel)
    assert model.dim == 128
    is_what_sentence_transformers_gives(model, folder)


def test_an_adapter_whose_projection_is_a_dense(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """What sentence-transformers trains with peft: the base is a plain vision-language model."""
    import peft
    import transformers

    base = folders("modules")
    made = peft.get_peft_model(
        transformers.AutoModel.from_pretrained(base),
        peft.LoraConfig(r=2, init_lora_weights=False, target_modules=TEXT_LAYERS),
    )
    folder = tmp_path / "adapter"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    for part in ("1_Dense",):
        shutil.copytree(base / part, folder / part, dirs_exist_ok=True)
    for part in base.iterdir():
        if part.is_dir() and (part / "config.json").is_file():
            shutil.copy(part / "config.json", folder / part.name / "config.json")
    made.save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=str(base))
    model = opened(folder)
    assert isinstance(model, MultiVectorModel)
    assert model.supports_images
    is_what_sentence_transformers_gives(model, folder)
    whole = opened(base)
    assert np.abs(model.encode_documents(IMAGES[:1])[0] - whole.encode_documents(IMAGES[:1])[0]).max() > 0.001
    assert model.fingerprint["base_content"] == whole.fingerprint["content"]


OWN = """
import torch
from transformers import Qwen2VLConfig, Qwen2VLModel, Qwen2VLPreTrainedModel
from transformers.utils import ModelOutput
from dataclasses import dataclass

class OwnConfig(Qwen2VLConfig):
    model_type = "{model_type}"

@dataclass
class Embedded(ModelOutput):
    embeddings: torch.Tensor | None = None

class OwnRetriever(Qwen2VLPreTrainedModel):
    config_class = {config}
    def __init__(self, config):
        super().__init__(config)
        self.vlm = Qwen2VLModel(config)
        self.embedding_proj_layer = torch.nn.Linear(32, 16)
        self.post_init()
    def forward(self, attention_mask=None, **inputs):
        hidden = self.vlm(attention_mask=attention_mask, **inputs).last_hidden_state
        made = torch.nn.functional.normalize(self.embedding_proj_layer(hidden), dim=-1)
        return Embedded(embeddings=made * attention_mask[..., None])
"""


@pytest.mark.parametrize("model_type", ["own_qwen", "qwen2_vl"])
def test_a_class_of_its_own_code(model_type: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    """webAI-ColVec1.1 (over a model type of transformers), NVIDIA's, Tomoro's and Ops's (over their own)."""
    folder = shutil.copytree(folders("modules"), tmp_path / "model")
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part)
    config = "Qwen2VLConfig" if model_type == "qwen2_vl" else "OwnConfig"
    (folder / "own.py").write_text(OWN.replace("{model_type}", model_type).replace("{config}", config))
    named = {"AutoModel": "own.OwnRetriever"} | (
        {"AutoConfig": "own.OwnConfig"} if "own" in model_type else {}
    )
    edit(folder / "config.json", architectures=["OwnRetriever"], model_type=model_type, auto_map=named)
    weights = {f"vlm.{name}": w for name, w in load_file(folder / "model.safetensors").items()}
    weights["embedding_proj_layer.weight"] = torch.randn(16, 32)
    weights["embedding_proj_layer.bias"] = torch.randn(16)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    add_files(folder, dense=None, own="embeddings")
    with pytest.raises(ModelError, match=r"Python code that it needs: .*trust_remote_code=True"):
        load_model(folder, device="cpu")
    model = opened(folder, trust_remote_code=True)
    assert isinstance(model, MultiVectorModel)
    assert (model.dim, model.supports_images) == (16, True)
    assert model.fingerprint["remote_code"].startswith("sha256:")
    is_what_sentence_transformers_gives(model, folder, trust_remote_code=True)
    # Without sentence-transformers' files there is no way in, and it is not taken for another model.
    (folder / "modules.json").unlink()
    for options in ({}, {"trust_remote_code": True}):
        with pytest.raises(
            (ModelError, TypeError), match=r"subclass of LateInteractionModel|trust_remote_code"
        ):
            load_model(folder, device="cpu", **options)
