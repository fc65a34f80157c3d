"""Which checkpoints are left to sentence-transformers, why, and what speaks against loading one."""

from __future__ import annotations

from pathlib import Path

from late_interaction.encoders.checkpoint import (
    backbone_of,
    module_entries,
    own_code,
    own_module,
    read_json,
)
from late_interaction.encoders.colpali_families import FAMILIES, projection_width, visual_family
from late_interaction.encoders.pickled import REMEDY, pickles
from late_interaction.errors import ModelError

_OURS = {family.model for family in FAMILIES}


def why_sentence_transformers(folder: Path, base: Path | None = None) -> str | None:
    """Return what of a checkpoint sentence-transformers alone knows; None where our classes open it, or nothing does.

    It goes by the config files. Our own classes open a text transformer with PyLate's or sentence-transformers'
    modules, and visual models whose projection is in the model itself.

    Args:
        folder: the checkpoint.
        base: the model of an adapter.
    """
    entries = module_entries(folder)
    settings = read_json(folder / "config_sentence_transformers.json")
    if entries and settings.get("model_type") == "MultiVectorEncoder":
        kinds = [entry["type"].rpartition(".")[2] for entry in entries]
        if kinds[0] != "Transformer":
            return f"its modules begin with a {kinds[0]}"
        if own := own_module(folder):
            return f"it has code of its own for {own}"
        if _is_visual(base or backbone_of(folder)) or _is_visual(backbone_of(folder)):
            return _why_not_colpali(folder, base)
        return None
    config = read_json(folder / "config.json")
    for name in config.get("architectures") or []:
        if (
            name.endswith("ForRetrieval")
            and name not in _OURS
            and not config.get("auto_map")
            and _in_transformers(name)
        ):
            return f"it is a {name} of transformers"
    return None


def _why_not_colpali(folder: Path, base: Path | None) -> str | None:
    """Return why a visual checkpoint with sentence-transformers' files is not left to `ColPaliModel`."""
    try:
        family = visual_family(base or backbone_of(folder))
    except ModelError:
        family = None
    if family is None:
        return "it is a model of images of a family that ColPaliModel does not have"
    config = read_json((base or backbone_of(folder)) / "config.json")
    widths = [
        read_json(folder / entry["path"] / "config.json").get("out_features")
        for entry in module_entries(folder)
        if entry["type"].endswith("Dense")
    ]
    # A class of ours has its projection in the model's files, or in those of the adapter; the Dense is its copy.
    saved = read_json(folder / "adapter_config.json").get("modules_to_save") or []
    whole = any(name in _OURS for name in config.get("architectures") or []) or any(
        "proj" in name for name in saved
    )
    if widths and not (whole and widths == [projection_width(family, config)]):
        return "its projection is a module of sentence-transformers"
    return None


def _is_visual(folder: Path) -> bool:
    config = read_json(folder / "config.json")
    modalities = read_json(folder / "sentence_bert_config.json").get("modality_config") or {}
    return "vision_config" in config or "vlm_config" in config or "image" in modalities


def _in_transformers(name: str) -> bool:
    import transformers

    return hasattr(transformers, name)


def unloadable(folder: Path, base: Path | None, *, trust_remote_code: bool) -> str | None:
    """Return why a checkpoint cannot be loaded this way, and what to do; None where nothing speaks against it."""
    if why_sentence_transformers(folder, base) is None:
        return (
            f"{folder} is no late-interaction checkpoint of sentence-transformers that needs MultiVectorModel: open it "
            "with load_model, which chooses the class."
        )
    if (code := own_code(folder)) and not trust_remote_code:
        return (
            f"{folder} brings Python code that it needs: {code}. Read it, and if you trust it, load the model with "
            "trust_remote_code=True."
        )
    for part in filter(None, (folder, base)):
        if found := pickles(part):
            return f"{found[0]} are weights in a pickle. {REMEDY}"
    return None
