"""Weights in a pickle, read as tensors and nothing else, and written to safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from late_interaction.errors import ModelError
from late_interaction.validation import first_line

if TYPE_CHECKING:
    import torch

PICKLES = {
    "pytorch_model*.bin": "model*.safetensors",
    "adapter_model*.bin": "adapter_model*.safetensors",
    "colbert_linear.pt": "colbert_linear.safetensors",
}
"""Patterns of files with weights that a model needs, and what there is instead where they are safetensors."""
_KEPT = (
    "*.json",
    "*.txt",
    "*.md",
    "*.model",
    "*.jinja",
    "*.py",
    "*.safetensors",
    "artifact.metadata",
    "LICENSE*",
)
_INDEX = "pytorch_model.bin.index.json"
REMEDY = (
    "Weights in a pickle (pytorch_model.bin) can run code when they are loaded, and are not read. "
    "`late-interaction convert NAME FOLDER` and allow_pickle=True read them as tensors and nothing else, and write "
    'safetensors. On the hub, revision="refs/pr/NUMBER" may have them: the branch of the conversion bot, among the '
    "pull requests of the model."
)


_POINTER = b"version https://git-lfs"


def refuse_pointer(file: Path) -> None:
    """Refuse a file that is not there itself, but by Git LFS's pointer to it.

    Raises:
        ModelError: it is a pointer.
    """
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"{file} is not the file itself but Git LFS's pointer to it: run `git lfs install` and `git lfs pull` "
                "in the clone, or download the model by `hf download NAME`."
            )


def pickles(folder: Path) -> list[Path]:
    """List the files with weights in a pickle that a checkpoint needs: there are no safetensors in their place."""
    found = (
        file
        for pattern, instead in PICKLES.items()
        for file in folder.rglob(pattern)
        if not any(file.parent.glob(instead)) and not _hidden(file.relative_to(folder))
    )
    return sorted(found)


def convert_checkpoint(folder: Path, target: Path) -> Path:
    """Write a copy of a checkpoint with its pickled weights as safetensors; it gives the same vectors.

    Its configs, tokenizer and code are copied, and no other file.

    Raises:
        ModelError: nothing is in a pickle, or a pickle holds more than tensors.
        ValueError: the target is there already.
    """
    found = pickles(folder)
    if not found:
        raise ModelError(
            f"{folder} has no weights in a pickle: there is nothing to convert. Load it as it is."
        )
    if target.exists():
        raise ValueError(f"{target} is there already: give a folder that is not.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "made"
        for file in _kept(folder):
            copy = made / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        for file in found:
            _convert(file, (made / file.relative_to(folder)).parent)
        made.rename(target)
    return target


def converted(folder: Path) -> Path:
    """Return a checkpoint without pickles: the folder itself, or its copy in the cache, made where there is none."""
    from huggingface_hub import constants

    found = pickles(folder)
    if not found:
        return folder
    digest = hashlib.sha256()
    for file in sorted({*found, *_kept(folder)}):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    target = Path(constants.HF_HOME) / "late-interaction" / "converted" / digest.hexdigest()[:32]
    if not target.is_dir():
        try:
            convert_checkpoint(folder, target)
        except OSError:  # Another process was quicker.
            if not target.is_dir():
                raise
    return target


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "checkpoint-")) for part in path.parts)


def _kept(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        wanted = any(fnmatch(file.name, pattern) for pattern in _KEPT) and file.name != _INDEX
        if wanted and file.is_file() and not _hidden(file.relative_to(folder)):
            yield file


def _convert(file: Path, target: Path) -> None:
    """Write a file's tensors into the target folder, and the index where they are in several files."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in _tensors(file).items()}
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / _renamed(file.name), {"format": "pt"})
    index = file.with_name(_INDEX)
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        if lacking := sorted(
            {shard for shard in content["weight_map"].values() if not (file.parent / shard).is_file()}
        ):
            raise ModelError(f"{index} names {lacking[0]}, which is not there: download the model again.")
        content["weight_map"] = {name: _renamed(shard) for name, shard in content["weight_map"].items()}
        (target / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def _renamed(name: str) -> str:
    return f"{os.path.splitext(name)[0].replace('pytorch_model', 'model')}.safetensors"  # noqa: PTH122


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    import torch

    refuse_pointer(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{file} cannot be read as tensors and nothing else, and is refused: {first_line(error)} It is damaged, "
            "or holds code. Download it again, or ask its authors for safetensors."
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ModelError(
            f"{file} holds more than tensors by name: it is no file of a model's weights. Where the model was made, "
            "save its state_dict() alone, or safetensors by save_pretrained."
        )
    return content
