"""Open a text checkpoint with sentence-transformers, with no weight that is not the checkpoint's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from late_interaction.encoders.base import Role
from late_interaction.encoders.checkpoint import TextFamily, module_entries, quiet_loading, read_json
from late_interaction.encoders.torch_runtime import device_or_best, is_cpu
from late_interaction.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Transformer

Backend = Literal["torch", "onnx", "openvino"]


def load_text_encoder(
    folder: Path,
    family: TextFamily,
    device: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    backend: Backend,
) -> MultiVectorEncoder:
    """Load the encoder.

    Raises:
        ModelError: weights of the checkpoint's own architecture are missing, or it has no text transformer.
    """
    from sentence_transformers.base.modules import Transformer

    device = device_or_best(device)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "backend": backend}
    if backend == "torch":
        if dtype is None:
            dtype = "float32" if is_cpu(device) else "auto"
        options["model_kwargs"] = {"dtype": dtype, "use_safetensors": True}
    load = _load_plain if family == "plain" else _load_multi_vector
    with quiet_loading() as missing:
        encoder = load(folder, device, options)
    if missing:
        raise ModelError(
            f"{folder} lacks weights of its own architecture, which would be random: {', '.join(missing)}."
        )
    if not isinstance(encoder[0], Transformer) or encoder.tokenizer is None:
        raise ModelError(f"{folder} begins with a {type(encoder[0]).__name__}, not with a text transformer.")
    return encoder


def _load_multi_vector(folder: Path, device: str, options: Mapping[str, Any]) -> MultiVectorEncoder:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense

    encoder = MultiVectorEncoder(str(folder), device=device, **options)
    # sentence-transformers adds a projection with random weights where it finds none.
    entries = module_entries(folder)
    wanted = sum(entry["type"].endswith("Dense") for entry in entries) if entries else 1
    if sum(isinstance(module, Dense) for module in encoder) != wanted:
        raise ModelError(
            f"{folder} is a late-interaction checkpoint without the projection that belongs to it."
        )
    return encoder


def _load_plain(folder: Path, device: str, options: Mapping[str, Any]) -> MultiVectorEncoder:
    """Put the modules together by hand: sentence-transformers itself would add a random projection."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    first = next(iter(module_entries(folder)), {"type": ".Transformer", "path": ""})
    if not first["type"].endswith(".Transformer"):
        raise ModelError(f"{folder} begins with a {first['type']}, which gives no token vectors.")
    transformer = Transformer.load(str(folder), subfolder=first["path"], **options)
    tokenizer = transformer.tokenizer
    special = [token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token]
    modules = [
        transformer,
        MultiVectorMask(special, skiplist_tasks=list(get_args(Role))),
        Normalize(module_input_name="token_embeddings", module_output_name="token_embeddings"),
    ]
    return MultiVectorEncoder(
        modules=modules, device=device, prompts=_plain_prompts(folder), backend=options["backend"]
    )


def _plain_prompts(folder: Path) -> dict[str, str]:
    """Return the prompts of a sentence-transformers model, for queries and for what it calls documents."""
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    names = ("document", "passage", "corpus")
    document = next((prompts[name] for name in names if prompts.get(name)), "")
    return {"query": prompts.get("query") or "", "document": document}


def position_limit(transformer: Transformer) -> int | None:
    """Return how many positions the backbone has for tokens; None where it has no limit."""
    from torch import nn

    limit = getattr(transformer.config.get_text_config(), "max_position_embeddings", None)
    if limit is None or limit < 0:
        return None
    # RoBERTa and related models count from padding_idx + 1, and have as many positions fewer.
    if isinstance(transformer.model, nn.Module):
        for module in transformer.model.modules():
            padding = getattr(module, "padding_idx", None)
            if isinstance(padding, int) and isinstance(
                getattr(module, "position_embeddings", None), nn.Embedding
            ):
                return int(limit) - padding - 1
    return int(limit)
