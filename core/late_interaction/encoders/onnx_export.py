"""A text encoder's transformer as ONNX: exported by torch once, checked against it, and computed by ONNX Runtime."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from late_interaction.encoders.torch_runtime import PROBES, ROUNDING, is_cpu
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.validation import first_line

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer

logger = logging.getLogger(__name__)

_PACKAGES = ("onnx", "onnxruntime")
_OPSET = 17
_LOCAL = ("sliding_window", "local_attention", "attention_window")
_REMEDY = "load the model with backend='torch'"


def require_onnx(device: str) -> None:
    """Check that ONNX can be exported and computed.

    Raises:
        MissingExtraError: the onnx extra is not installed.
        ModelError: the device is not the CPU.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError("backend='onnx'", "onnx", package)
    if not is_cpu(device):
        raise ModelError(
            f"backend='onnx' computes on the CPU, not on {device}: give device='cpu', or {_REMEDY}."
        )


def use_onnx(transformer: Transformer, content: str, positions: int | None) -> None:
    """Put ONNX Runtime in the place of a loaded transformer.

    The export is made where it is not in the cache, under the hash of the checkpoint and the versions of torch and
    transformers; it is kept if it gives what torch gives.

    Args:
        transformer: loaded in float32, on the CPU.
        content: hash of the checkpoint.
        positions: how many positions the model has for tokens; None where it has no limit.

    Raises:
        ModelError: the model cannot be exported, or its export gives other vectors.
    """
    from huggingface_hub import constants

    versions = " ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))
    name = hashlib.sha256(f"{content} {versions} opset {_OPSET}".encode()).hexdigest()[:32]
    folder = Path(constants.HF_HOME) / "late-interaction" / "onnx" / name
    if not folder.is_dir():
        _export(transformer, folder)
    transformer.model = _backbone(transformer, folder / "model.onnx", positions)


def _export(transformer: Transformer, target: Path) -> None:
    """Write the export to a folder that is not there yet."""
    import torch

    model = transformer.model.eval()
    # The mask that is given would take the place of the local one too, and short texts would not show it.
    local = [name for name in _LOCAL if getattr(model.config, name, None)]
    if local:
        raise ModelError(
            f"{model.config.name_or_path} cannot be exported to ONNX: its attention is local ({local[0]} in "
            f"config.json), which the export would lose. For such a model, {_REMEDY}."
        )
    probes = transformer.preprocess(list(PROBES))
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in probes]
    inputs = tuple(probes[name] for name in names)
    target.parent.mkdir(parents=True, exist_ok=True)
    logger.info("Exporting %s to ONNX, once: %s.", model.config.name_or_path, target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # Of constants that tracing sees: the check below says what matters.
                torch.onnx.export(
                    _with_wide_mask(model, names),
                    inputs,
                    str(made / "model.onnx"),
                    input_names=names,
                    output_names=["last_hidden_state"],
                    dynamic_axes={name: {0: "batch", 1: "tokens"} for name in (*names, "last_hidden_state")},
                    opset_version=_OPSET,
                    dynamo=False,
                )
                # Other texts than those that were traced, in another shape.
                probes = transformer.preprocess([PROBES[1], f"{PROBES[2]}, {PROBES[1]}"])
                expected = transformer.forward(dict(probes))["token_embeddings"]
                ours = _backbone(transformer, made / "model.onnx", None)(
                    **{name: probes[name] for name in names}
                ).last_hidden_state
        except Exception as error:
            raise ModelError(
                f"{model.config.name_or_path} cannot be exported to ONNX: {first_line(error)} For such a model, "
                f"{_REMEDY}."
            ) from error
        kept = probes["attention_mask"].bool()
        expected, ours = (torch.nn.functional.normalize(rows[kept], dim=-1) for rows in (expected, ours))
        difference = float((expected - ours).abs().max())
        if not difference <= ROUNDING:
            raise ModelError(
                f"The ONNX export of {model.config.name_or_path} gives other vectors than torch, by up to "
                f"{difference:.2g}, and is not used. For such a model, {_REMEDY}."
            )
        try:
            made.rename(target)
        except OSError:  # Another process was quicker.
            if not target.is_dir():
                raise


def _with_wide_mask(model: Any, names: list[str]) -> torch.nn.Module:
    """Return the model with a mask for each pair of tokens, which tracing takes, made of one for each token."""
    import torch

    class WideMask(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            inputs = dict(zip(names, values, strict=True))
            mask = inputs.pop("attention_mask").to(torch.float32)
            length = mask.shape[1]
            wide = (1.0 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
            hidden: torch.Tensor = self.model(
                **inputs, attention_mask=wide.expand(-1, 1, length, -1), return_dict=True
            ).last_hidden_state
            return hidden

    return WideMask().eval()  # The export leaves the model in the mode of what it is given.


def _backbone(transformer: Transformer, file: Path, positions: int | None) -> torch.nn.Module:
    import onnxruntime
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    class OnnxBackbone(torch.nn.Module):  # type: ignore[misc]
        """Gives what the transformer gives."""

        def __init__(self) -> None:
            super().__init__()
            self.config = transformer.config
            self.positions = positions
            self._sessions: dict[int, onnxruntime.InferenceSession] = {}

        def forward(self, **inputs: Any) -> BaseModelOutput:
            session = self._session()
            wanted = {one.name for one in session.get_inputs()}
            values = {name: tensor.numpy() for name, tensor in inputs.items() if name in wanted}
            values["attention_mask"] = values["attention_mask"].astype("int64")
            (hidden,) = session.run(None, values)
            return BaseModelOutput(last_hidden_state=torch.from_numpy(hidden))

        def _session(self) -> onnxruntime.InferenceSession:
            # One for each process: its threads are not there after a fork.
            pid = os.getpid()
            if pid not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = torch.get_num_threads()
                options.log_severity_level = 3
                self._sessions[pid] = onnxruntime.InferenceSession(
                    str(file), options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[pid]

    return OnnxBackbone()
