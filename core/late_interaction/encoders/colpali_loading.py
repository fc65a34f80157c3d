"""Open a visual checkpoint with its family's classes, with no weight that is not the checkpoint's own."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from late_interaction.encoders.checkpoint import brings_code, quiet_loading, read_json
from late_interaction.encoders.colpali_families import VisualFamily, base_checkpoint, visual_family
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.encoders.pickled import converted
from late_interaction.encoders.soundness import lacking_weights, require_sound, require_vocabulary
from late_interaction.encoders.torch_runtime import default_dtype, device_or_best
from late_interaction.errors import MissingExtraError, ModelError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VisualCheckpoint:
    """Where a visual model's files are, and of which family it is.

    Attributes:
        folder: the checkpoint's.
        base: that of the model which an adapter was made for; None where the checkpoint is whole.
        family: by the config.
    """

    folder: Path
    base: Path | None
    family: VisualFamily

    @classmethod
    def find(cls, model_name: str, revision: str | None, allow_pickle: bool = False) -> Self:
        """Find a checkpoint, and download it where it is on the hub.

        With `allow_pickle` weights in a pickle are converted, also those of an adapter's base.

        Raises:
            ModelError: it is not found, or is not a visual model of a known family.
        """
        folder = find_checkpoint(model_name, revision, pickled=allow_pickle)
        base = base_checkpoint(folder, allow_pickle)
        family = visual_family(base or folder)
        if family is None:
            raise ModelError(
                f"{base or folder} is not a model of images: open it with ColBERTModel, or load_model, which chooses."
            )
        if allow_pickle:
            folder, base = converted(folder), base and converted(base)
        for part in filter(None, (folder, base)):
            if brings_code(part):
                logger.warning(
                    "%s: its config names Python code that comes with it (auto_map). ColPaliModel never runs it, and "
                    "the vectors may differ from those its authors mean. %s computes in its place; load the model by "
                    "its own code in a subclass of LateInteractionModel where they matter.",
                    part,
                    f"{family.library}.{family.model}",
                )
        return cls(folder, base, family)

    def load(
        self,
        device: str | None,
        device_map: str | Mapping[str, Any] | None,
        dtype: str | None,
        attn_implementation: str | None = None,
    ) -> tuple[Any, Any]:
        """Load the model and its processor.

        Raises:
            ModelError: they cannot be loaded, or weights are missing or left over.
            MissingExtraError: a library is not installed.
        """
        for part in dict.fromkeys((self.folder, self._whole)):
            require_sound(part)
            if not any(part.glob("*.safetensors")):
                raise ModelError(f"{part} has no weights in safetensors files. {lacking_weights(part)}")
        return self._model(device, device_map, dtype, attn_implementation), self._processor()

    @property
    def _whole(self) -> Path:
        return self.base or self.folder

    def _model(
        self,
        device: str | None,
        device_map: str | Mapping[str, Any] | None,
        dtype: str | None,
        attn_implementation: str | None,
    ) -> Any:
        import torch

        best = device_or_best(device)
        # Where a map spreads the model over devices, all of it computes in what suits the best one.
        options: dict[str, Any] = {"dtype": dtype or default_dtype(best)}
        if device_map is not None:
            options["device_map"] = device_map
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        if (self.folder / "adapter_config.json").is_file():
            options["adapter_kwargs"] = {"_adapter_model_path": str(self.folder)}
        with quiet_loading() as report:
            model, info = _class(self.family, self.family.model).from_pretrained(
                str(self._whole), use_safetensors=True, output_loading_info=True, **options
            )
        if self.family.model == "ColPali":
            # It computes the logits of every token, gigabytes that nobody reads, with a head whose weights
            # transformers 5 leaves unloaded.
            model.model.lm_head = torch.nn.Identity()
        self._check_weights(report.missing, info, adapted="adapter_kwargs" in options)
        if device_map is None:
            return model.eval().to(best)
        # The models multiply the projected vectors by the mask, which stays where the input is.
        *_, projection = model.children()
        projection.register_forward_hook(lambda module, inputs, vectors: vectors.to(model.device))
        return model.eval()

    def _check_weights(self, missing: list[str], info: Mapping[str, Any], *, adapted: bool) -> None:
        """Refuse a model of which some weight would be random, or some weight of the adapter is not used."""
        saved = read_json(self.folder / "adapter_config.json").get("modules_to_save") or []
        lacking = {name for name in missing if name.split(".")[-2] not in saved} | set(info["missing_keys"])
        if lacking:
            raise ModelError(
                f"{self._whole} lacks weights of {self.family.model}, which would be random: "
                f"{', '.join(sorted(lacking)[:5])}. A vision-language model not trained for retrieval has no "
                "projection: take one that was (`late-interaction models`). Of one that was, take all files from one "
                "revision."
            )
        if adapted and info["unexpected_keys"]:
            unused = ", ".join(sorted(info["unexpected_keys"])[:5])
            raise ModelError(
                f"weights of the adapter {self.folder} have no place in {self.family.model}: {unused}. It was made for "
                f"another model than {self._whole}: correct base_model_name_or_path in adapter_config.json."
            )

    def _processor(self) -> Any:
        """Load the processor, an adapter's own where it has one."""
        files = ("preprocessor_config.json", "processor_config.json")
        own = self.base is None or any((self.folder / file).is_file() for file in files)
        folder = self.folder if own else self._whole
        processor = _class(self.family, self.family.processor).from_pretrained(str(folder))
        for part in ("tokenizer", "image_processor"):
            if getattr(processor, part, None) is None:
                raise ModelError(
                    f"{folder} has no {part} (tokenizer.json, preprocessor_config.json). Copy its files from the model "
                    "that this one was trained from."
                )
        require_vocabulary(folder, processor.tokenizer)
        return processor


def _class(family: VisualFamily, name: str) -> Any:
    """Return a class of the family.

    Raises:
        MissingExtraError: its library, or one that reads images for it, is not installed.
    """
    for package in dict.fromkeys((family.library.partition(".")[0], "PIL", "torchvision")):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(f"A model of the family {family.name}", "colpali", package) from error
    return getattr(importlib.import_module(family.library), name)
