"""What both encoder classes need of torch: devices, dtypes, forks, and the name that a fingerprint keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16")


def dtype_name(dtype: str | torch.dtype | None) -> str | None:
    """Return the name of a dtype of weights, such as "bfloat16"; None for None.

    Raises:
        ValueError: the dtype is not one of `DTYPES`.
    """
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}.")
    return name


def device_or_best(device: str | None) -> str:
    """Return the device, or the best one of this machine for None."""
    from sentence_transformers.util import get_device_name

    return device or str(get_device_name())


def is_cpu(device: str) -> bool:
    """Tell whether a device is the CPU."""
    import torch

    return bool(torch.device(device).type == "cpu")


def model_id(model_name: str) -> str:
    """Return a hub id unchanged, and the last part of a folder's path, which stays when the folder's parent moves."""
    folder = Path(model_name).expanduser()
    return folder.resolve().name if folder.is_dir() else model_name


def guard_fork(loaded_in: int) -> None:
    """Compute on one core in a process that was forked after the model was loaded.

    OpenMP would wait forever for its threads, which a forked process does not have.

    Args:
        loaded_in: id of the process that loaded the model.
    """
    if os.getpid() != loaded_in:
        import torch

        torch.set_num_threads(1)
