"""A checkpoint: what it is by its config files, a hash of its content, and what is missing when it is loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from late_interaction.errors import ModelError

TextFamily = Literal["multi-vector", "pylate", "stanford", "bge-m3", "plain"]

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
BY_THEIR_CODE = (
    "If it has sentence-transformers' modules.json, with the model_type MultiVectorEncoder, load_model opens it by "
    "that, with trust_remote_code=True; else load it by its authors' code in a subclass of LateInteractionModel "
    "(docs/encoders.md has both)."
)
_OF_OTHER_TASKS = re.compile(
    "For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|CausalLM|ConditionalGeneration)$|"
    "LMHeadModel$"
)
_TAKE_ANOTHER = (
    "Take a late-interaction model (`late-interaction models` lists some), or an encoder of sentences."
)
LIBRARIES = ("sentence_transformers.", "pylate.")
"""Prefixes of the modules in modules.json that are not a checkpoint's own code."""
_WITH_CODE = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_HEAD = re.compile(
    r"([A-Za-z_]+\.)*(colbert_|custom_text_)?(linear|proj(ection)?|embedding_proj_layer|text_proj)\.weight"
)
_HEAD_FILE = re.compile(r"(\w*(colbert|proj)\w*|linear|head)\.(pt|pth|bin|safetensors)")
_LOADERS = ("modeling_utils", "distributed.tensor_parallel", "integrations.tensor_parallel")


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
        if base := read_json(folder / "adapter_config.json").get("base_model_name_or_path"):
            raise ModelError(
                f"{folder} is an adapter for {base}, of no family of visual models. Put it into that model with peft "
                "(`merge_and_unload`), save the model with its tokenizer, and load that folder."
            )
        raise ModelError(
            f"{folder} holds no model: it has neither a config.json nor a modules.json. Give the folder that has them, "
            "or a model id on the hub."
        )
    refuse_unknown_code(folder)
    architectures = config.get("architectures") or []
    if "vision_config" in config or any(name.endswith("ForRetrieval") for name in architectures):
        named = f" ({', '.join(architectures)})" if architectures else ""
        raise ModelError(
            f"{folder} is a model of images{named}: open it with ColPaliModel, or load_model, which chooses the class."
        )
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
            f"{architectures}, without HF_ColBERT: its projection would not be loaded. Where the files hold "
            "linear.weight, name HF_ColBERT there; else take the trained checkpoint."
        )
    if any((folder / f"{BGE_HEAD}.{suffix}").is_file() for suffix in ("safetensors", "pt")):
        return "bge-m3"
    if kind not in (None, "SentenceTransformer"):
        raise ModelError(f"{folder} is a {kind}, which has no token vectors to search with. {_TAKE_ANOTHER}")
    if not modules and (other := next(filter(_OF_OTHER_TASKS.search, architectures), None)):
        raise ModelError(
            f"{folder} is a {other}: a cross-encoder, a reranker or a model that writes text. It was not trained to "
            f"compare token vectors. {_TAKE_ANOTHER}"
        )
    return "plain"


def refuse_unknown_code(folder: Path) -> None:
    """Refuse the published models that only code of their own can encode, and say what can be done.

    Raises:
        ModelError: it is one of them.
    """
    config = read_json(folder / "config.json")
    for name in (*(config.get("architectures") or []), config.get("model_type")):
        if reason := _OF_THEIR_OWN_CODE.get(name):
            raise ModelError(f"{folder} is not opened: {reason}. {BY_THEIR_CODE}")


def module_entries(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a sentence-transformers modules.json, in order; none if there is no such file.

    Raises:
        ModelError: the file is damaged, or an entry lacks its type or path.
    """
    file = folder / "modules.json"
    try:
        entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Download it again, or correct it.") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get(key), str)
        for entry in entries
        for key in ("type", "path")
    ):
        raise ModelError(
            f"{file} is not a list of modules, each with a type and a path. Download it again, or correct it."
        )
    return entries


def parts_of(folder: Path) -> set[Path]:
    """Return the folders of a checkpoint's parts: its own, and those of its modules."""
    entries = module_entries(folder)
    parts = {folder, *(folder / entry["path"] for entry in entries)}
    if any(
        entry["type"].endswith(".Router") for entry in entries
    ):  # It has its modules in folders of its own.
        parts |= {part for part in folder.rglob("*") if part.is_dir() and not part.name.startswith(".")}
    return parts


def backbone_of(folder: Path) -> Path:
    """Return the folder of a checkpoint's transformer: its first module's, or its own."""
    entries = module_entries(folder)
    return folder / entries[0]["path"] if entries else folder


def content_hash(folder: Path) -> str:
    """Return a SHA-256 over the files that decide what the vectors are: weights, configs, vocabulary.

    It stays the same when the folder moves or its model card changes. An export for another backend is left
    out: it computes the same vectors.
    """
    files = {
        file
        for part in parts_of(folder)
        for pattern in _CONTENT
        for file in part.glob(pattern)
        if file.is_file()
    }
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.relative_to(folder).as_posix()):
        digest.update(f"{file.relative_to(folder).as_posix()} {_file_hash(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def brings_code(folder: Path) -> bool:
    """Tell whether a checkpoint's configs name Python code of its own, for the model, tokenizer or processor."""
    parts = {folder, backbone_of(folder)}
    return any(read_json(part / file).get("auto_map") for part in parts for file in _WITH_CODE)


def own_code(folder: Path) -> str | None:
    """Return what of a sentence-transformers checkpoint needs Python code that comes with it; None where nothing does.

    Raises:
        ModelError: a config is damaged.
    """
    from transformers import CONFIG_MAPPING

    entries = module_entries(folder)
    if own := own_module(folder) or own_activation(folder):
        return own
    config = read_json(backbone_of(folder) / "config.json")
    if config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING:
        return f"the model_type {config.get('model_type')!r} (auto_map in config.json)"
    # With a Dense, what comes before it is what transformers has for the model_type.
    if (own := own_class(config)) and not any(entry["type"].endswith("Dense") for entry in entries):
        return f"the class {own} (auto_map in config.json)"
    return None


def own_class(config: Mapping[str, Any]) -> str | None:
    """Return the class of a model that only code which comes with it has; None where transformers has it."""
    import transformers

    names = config.get("architectures") or []
    theirs = "AutoModel" in (config.get("auto_map") or {}) and names
    return names[0] if theirs and not any(hasattr(transformers, name) for name in names) else None


def own_module(folder: Path) -> str | None:
    """Return which module is of the checkpoint's own code."""
    foreign = (kind for entry in module_entries(folder) if not (kind := entry["type"]).startswith(LIBRARIES))
    return next((f"the module {kind} in modules.json" for kind in foreign), None)


def own_activation(folder: Path) -> str | None:
    """Return which Dense has an activation that is not torch's: without its code another one would be computed."""
    for entry in module_entries(folder):
        named = read_json(folder / entry["path"] / "config.json").get("activation_function")
        if entry["type"].endswith("Dense") and named and not str(named).startswith("torch."):
            return f"the activation {named} of {entry['path']}"
    return None


def code_hash(folder: Path) -> str:
    """Return a SHA-256 over the Python files of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py"), key=lambda file: file.relative_to(folder).as_posix()):
        digest.update(f"{file.relative_to(folder).as_posix()} {_file_hash(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def unused_heads(folder: Path, family: TextFamily) -> list[str]:
    """List the parts of a checkpoint that hold a late-interaction head, and would not be used.

    Those are folders of a Dense that modules.json does not name; and of a plain encoder a Dense that is computed for
    each token, before a pooling or without one.
    """
    if family == "stanford":  # Its projection is linear.weight, whatever lies beside it.
        return []
    entries = module_entries(folder)
    named = {entry["path"] for entry in entries}
    unused = {part.name for part in folder.glob("*_Dense") if part.is_dir() and part.name not in named}
    if family == "plain":
        of_sentences = next(
            (i for i, entry in enumerate(entries) if "Pooling" in entry["type"]), len(entries)
        )
        unused |= {entry["path"] for entry in entries[:of_sentences] if entry["type"].endswith("Dense")}
        # Or the projection alone, in a file beside the model's, as FlagEmbedding has bge-m3's.
        unused |= {file.name for file in folder.glob("*") if _HEAD_FILE.fullmatch(file.name)}
    return sorted(unused)


def is_head(name: str) -> bool:
    """Tell whether a weight without a place in a model is, by its name, the projection of a late-interaction model."""
    return _HEAD.fullmatch(name) is not None


def _file_hash(file: Path) -> str:
    """Return the SHA-256 of a file, which takes a second for each GB if it is not known."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name  # The hub's cache names large files by it, and links to them.
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; an empty dict if there is no file.

    Raises:
        ModelError: the file is damaged, or holds no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file} cannot be read: {error}. Download it again, or correct it: it has to hold JSON."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{file} holds a JSON {type(content).__name__}, not an object: download it again, or correct it."
        )
    return content


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
