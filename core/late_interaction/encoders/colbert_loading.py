"""Open a text checkpoint with sentence-transformers, with no weight that is not the checkpoint's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from late_interaction.encoders.base import Role
from late_interaction.encoders.checkpoint import (
    BGE_HEAD,
    TextFamily,
    backbone_of,
    brings_code,
    code_hash,
    content_hash,
    is_head,
    module_entries,
    own_activation,
    own_module,
    quiet_loading,
    read_json,
    unused_heads,
)
from late_interaction.encoders.onnx_export import require_onnx, use_onnx
from late_interaction.encoders.soundness import require_vocabulary
from late_interaction.encoders.torch_runtime import computing_dtype, device_or_best, is_cpu
from late_interaction.encoders.unpadded import leave_out_padding
from late_interaction.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Module, Transformer
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Backend = Literal["torch", "onnx", "openvino"]

_OTHER_HEADS = re.compile(
    "classif|score|predict|lm_head|vocab|decoder|pooler|qa_outputs|seq_rel|embeddings|head.dense"
)
"""Of training and of other tasks: heads of which an encoder makes no use."""
_LEAST_WIDTH = 8
_CODE = "its config names Python code that comes with it (auto_map)."


def load_text_encoder(
    folder: Path,
    family: TextFamily,
    *,
    device: str | None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    backend: Backend = "torch",
    language: str | None = None,
    attn_implementation: str | None = None,
) -> MultiVectorEncoder:
    """Load the encoder.

    Raises:
        ModelError: weights of the checkpoint's own architecture are missing, or it has no text transformer.
    """
    if backend == "onnx":  # Exported from torch, on the CPU.
        device, dtype = device or "cpu", "float32"
        require_onnx(device)
    device = device_or_best(device)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "backend": backend}
    if backend != "openvino":
        options["backend"] = "torch"
        options["model_kwargs"] = {"dtype": dtype or computing_dtype(device), "use_safetensors": True}
        if attn_implementation is not None:
            options["model_kwargs"]["attn_implementation"] = attn_implementation
    code_left_out = brings_code(folder) and not trust_remote_code
    if not trust_remote_code and family != "plain" and (own := own_module(folder) or own_activation(folder)):
        raise ModelError(
            f"{folder} brings Python code that it needs: {own}. Read it, and if you trust it, load the model "
            "with trust_remote_code=True."
        )
    with quiet_loading() as report:
        encoder = (
            _load_plain(folder, device, options, with_head=family == "bge-m3")
            if family in ("plain", "bge-m3")
            else _load_multi_vector(folder, family, device, options)
        )
    if report.missing:
        shown = ", ".join(report.missing[:5]) + (", …" if len(report.missing) > 5 else "")
        remedy = f" {_CODE} Read it, and if you trust it, load the model with" if code_left_out else ""
        remedy += " trust_remote_code=True." if code_left_out else ""
        raise ModelError(
            f"{folder} lacks weights of its own architecture, which would be random: {shown}."
            f"{remedy or ' Download it again, or take the revision that config.json belongs to.'}"
        )
    heads = unused_heads(folder, family)
    if family == "plain":
        heads += _projections(folder, report.unexpected, encoder[0])
    if heads:
        raise ModelError(
            f"{folder} has a late-interaction head that its config does not tell about, and that would not be used: "
            f"{', '.join(heads)}. Loaded without it, it would give other vectors. colbert-ai's format has the "
            "architecture HF_ColBERT in config.json and artifact.metadata beside it; PyLate and sentence-transformers "
            'have each Dense in modules.json, and the model_type "ColBERT" or "MultiVectorEncoder" in '
            "config_sentence_transformers.json."
        )
    if code_left_out:
        logger.warning(
            "%s: %s It is not run, and the vectors may differ from those its authors mean. Read it, and if you trust "
            "it, load the model with trust_remote_code=True.",
            folder,
            _CODE,
        )
    _check_tokenizer(folder, encoder.tokenizer)
    _set_language(folder, encoder[0], language)
    if backend == "onnx":
        content = f"{content_hash(folder)} {language} {trust_remote_code and code_hash(folder)}"
        use_onnx(encoder[0], content, position_limit(encoder[0]))
    elif backend == "torch" and attn_implementation is None and is_cpu(device):
        leave_out_padding(encoder)
    return encoder


def _projections(folder: Path, unexpected: Sequence[str], transformer: Transformer) -> list[str]:
    """List the weights without a place in a plain encoder that project its token vectors, by name or by shape."""
    from safetensors import safe_open

    backbone, hidden = backbone_of(folder), transformer.get_embedding_dimension()
    found = []
    for file in sorted(backbone.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in {*weights.keys()} & {*unexpected}:
                shape = weights.get_slice(name).get_shape()
                projects = len(shape) == 2 and max(shape) == hidden and _LEAST_WIDTH <= min(shape) < hidden
                if is_head(name) or (projects and not _OTHER_HEADS.search(name)):
                    found.append(name)
    return sorted(found)


def _check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that would take every word for unknown, or cannot fill up the shorter texts of a batch."""
    require_vocabulary(folder, tokenizer)
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{folder} has a tokenizer without a padding token, which fills up the shorter texts of a batch: name one "
            "as pad_token in tokenizer_config.json (of a decoder, its eos_token)."
        )


def _set_language(folder: Path, transformer: Transformer, language: str | None) -> None:
    """Choose the adapters of a language, of a model that has some for each (X-MOD)."""
    known = (
        getattr(transformer.config, "languages", None) if transformer.config.model_type == "xmod" else None
    )
    if known is None:
        if language is not None:
            raise ModelError(
                f"language={language!r} is for X-MOD models; {folder} has no adapters of languages: leave it out."
            )
        return
    default = transformer.config.default_language
    if language not in known and (language is not None or default is None):
        said = "names no default language" if language is None else f"has no language {language!r}"
        raise ModelError(f"{folder} {said}: give language=, one of {', '.join(known)}.")
    if language is not None:
        transformer.model.set_default_language(language)


def _load_multi_vector(
    folder: Path, family: TextFamily, device: str, options: Mapping[str, Any]
) -> MultiVectorEncoder:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    encoder = MultiVectorEncoder(str(folder), device=device, **options)
    if not isinstance(encoder[0], Transformer) or encoder.tokenizer is None:
        raise ModelError(
            f"{folder} begins with a {type(encoder[0]).__name__}, not with a text transformer: open it with "
            "load_model, which leaves such checkpoints to sentence-transformers."
        )
    # sentence-transformers adds a projection with random weights where it finds none.
    entries = module_entries(folder)
    wanted = sum(entry["type"].endswith("Dense") for entry in entries) if entries else 1
    if sum(isinstance(module, Dense) for module in encoder) != wanted:
        raise ModelError(
            f"{folder} is a late-interaction checkpoint without the projection that belongs to it: modules.json names "
            "no Dense. Save it again with the library that trained it, or take the trained checkpoint."
        )
    _check_widths(folder, encoder)
    settings = read_json(folder / "config_sentence_transformers.json")
    masks = settings.get("do_query_expansion") or settings.get("skiplist_words") or encoder[0].query_expansion
    if (masks or family != "multi-vector") and not any(isinstance(part, MultiVectorMask) for part in encoder):
        raise ModelError(
            f"{folder} would be encoded without its query expansion and skiplist: sentence-transformers does not take "
            "it for a late-interaction checkpoint. Write the model_type of its format into "
            'config_sentence_transformers.json ("ColBERT" for PyLate), or a MultiVectorMask into modules.json.'
        )
    _take_off_pooling(folder, encoder)
    return encoder


def _check_widths(folder: Path, encoder: MultiVectorEncoder) -> None:
    """Check that each Dense takes vectors of the width that the module before it gives."""
    from sentence_transformers.base.modules import Dense

    width = encoder[0].get_embedding_dimension()
    for name, module in encoder.named_children():
        if isinstance(module, Dense):
            if module.in_features != width:
                raise ModelError(
                    f"{folder}: module {name}, a Dense, takes vectors of {module.in_features} numbers, and gets "
                    f"{width} from the one before it. Its folder is another model's: take all files from one revision."
                )
            width = module.out_features


def _take_off_pooling(folder: Path, encoder: MultiVectorEncoder) -> None:
    """Remove a token pooling that was saved with a checkpoint, and say so: an index pools, by its own factor."""
    names = [name for name, module in encoder.named_children() if "TokenPooling" in type(module).__name__]
    for name in names:
        logger.warning(
            "%s brings a %s of its own. It is taken off: documents are pooled once, by the index's doc_pool_factor.",
            folder,
            type(getattr(encoder, name)).__name__,
        )
        delattr(encoder, name)


def _load_plain(
    folder: Path, device: str, options: Mapping[str, Any], *, with_head: bool
) -> MultiVectorEncoder:
    """Put the modules together by hand: sentence-transformers itself would add a random projection.

    With FlagEmbedding's head (bge-m3), every token but the first is projected; else special tokens are left out.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    first = next(iter(module_entries(folder)), {"type": ".Transformer", "path": ""})
    if not first["type"].endswith(".Transformer"):
        raise ModelError(
            f"{folder} begins with a {first['type']}, which gives no token vectors. Take an encoder that is a "
            "transformer; `late-interaction models` lists some."
        )
    transformer = Transformer.load(str(folder), subfolder=first["path"], **options)
    tokenizer = transformer.tokenizer
    special = [token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token]
    if with_head:
        special = [tokenizer.cls_token]
    modules = [
        transformer,
        *([_bge_head(folder)] if with_head else []),
        MultiVectorMask(special, skiplist_tasks=list(get_args(Role))),
        Normalize(module_input_name="token_embeddings", module_output_name="token_embeddings"),
    ]
    return MultiVectorEncoder(
        modules=modules, device=device, prompts=plain_prompts(folder), backend=options["backend"]
    )


def _bge_head(folder: Path) -> Module:
    from safetensors.torch import load_file
    from sentence_transformers.base.modules import Dense
    from torch import nn

    weights = load_file(folder / f"{BGE_HEAD}.safetensors")
    width, hidden = weights["weight"].shape
    return Dense(
        hidden,
        width,
        bias=True,
        activation_function=nn.Identity(),
        init_weight=weights["weight"],
        init_bias=weights["bias"],
        module_input_name="token_embeddings",
    )


def plain_prompts(folder: Path) -> dict[str, str]:
    """Return the prompts of a sentence-transformers model, for queries and for what it calls documents."""
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    names = ("document", "passage", "corpus")
    document = next((prompts[name] for name in names if prompts.get(name)), "")
    return {"query": prompts.get("query") or "", "document": document}


def position_limit(transformer: Transformer) -> int | None:
    """Return how many positions the backbone has for tokens; None where it has no limit."""
    from torch import nn

    if hasattr(transformer.model, "positions"):
        return transformer.model.positions  # type: ignore[no-any-return]
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
