"""What is wrong with a checkpoint's files: seen before a library opens them, or why one could not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from late_interaction.encoders.checkpoint import (
    BGE_HEAD,
    TextFamily,
    backbone_of,
    module_entries,
    parts_of,
    read_json,
)
from late_interaction.encoders.pickled import REMEDY, pickles, refuse_pointer
from late_interaction.errors import ModelError
from late_interaction.validation import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AGAIN = "Download it again (`hf download NAME`, with --force-download for a model in the cache), or copy it once more."
_TOKENIZER = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "*.model",
    "*.tiktoken",
)
_CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "preprocessor_config.json",
    "processor_config.json",
    "adapter_config.json",
    "artifact.metadata",
)
_IMAGES = ("preprocessor_config.json", "processor_config.json")
_ELSEWHERE = {
    "*.gguf": "GGUF weights, for llama.cpp. Take the repository that they were made from",
    "openvino_model.xml": "an OpenVINO export: backend='openvino' of ColBERTModel computes with it",
    "*.onnx": "an ONNX export. Take the repository that it was made from; backend='onnx' makes an export of its own",
    "tf_model.h5": "TensorFlow's weights. transformers 4 reads them (from_tf=True) and saves safetensors",
    "flax_model.msgpack": "Flax's weights. transformers 4 reads them (from_flax=True) and saves safetensors",
    "rust_model.*": "weights for Rust. Take the repository that they were made from",
}
"""What a checkpoint may have in the place of safetensors, and what can be done."""


def require_sound(folder: Path) -> None:
    """Check that the files that a checkpoint is loaded from are whole: none is empty, cut off, a pointer or missing.

    Of weights the header is read, so that it takes no longer for a large model.

    Raises:
        ModelError: the first one that is not, and what can be done.
    """
    for entry in module_entries(folder):  # Modules without settings have no folder on the hub.
        if entry["type"].endswith("Dense") and not (folder / entry["path"]).is_dir():
            raise ModelError(f"{folder / 'modules.json'} names {entry['path']}, which is not there. {_AGAIN}")
    patterns = ("*.safetensors", "*.safetensors.index.json", *_TOKENIZER, *_CONFIGS)
    for file in sorted({file for part in parts_of(folder) for name in patterns for file in part.glob(name)}):
        _check_content(file)
        if file.name.endswith(".safetensors.index.json"):
            named = set((read_json(file).get("weight_map") or {}).values())
            if lacking := sorted(name for name in named if not (file.parent / name).is_file()):
                raise ModelError(
                    f"{file} names {len(named)} files of weights, and {', '.join(lacking[:3])} "
                    f"{'is' if len(lacking) == 1 else 'are'} not there. {_AGAIN}"
                )


def require_safetensors(folder: Path, family: TextFamily) -> None:
    """Check that no weights would be read from a pickle.

    Raises:
        ModelError: some of the checkpoint's weights are not in safetensors files.
    """
    entries = module_entries(folder)
    backbone = backbone_of(folder)
    # These are read from model.safetensors or else from a pickle; a Stanford head lies with its backbone.
    # A plain encoder's heads are not read at all, nor those of bge-m3 for sentences.
    whole = [backbone] if family == "stanford" else []
    for entry in entries[1:] if family not in ("plain", "bge-m3") else []:
        part = folder / entry["path"]
        if entry["type"].endswith("Dense") or (part / "pytorch_model.bin").exists():
            whole.append(part)
    lacking = [part for part in whole if not (part / "model.safetensors").is_file()]
    if family == "bge-m3" and not (folder / f"{BGE_HEAD}.safetensors").is_file():
        raise ModelError(f"{folder} has its head in {BGE_HEAD}.pt, not in safetensors. {REMEDY}")
    if not any(file for file in backbone.glob("*.safetensors") if file.stem != BGE_HEAD):
        lacking.insert(0, backbone)
    if lacking:
        raise ModelError(f"{lacking[0]} has no weights in model.safetensors. {lacking_weights(lacking[0])}")


def _check_content(file: Path) -> None:
    size = file.stat().st_size
    if size == 0:
        raise ModelError(f"{file} is empty, as a download that broke off leaves it. {_AGAIN}")
    refuse_pointer(file)
    if file.suffix != ".safetensors":
        return
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(length) if length < size else b"")
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise ModelError(f"{file} is damaged: it does not begin as safetensors do. {_AGAIN}") from None
    if (expected := 8 + length + max(ends, default=0)) != size:
        raise ModelError(
            f"{file} is cut off or damaged: it has {size:,} bytes, and its header tells of {expected:,}. {_AGAIN}"
        )


def lacking_weights(folder: Path) -> str:
    """Return what to do about a checkpoint, or a part of one, that has no weights in safetensors."""
    if pickles(folder):
        return REMEDY
    for pattern, what in _ELSEWHERE.items():
        if found := sorted(folder.rglob(pattern)):
            return f"It has {found[0].relative_to(folder)}: {what}."
    return (
        "None are here in another format either; of a model on the hub only safetensors are downloaded, unless "
        f"allow_pickle=True asks for pickles. Its page there, under Files, shows what it has. {_AGAIN}"
    )


def load_error(model_name: str, error: Exception, folder: Path, base: Path | None = None) -> ModelError:
    """Return what to raise where a library could not load a checkpoint: what is wrong, where, and what to do.

    Args:
        model_name: as it was given.
        error: the library's.
        folder: the checkpoint.
        base: the model of an adapter.
    """
    try:
        reason = config_fault(folder, base) or _reason(str(error))
    except ModelError as found:
        return found
    if reason is None:
        reason = (
            f"{first_line(error)} `late-interaction models --check` says what would be loaded of it, and "
            "how; the libraries' own account is this error's cause. If the files are whole, another release of "
            "transformers or sentence-transformers may read them: config.json names the one that wrote them"
        )
    return ModelError(f"{model_name} could not be loaded: {reason}.")


def config_fault(folder: Path, base: Path | None = None) -> str | None:
    """Return for which fault of its config files a checkpoint cannot be loaded, and what to do; None if none is seen.

    Raises:
        ModelError: one of them is damaged.
    """
    from transformers import CONFIG_MAPPING

    backbone = backbone_of(folder)
    parts = [folder, backbone, *([base] if base else [])]
    for file in sorted(
        {part / name for part in parts for name in (*_CONFIGS, "tokenizer.json", "vocab.json")}
    ):
        read_json(file)
    for entry in module_entries(folder):
        if entry["type"].endswith("Dense") and not (file := folder / entry["path"] / "config.json").is_file():
            return f"{file} is not there, which tells the widths of a Dense. {_AGAIN.removesuffix('.')}"
    config = read_json((base or backbone) / "config.json")
    kind = config.get("model_type")
    if config and kind is None:
        return (
            'config.json names no model_type, such as "bert". Add it, or save the model with save_pretrained of '
            "transformers"
        )
    if config and kind not in CONFIG_MAPPING:
        if config.get("auto_map"):
            return (
                f"its model type {kind!r} is Python code of its own (auto_map in config.json). Read it, and if you "
                "trust it, load the model with trust_remote_code=True"
            )
        return (
            f"config.json names the model_type {kind!r}, which the installed transformers does not know. Update it "
            f"(`pip install -U transformers`; {config.get('transformers_version', 'an unknown release')} wrote the "
            "checkpoint), or correct config.json"
        )
    if not any(any(part.glob(pattern)) for part in parts for pattern in _TOKENIZER):
        return no_tokenizer(backbone)
    visual = "vision_config" in config or "vlm_config" in config
    if visual and not any((part / file).is_file() for part in parts for file in _IMAGES):
        return (
            f"{backbone} has no preprocessor_config.json, which says how images are prepared. Copy it from the model "
            "that this one was trained from"
        )
    return None


def _reason(said: str) -> str | None:
    """Return what the words of a library's error mean, and what to do; None for others."""
    if "ignore_mismatched_sizes" in said or "size mismatch" in said:
        return (
            "weights in its files have other shapes than its config files tell. Take both from the same revision of "
            "the model, or correct the config (hidden_size, vocab_size; in_features and out_features of a Dense)"
        )
    if said == "'linear.weight'":
        return (
            "its files have no linear.weight, which is the projection in colbert-ai's format. Download the trained "
            "checkpoint again; without a projection, it is one only if config.json does not say HF_ColBERT"
        )
    if "query_expansion" in said and "token" in said:
        return (
            "its queries are filled up with [MASK] tokens, and its tokenizer has neither a mask_token nor an "
            "eos_token. Add it to tokenizer_config.json, or take the tokenizer that it was trained with"
        )
    if "chat template" in said:
        return (
            "its processor has no chat template (chat_template.jinja), which puts texts and images into one prompt. "
            "Copy it from the model that this one was trained from"
        )
    if "out of memory" in said.lower():
        return (
            "the device has too little memory. Give dtype='bfloat16', another device, or for a visual model "
            "device_map='auto'"
        )
    return None


def require_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that knows no words, as one is that is made of tokenizer_config.json alone.

    Raises:
        ModelError: every word would be unknown.
    """
    if {*tokenizer.get_vocab()} <= {*tokenizer.all_special_tokens, *tokenizer.added_tokens_encoder}:
        raise ModelError(f"{no_tokenizer(folder)}. Without them every word would be unknown.")


def no_tokenizer(folder: Path) -> str:
    """Return what is wrong where there are no files of a tokenizer, and what to do."""
    return (
        f"{folder} has no tokenizer files (tokenizer.json, or vocab.txt and the like). Copy them from the model that "
        "this one was trained from, or save them with tokenizer.save_pretrained"
    )
