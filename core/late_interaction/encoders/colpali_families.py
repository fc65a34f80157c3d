"""The kinds of visual late-interaction models, and which one a checkpoint is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.encoders.checkpoint import (
    BY_THEIR_CODE,
    own_class,
    read_json,
    refuse_unknown_code,
)
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.errors import ModelError


@dataclass(frozen=True, slots=True)
class VisualFamily:
    """A kind of visual late-interaction model.

    Attributes:
        name: what we call it.
        model: its class, which checkpoints name under `architectures`.
        processor: the class that prepares its input.
        model_type: of its config, for checkpoints that name no such class: adapters are made for plain backbones.
        library: the package that has the classes.
        in_chat: texts are rendered by the tokenizer's chat template, a query behind "Query: ", as it stands in the
            processor's code.
        trained: the prefix and the end of a query in colpali-engine's releases of the time when the family's published
            checkpoints were trained (0.3.0 to 0.3.12); None where they are those of today.
    """

    name: str
    model: str
    processor: str
    model_type: str
    library: str = "colpali_engine.models"
    in_chat: bool = False
    trained: tuple[str, str] | None = None


FAMILIES = (
    VisualFamily("colpali", "ColPali", "ColPaliProcessor", "paligemma", trained=("Question: ", "\n")),
    VisualFamily("colqwen2", "ColQwen2", "ColQwen2Processor", "qwen2_vl", trained=("Query: ", "")),
    VisualFamily("colqwen2.5", "ColQwen2_5", "ColQwen2_5_Processor", "qwen2_5_vl", trained=("Query: ", "")),
    VisualFamily("colqwen3", "ColQwen3", "ColQwen3Processor", "qwen3_vl"),
    VisualFamily("colqwen3.5", "ColQwen3_5", "ColQwen3_5Processor", "qwen3_5"),
    VisualFamily("colidefics3", "ColIdefics3", "ColIdefics3Processor", "idefics3", trained=("Query: ", "\n")),
    VisualFamily("colmodernvbert", "ColModernVBert", "ColModernVBertProcessor", "modernvbert"),
    VisualFamily("colgemma3", "ColGemma3", "ColGemmaProcessor3", "gemma3", in_chat=True),
    VisualFamily("colpali-native", "ColPaliForRetrieval", "ColPaliProcessor", "colpali", "transformers"),
    VisualFamily(
        "colqwen2-native",
        "ColQwen2ForRetrieval",
        "ColQwen2Processor",
        "colqwen2",
        "transformers",
        trained=("Query: ", ""),
    ),
    VisualFamily(
        "colmodernvbert-native",
        "ColModernVBertForRetrieval",
        "ColModernVBertProcessor",
        "colmodernvbert",
        "transformers",
    ),
)


def visual_family(folder: Path) -> VisualFamily | None:
    """Return the family of a checkpoint, or of an adapter's base, by its config; None for one that is not visual.

    Raises:
        ModelError: it is a model of images of another family.
    """
    refuse_unknown_code(folder)
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    for family in FAMILIES:
        if family.model in architectures:
            return family
    if ("vision_config" in config or "vlm_config" in config) and (own := own_class(config)):
        raise ModelError(
            f"{folder} is not opened: its class {own} is Python code of its own (auto_map in config.json), and "
            f"another would give other vectors. {BY_THEIR_CODE}"
        )
    for family in FAMILIES:
        if family.model_type == config.get("model_type"):
            return family
    if "vision_config" in config or "vlm_config" in config:
        known = ", ".join(f"{family.model} ({family.model_type})" for family in FAMILIES)
        raise ModelError(
            f"{folder} is a model of images of an unknown family: its config.json names the architectures "
            f"{architectures} and the model_type {config.get('model_type')!r}. Known are {known}. {BY_THEIR_CODE}"
        )
    return None


def projection_width(family: VisualFamily, config: Mapping[str, Any]) -> int:
    """Return how wide the token vectors of a family's class are, for a config."""
    if family.library == "transformers":
        return int(config.get("embedding_dim") or 128)
    if family.name == "colqwen3":  # Whatever its config says.
        return 320
    return int((config.get("dim") if family.name == "colqwen3.5" else None) or 128)


def base_checkpoint(folder: Path, allow_pickle: bool = False, *, weights: bool = True) -> Path | None:
    """Return the folder of the model that an adapter was made for; None where the checkpoint is whole.

    Raises:
        ModelError: that model is not named, or cannot be downloaded.
    """
    adapter = read_json(folder / "adapter_config.json")
    own = [file for file in folder.glob("*model*.safetensors") if not file.name.startswith("adapter_")]
    beside = (folder / "config.json").is_file() and (
        own or not any(folder.glob("adapter_model*.safetensors"))
    )
    if not adapter or beside:  # an adapter beside its base, in one folder
        return None
    base = adapter.get("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"{folder} is an adapter, and its adapter_config.json does not say of which model: name it there, as "
            "base_model_name_or_path."
        )
    try:
        return find_checkpoint(base, adapter.get("revision"), pickled=allow_pickle, weights=weights)
    except (ModelError, ValueError) as error:
        raise ModelError(
            f"{folder} is an adapter, and the model that it was made for is not to be had. {error} If that lies "
            "elsewhere, write its path to adapter_config.json, as base_model_name_or_path."
        ) from error
