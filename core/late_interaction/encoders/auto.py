"""The right class for a checkpoint, by its config."""

from __future__ import annotations

import os
from typing import Any

from late_interaction.encoders.checkpoint import find_checkpoint
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.encoders.colpali import ColPaliModel
from late_interaction.encoders.colpali_families import base_checkpoint, visual_family


def model_class(
    model_name: str | os.PathLike[str], revision: str | None = None
) -> type[ColBERTModel] | type[ColPaliModel]:
    """What a checkpoint is opened with: `ColPaliModel` for one of images, else `ColBERTModel`.

    It goes by the config, for a LoRA adapter by that of its base model, never by the name. A model on the hub is
    downloaded.

    Raises:
        ModelError: the checkpoint cannot be had, or is of images and of no known family.
    """
    folder = find_checkpoint(os.fspath(model_name), revision)
    return ColBERTModel if visual_family(base_checkpoint(folder) or folder) is None else ColPaliModel


def load_model(
    model_name: str | os.PathLike[str], *, revision: str | None = None, **options: Any
) -> ColBERTModel | ColPaliModel:
    """A checkpoint, opened with the class that it is for.

    Args:
        model_name: a model id on the Hugging Face hub, or the folder of a model.
        revision: branch, tag or commit of a model on the hub.
        options: `device`, `dtype`, and what else that class takes.

    Raises:
        ModelError: the checkpoint cannot be had or loaded.
        TypeError: an option that the class does not have.
    """
    return model_class(model_name, revision)(model_name, revision=revision, **options)
