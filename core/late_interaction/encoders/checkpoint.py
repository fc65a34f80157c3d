"""A checkpoint: where its files are, what it is, a hash of its content, and what is missing when it is loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from late_interaction.demo import is_demo, model_folder
from late_interaction.encoders.pickled import PICKLES, REMEDY
from late_interaction.errors import ModelError

TextFamily = Literal["multi-vector", "pylate", "stanford", "bge-m3", "plain"]

_CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "artifact.metadata")
_CONTENT = (
    "*.safetensors",
    "*config*.json",
    "modules.json",
    "artifact.metadata",
    "tokenizer.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template.*",
)
_PYLATE_KEYS = frozenset(
    {
        "query_prefix",
        "document_prefix",
        "do_query_expansion",
        "attend_to_expansion_tokens",
        "skiplist_words",
    }
)
BGE_HEAD = "colbert_linear"
_OF_THEIR_OWN_CODE = {
    "JinaEmbeddingsV4Model": "jina-embeddings-v4 has its multi-vectors behind methods and adapters of its own code",
    "jina_embeddings_v4": "jina-embeddings-v4 has its multi-vectors behind methods and adapters of its own code",
    "llama_NemoRetrieverColEmbed": "llama-nemoretriever-colembed is encoded by methods of its own code",
    "llama_nemoretrievercolembed": "llama-nemoretriever-colembed is encoded by methods of its own code",
    "qwen3_vl_nemotron_embed": "nemotron-colembed-vl is encoded by methods of its own code",
    "colqwen3": "tomoro-colqwen3 names its weights as no class of colpali-engine or transformers does",
    "ops_colqwen3": "Ops-Colqwen3 names its weights as no class of colpali-engine or transformers does",
    "qwen2_5_omni": "ColQwen2.5-Omni is a model of sound and video too",
}
"""Architectures and model types of published models that no class here opens, and why (docs/encoders.md)."""
LIBRARIES = ("sentence_transformers.", "pylate.")
"""Prefixes of the modules in modules.json that are not a checkpoint's own code."""
_LOADERS = ("modeling_utils", "distributed.tensor_parallel", "integrations.tensor_parallel")


def find_checkpoint(
    model_name: str,
    revision: str | None = None,
    exports: Sequence[str] = (),
    *,
    pickled: bool = False,
    weights: bool = True,
) -> Path:
    """Return the folder of a checkpoint; a model on the hub is downloaded to the Hugging Face cache.

    Without a connection, what is in the cache is used.

    Args:
        model_name: a folder, "demo" for the packaged model, or a model id on the hub (`organisation/name`).
        revision: branch, tag or commit on the hub; None for the main branch.
        exports: patterns of further files to download.
        pickled: download pickled weights too, of those parts of the model that have no others.
        weights: download weights; without them it is a checkpoint to look at, not to load.

    Raises:
        ModelError: there is no such folder, or the hub's files cannot be downloaded.
        MissingExtraError: it is "demo", and the `demo` extra is not installed.
        ValueError: a revision for a local folder.
    """
    folder = Path(model_name).expanduser()
    if folder.is_dir() or is_demo(model_name):
        if revision is not None:
            what = "a folder" if folder.is_dir() else "in a package"
            raise ValueError(f"revision={revision!r} is for models on the hub; {model_name} is {what}.")
        return folder if folder.is_dir() else model_folder()
    if folder.exists():
        raise ModelError(f"{model_name} is a file. Give the folder of a model, or a model id on the hub.")
    if folder.is_absolute() or model_name.startswith(".") or "\\" in model_name or model_name.count("/") > 1:
        raise ModelError(f"There is no folder {model_name}.")

    from huggingface_hub import snapshot_download

    def download(*patterns: str) -> Path:
        ignored = "checkpoint-*/*"
        return Path(
            snapshot_download(
                model_name, revision=revision, allow_patterns=[*patterns], ignore_patterns=ignored
            )
        )

    try:
        wanted = (*_CONFIGS, *(("*.safetensors",) if weights else ()), *exports)
        folder = download(*wanted)
        if pickled and (parts := _without_weights(folder)):
            download(*wanted, *(f"{part}{file}" for part in parts for file in PICKLES))
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"{model_name}{at} is not a local folder, and downloading it from the Hugging Face Hub failed. Check the "
            "name, the connection and, for a private or gated model, that you are logged in "
            f"(`hf auth login`). Original error: {error}"
        ) from error
    return folder


def _without_weights(folder: Path) -> list[str]:
    """List the paths of a checkpoint's parts that have no safetensors: "" for the folder itself, "1_Dense/"."""
    parts = {"", *(f"{path}/" for entry in module_entries(folder) if (path := entry["path"]))}
    return sorted(part for part in parts if not any((folder / part).glob("*.safetensors")))


def text_family(folder: Path) -> TextFamily:
    """Return the kind of a text encoder, by its config files, never by its name.

    "multi-vector" is sentence-transformers' own late-interaction format, "stanford" that of colbert-ai, "bge-m3" a
    transformer with FlagEmbedding's head beside it, and "plain" one without a late-interaction head.

    Raises:
        ModelError: it is not a model, or one of a kind that `ColBERTModel` does not encode with.
    """
    config = read_json(folder / "config.json")
    settings = read_json(folder / "config_sentence_transformers.json")
    modules = (folder / "modules.json").is_file()
    if not (config or modules):
        raise ModelError(f"{folder} holds no model: it has neither a config.json nor a modules.json.")
    refuse_unknown_code(folder)
    architectures = config.get("architectures") or []
    if "vision_config" in config or any(name.endswith("ForRetrieval") for name in architectures):
        named = f" ({', '.join(architectures)})" if architectures else ""
        raise ModelError(f"{folder} is a model of images{named}: open it with ColPaliModel.")
    kind = settings.get("model_type")
    if modules and kind == "MultiVectorEncoder":
        return "multi-vector"
    if modules and (kind == "ColBERT" or settings.keys() & _PYLATE_KEYS):
        return "pylate"
    if "HF_ColBERT" in architectures:
        return "stanford"
    if (folder / "artifact.metadata").is_file():
        raise ModelError(
            f"{folder} has colbert-ai's artifact.metadata, but the architectures in its config.json are "
            f"{architectures}, without HF_ColBERT: its projection would not be loaded."
        )
    if any((folder / f"{BGE_HEAD}.{suffix}").is_file() for suffix in ("safetensors", "pt")):
        return "bge-m3"
    if kind not in (None, "SentenceTransformer"):
        raise ModelError(f"{folder} is a {kind}, which has no token vectors to search with.")
    return "plain"


def refuse_unknown_code(folder: Path) -> None:
    """Refuse the published models that only code of their own can encode, and say what can be done.

    Raises:
        ModelError: it is one of them.
    """
    config = read_json(folder / "config.json")
    for name in (*(config.get("architectures") or []), config.get("model_type")):
        if reason := _OF_THEIR_OWN_CODE.get(name):
            raise ModelError(
                f"{folder} is not opened: {reason}. If it has sentence-transformers' modules.json, with the model_type "
                "MultiVectorEncoder, load_model opens it by that, with trust_remote_code=True; else load it by its "
                "authors' code in a subclass of LateInteractionModel (docs/encoders.md has both)."
            )


def module_entries(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a sentence-transformers modules.json, in order; none if there is no such file."""
    entries: list[dict[str, Any]] = read_json(folder / "modules.json") or []
    return entries


def require_safetensors(folder: Path, family: TextFamily) -> None:
    """Check that no weights would be read from a pickle.

    Raises:
        ModelError: some of the checkpoint's weights are not in safetensors files.
    """
    entries = module_entries(folder)
    backbone = folder / entries[0]["path"] if entries else folder
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
        raise ModelError(f"{lacking[0]} has no weights in model.safetensors. {REMEDY}")


def content_hash(folder: Path) -> str:
    """Return a SHA-256 over the files that decide what the vectors are: weights, configs, vocabulary.

    It stays the same when the folder moves or its model card changes. An export for another backend is left
    out: it computes the same vectors.
    """
    entries = module_entries(folder)
    parts = {folder, *(folder / entry["path"] for entry in entries)}
    if any(
        entry["type"].endswith(".Router") for entry in entries
    ):  # It has its modules in folders of its own.
        parts |= {part for part in folder.rglob("*") if part.is_dir() and not part.name.startswith(".")}
    files = {file for part in parts for pattern in _CONTENT for file in part.glob(pattern) if file.is_file()}
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.relative_to(folder).as_posix()):
        digest.update(f"{file.relative_to(folder).as_posix()} {_file_hash(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def brings_code(folder: Path) -> bool:
    """Tell whether a checkpoint's config names Python code of its own for the model."""
    return bool(read_json(folder / "config.json").get("auto_map"))


def own_code(folder: Path) -> str | None:
    """Return what of a sentence-transformers checkpoint needs Python code that comes with it; None where nothing does.

    Raises:
        ModelError: a config is damaged.
    """
    from transformers import CONFIG_MAPPING

    entries = module_entries(folder)
    foreign = [kind for entry in entries if not (kind := entry["type"]).startswith(LIBRARIES)]
    if foreign:
        return f"the module {foreign[0]} in modules.json"
    config = read_json(folder / (entries[0]["path"] if entries else "") / "config.json")
    if config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING:
        return f"the model_type {config.get('model_type')!r} (auto_map in config.json)"
    return None


def code_hash(folder: Path) -> str:
    """Return a SHA-256 over the Python files of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py"), key=lambda file: file.relative_to(folder).as_posix()):
        digest.update(f"{file.relative_to(folder).as_posix()} {_file_hash(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def unused_heads(folder: Path) -> list[str]:
    """List the files of a plain checkpoint that hold a late-interaction head, which would not be used."""
    if (folder / "modules.json").is_file():
        return []
    return sorted(part.name for part in folder.glob("*_Dense") if part.is_dir())


def _file_hash(file: Path) -> str:
    """Return the SHA-256 of a file, which takes a second for each GB if it is not known."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name  # The hub's cache names large files by it, and links to them.
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; an empty dict if there is no file.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What transformers reported when it loaded a model.

    Attributes:
        missing: weights of the architecture that the checkpoint lacks; without a pooler's, which no token vector
            needs.
        unexpected: weights of the checkpoint that the architecture has no place for.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


@contextmanager
def quiet_loading() -> Iterator[LoadReport]:
    """Load without transformers' progress bar and printed report; yield what the report says."""
    from transformers.utils import logging as transformers_logging

    report = LoadReport()

    def read_report(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "LOAD REPORT" in message:
            missing = re.findall(r"^(\S.*?)\s*\|.*MISSING", message, flags=re.MULTILINE)
            report.missing.extend(key for key in missing if "pooler" not in key)
            unexpected = re.findall(r"^(\S.*?)\s*\|.*UNEXPECTED", message, flags=re.MULTILINE)
            report.unexpected.extend(unexpected)
        # Some releases of transformers say of every layer that it was not sharded, though nobody asked for it.
        unasked = "not sharded" in message or "TP rules were not applied" in message
        return "LOAD REPORT" not in message and not unasked

    loggers = [logging.getLogger(f"transformers.{name}") for name in _LOADERS]
    levels = [loader.level for loader in loggers]
    hook = transformers_logging.set_tqdm_hook(
        lambda bar, args, kwargs: bar(*args, **kwargs | {"disable": True})
    )
    for loader in loggers:
        loader.setLevel(logging.WARNING)  # or a user who turned warnings off would get no report
        loader.addFilter(read_report)
    try:
        yield report
    finally:
        transformers_logging.set_tqdm_hook(hook)
        for loader, level in zip(loggers, levels, strict=True):
            loader.removeFilter(read_report)
            loader.setLevel(level)
