"""Where a checkpoint's files are: in a folder, in a package, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from late_interaction.demo import is_demo, model_folder
from late_interaction.encoders.checkpoint import module_entries
from late_interaction.encoders.pickled import PICKLES
from late_interaction.errors import ModelError
from late_interaction.validation import first_line

_CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "artifact.metadata")


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
            raise ValueError(
                f"revision={revision!r} is for models on the hub; {model_name} is {what}: leave it out."
            )
        return folder if folder.is_dir() else model_folder()
    if folder.exists():
        raise ModelError(f"{model_name} is a file. Give the folder of a model, or a model id on the hub.")
    if folder.is_absolute() or model_name.startswith(".") or "\\" in model_name or model_name.count("/") > 1:
        raise ModelError(
            f"There is no folder {model_name}. Give the folder of a model, or a model id on the hub "
            "(organisation/name); `late-interaction models` lists some."
        )

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
            f"{model_name}{at} is not a local folder, and downloading it from the Hugging Face Hub failed: "
            f"{_why_not_downloaded(model_name, error)}"
        ) from error
    return folder


def _why_not_downloaded(model_name: str, error: Exception) -> str:
    """Return why a model of the hub is not here, and what to do."""
    from huggingface_hub import constants, errors

    page = f"https://huggingface.co/{model_name}"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated. Ask for access on {page}, and log in (`hf auth login`)."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "the hub has no such model, or it is private. Check the name (organisation/name); for a private one, log "
            "in (`hf auth login`)."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no such revision. Branches, tags and commits are listed on {page}/tree/main."
    if isinstance(error, errors.HFValidationError):
        return (
            "that is no model id. One is organisation/name, of letters, digits, '-', '_' and '.'; `late-interaction "
            "models` lists some."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | ConnectionError):
        offline = constants.HF_HUB_OFFLINE
        said = "HF_HUB_OFFLINE is set" if offline else "the hub is out of reach"
        first = "Unset it" if offline else "Check the name and the connection"
        return (
            f"{said}, and it is not in the cache. {first}, or download it elsewhere (`hf download {model_name} "
            "--local-dir FOLDER`) and give the folder."
        )
    return (
        f"{first_line(error)} Check the name, the connection and, for "
        "a private or gated model, that you are logged in (`hf auth login`)."
    )


def _without_weights(folder: Path) -> list[str]:
    """List the paths of a checkpoint's parts that have no safetensors: "" for the folder itself, "1_Dense/"."""
    parts = {"", *(f"{path}/" for entry in module_entries(folder) if (path := entry["path"]))}
    return sorted(part for part in parts if not any((folder / part).glob("*.safetensors")))
