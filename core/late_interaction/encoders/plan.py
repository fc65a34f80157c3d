"""What would be loaded of a checkpoint and how, by its config files alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.encoders.checkpoint import (
    TextFamily,
    backbone_of,
    brings_code,
    module_entries,
    own_activation,
    own_code,
    read_json,
    text_family,
    unused_heads,
)
from late_interaction.encoders.colbert_loading import plain_prompts
from late_interaction.encoders.colpali_families import base_checkpoint, projection_width, visual_family
from late_interaction.encoders.colpali_queries import trained_prefix
from late_interaction.encoders.fallback import unloadable, why_sentence_transformers
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.encoders.pickled import pickles
from late_interaction.encoders.soundness import config_fault
from late_interaction.encoders.torch_runtime import computing_dtype, device_or_best, require_packages
from late_interaction.errors import ModelError

_PLAIN = "it has no late-interaction head: its last layer's token vectors are used"


@dataclass(frozen=True, slots=True)
class LoadingPlan:
    """What `load_model` would do with a checkpoint. What its configs do not say is None.

    Attributes:
        model: as it was given.
        encoder: the class that opens it; None where nothing does.
        why: why it is that class, where it is not the library's own; or that it has no late-interaction head.
        family: the format of a text encoder, or the family of a visual one.
        backend: the library that computes.
        dim: width of a token vector.
        query_prefix: what stands before a query; for a visual model None where the library's own does.
        document_prefix: what stands before a document that is a text.
        query_length: most tokens of a query.
        document_length: most tokens of a document that are read at once.
        pooling: what pools token vectors of the checkpoint's own, and what becomes of it.
        dtype: what a new index is computed in on this machine.
        code: whether it brings Python code.
        weights: how they are stored, as far as files are here.
        problem: why it would not be loaded, and what to do.
    """

    model: str
    encoder: str | None = None
    why: str | None = None
    family: str | None = None
    backend: str | None = None
    dim: int | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    query_length: int | None = None
    document_length: int | None = None
    pooling: str | None = None
    dtype: str | None = None
    code: str | None = None
    weights: str | None = None
    problem: str | None = None


def loading_plan(
    model_name: str | os.PathLike[str], revision: str | None = None, device: str | None = None
) -> LoadingPlan:
    """Return what would be loaded of a checkpoint and how; no weights are read or downloaded.

    Raises:
        ModelError: there is no such checkpoint, or its files cannot be downloaded or read.
        MissingExtraError: the colbert extra is not installed.
    """
    require_packages(f"The model {os.fspath(model_name)!r}")
    name = os.fspath(model_name)
    folder = find_checkpoint(name, revision, weights=False)
    made: dict[str, Any] = {"model": name, "weights": _weights(folder), **_dtype(device_or_best(device))}
    try:
        made |= _described(name, folder, made["dtype"])
    except ModelError as error:
        made["problem"] = str(error)
    return LoadingPlan(**made)


def _described(name: str, folder: Path, dtype: str) -> dict[str, Any]:
    base = base_checkpoint(folder, weights=False)
    if why := why_sentence_transformers(folder, base):
        return {
            **_modules(folder),
            "encoder": "MultiVectorModel",
            "why": why,
            "family": "sentence-transformers",
            "backend": "sentence-transformers",
            "code": "is needed: trust_remote_code=True" if own_code(folder) else "none",
            "problem": unloadable(folder, base, trust_remote_code=False) or config_fault(folder, base),
        }
    family = visual_family(base or folder)
    if family is not None:
        config = read_json((base or folder) / "config.json")
        own = {**config, **read_json(folder / "config.json")}
        return {
            "encoder": "ColPaliModel",
            "family": family.name,
            "backend": family.library.partition(".")[0].replace("_", "-"),
            "dim": projection_width(family, own),
            "query_prefix": trained_prefix(name, folder, family),
            "pooling": "none of its own",
            "code": "is never run" if brings_code(folder) else "none",
            "problem": _pickled(folder) or config_fault(folder, base),
        }
    kind = text_family(folder)
    code = (
        "is not run without trust_remote_code=True, and the vectors may differ"
        if brings_code(folder)
        else "none"
    )
    return {
        **_text(folder, kind),
        "encoder": "ColBERTModel",
        "family": kind,
        "backend": "sentence-transformers",
        "dtype": dtype,
        "code": code,
        "why": _PLAIN if kind == "plain" else None,
        "problem": _text_problem(folder, kind),
    }


def _text_problem(folder: Path, kind: TextFamily) -> str | None:
    if heads := unused_heads(folder, kind):
        return f"it has a head that would not be used: {', '.join(heads)}; loading it says what to do"
    if kind != "plain" and (activation := own_activation(folder)):
        return f"it needs Python code of its own, {activation}: trust_remote_code=True"
    return _pickled(folder) or config_fault(folder)


def _text(folder: Path, kind: str) -> dict[str, Any]:
    settings = read_json(folder / "config_sentence_transformers.json")
    config = read_json(backbone_of(folder) / "config.json")
    if kind == "stanford":
        artifact = read_json(folder / "artifact.metadata")
        return {
            "dim": artifact.get("dim"),
            "query_prefix": artifact.get("query_token_id") or "[unused0]",
            "document_prefix": artifact.get("doc_token_id") or "[unused1]",
            "query_length": artifact.get("query_maxlen") or 32,
            "document_length": artifact.get("doc_maxlen"),
            "pooling": "none of its own",
        }
    if kind == "plain":
        prompts: Mapping[str, str] = plain_prompts(folder)
        return {
            "dim": config.get("hidden_size"),
            "query_prefix": prompts["query"],
            "document_prefix": prompts["document"],
            "document_length": read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
            "pooling": "none: token vectors are kept",
        }
    made = _modules(folder)
    if kind == "pylate":
        made |= {
            "query_prefix": settings.get("query_prefix", "[Q] "),
            "document_prefix": settings.get("document_prefix", "[D] "),
            "query_length": settings.get("query_length"),
            "document_length": settings.get("document_length"),
        }
    return made


def _modules(folder: Path) -> dict[str, Any]:
    """Return what sentence-transformers' files say: of its Dense modules, prompts, lengths and pooling."""
    settings = read_json(folder / "config_sentence_transformers.json")
    entries = module_entries(folder)
    widths = [
        read_json(folder / entry["path"] / "config.json").get("out_features")
        for entry in entries
        if entry["type"].endswith("Dense")
    ]
    config = read_json(backbone_of(folder) / "config.json")
    transformer = read_json(backbone_of(folder) / "sentence_bert_config.json")
    prompts = settings.get("prompts") or {}
    pooling = [kind for entry in entries if "TokenPooling" in (kind := entry["type"].rpartition(".")[2])]
    return {
        "dim": widths[-1] if widths else config.get("embedding_dim") or config.get("hidden_size"),
        "query_prefix": prompts.get("query", ""),
        "document_prefix": prompts.get("document", ""),
        "query_length": transformer.get("query_length"),
        "document_length": transformer.get("document_length") or transformer.get("max_seq_length"),
        "pooling": f"{pooling[0]}, taken off: an index pools by its doc_pool_factor"
        if pooling
        else "none of its own",
    }


def _dtype(device: str) -> dict[str, str]:
    chosen = computing_dtype(device)
    return {"dtype": "the checkpoint's own" if chosen == "auto" else chosen}


def _weights(folder: Path) -> str:
    if pickles(folder):
        return "in a pickle"
    return "safetensors" if any(folder.rglob("*.safetensors")) else "not downloaded"


def _pickled(folder: Path) -> str | None:
    found = pickles(folder)
    return f"{found[0].name} is a pickle: allow_pickle=True, or late-interaction convert" if found else None
