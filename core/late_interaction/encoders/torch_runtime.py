"""What both encoder classes need of torch: its packages, devices, dtypes, forks, and a fingerprint's name."""

from __future__ import annotations

import os
import platform
import threading
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from packaging.requirements import Requirement

from late_interaction import progress  # noqa: F401 - before other packages import tqdm, and it warns
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_one_of, unit_rows

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16")
PROBES = ("a", "the tide comes in at noon", "12 pages, and a chart of the rain in each month of the year")
"""Texts on which two ways of computing a model are compared."""
ROUNDING = 1e-4
"""Most that their unit vectors may differ by in float32."""
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""What may compute attention, by transformers' names. Those that it fetches as code from the hub are left out."""
_CPUINFO = Path("/proc/cpuinfo")
_TORCH_ASKS = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
"""Flags of processors, and the functions of `torch.cpu` that tell them since torch 2.6."""
_SETTING_THREADS = threading.Lock()
"""Held while torch's number of threads, which is one of the process, is another one for a moment."""


def require_packages(feature: str, extra: str = "colbert") -> None:
    """Check that the packages of the extra `colbert` are there, in versions that fit.

    A base install has none of them, and beside it another program may have put older ones.

    Args:
        feature: what needs them, for the message.
        extra: an extra that contains `colbert`, for the message.

    Raises:
        MissingExtraError: one is not installed, or another version of it is.
    """
    for line in requires("late-interaction") or ():
        needed = Requirement(line)
        if needed.marker is None or not needed.marker.evaluate({"extra": "colbert"}):
            continue
        if find_spec(needed.name.replace("-", "_")) is None:
            raise MissingExtraError(feature, extra, needed.name)
        try:
            installed = version(needed.name)
        except PackageNotFoundError:
            continue  # A build that does not say which version it is.
        if not needed.specifier.contains(installed, prereleases=True):
            raise MissingExtraError(feature, extra, f"{needed.name}{needed.specifier}", installed)


def dtype_name(dtype: str | torch.dtype | None) -> str | None:
    """Return the name of a dtype of weights, such as "bfloat16"; None for None and "auto".

    Raises:
        ValueError: the dtype is neither "auto" nor one of `DTYPES`.
    """
    if dtype is None or dtype == "auto":
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be auto or one of {', '.join(DTYPES)}, not {dtype!r}.")
    return name


def computing_dtype(device: str, of_index: str | None = None) -> str:
    """Return the dtype that a text encoder computes in where the caller leaves the choice; "auto": the checkpoint's.

    On a CPU it is the index's, and for a new one bfloat16: that takes less than half of the time where the processor
    is fast in it, and moves a vector less than storing it as int8 does. Where it is not, and for float16, which takes
    several times as long on most CPUs, it is float32. On a CUDA GPU it is as `dtype_on_gpu` says, and elsewhere the
    checkpoint's own.

    Args:
        device: where the model computes.
        of_index: the dtype that an index was built in; None for a new one.
    """
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return dtype_on_gpu(of_index, bfloat16=gpu_computes_bfloat16(device))
    if kind != "cpu":
        return "auto"
    return "bfloat16" if of_index in (None, "bfloat16") and computes_bfloat16() else "float32"


def dtype_on_gpu(of_index: str | None, *, bfloat16: bool) -> str:
    """Return the dtype that a text encoder computes in on a CUDA GPU: the index's, and for a new one a half.

    >>> dtype_on_gpu(None, bfloat16=True), dtype_on_gpu(None, bfloat16=False), dtype_on_gpu("float32", bfloat16=True)
    ('bfloat16', 'float16', 'float32')

    Args:
        of_index: the dtype that an index was built in; None for a new one.
        bfloat16: whether the GPU has instructions for it; one that has none computes in float16.
    """
    if of_index in ("float32", "float16"):
        return of_index
    return "bfloat16" if bfloat16 else "float16"


def gpu_computes_bfloat16(device: str) -> bool:
    """Tell whether a CUDA GPU has instructions for bfloat16: NVIDIA's since Ampere, and AMD's."""
    import torch

    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def check_attention(attn_implementation: str | None, device: str | None, dtype: str | None) -> None:
    """Check that attention can be computed in this way, as far as that is known before the model is loaded.

    Args:
        attn_implementation: one of `ATTENTION`; None for transformers' own choice.
        device: where the model computes; None where that is not known yet.
        dtype: what it computes in; None where that is not known yet.

    Raises:
        ValueError: it is none of them, or flash attention is asked for on a CPU or in float32, which it does not
            compute.
    """
    if attn_implementation is None:
        return
    check_one_of("attn_implementation", attn_implementation, ATTENTION)
    if not attn_implementation.startswith("flash"):
        return
    if device is not None and is_cpu(device):
        raise ValueError(f"{attn_implementation} is for GPUs, and the device is {device}: take sdpa.")
    if dtype == "float32":
        raise ValueError(f"{attn_implementation} computes in float16 or bfloat16, not in float32: take sdpa.")


def finite_rows(matrix: FloatMatrix, model_name: str, dtype: str) -> FloatMatrix:
    """Return a (n_tokens, dim) float32 matrix with its rows scaled to unit length.

    Raises:
        ModelError: a number is not finite, as where float16 is too narrow for a model.
    """
    if not np.isfinite(matrix).all():
        remedy = "load it with dtype='float32'" if dtype != "float32" else "download its weights again"
        raise ModelError(f"{model_name} computed vectors that are not finite in {dtype}: {remedy}.")
    return unit_rows(matrix)


def default_dtype(device: str) -> str:
    """Return the dtype that a model computes in where neither the caller nor an index chooses it."""
    return "float32" if is_cpu(device) else "bfloat16"


def computes_bfloat16() -> bool:
    """Tell whether this machine's processor is faster in bfloat16: one with AMX, or with AVX512_BF16 and not Intel's.

    Intel's AVX512_BF16 multiplies no more numbers at a time than float32 does: without AMX, which virtual machines may
    hide, bfloat16 takes longer there.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    facts = _processor()
    flags = set(facts.get("flags", "").split())
    for flag, ask in _TORCH_ASKS.items():
        if getattr(torch.cpu, ask, bool)():
            flags.add(flag)
    vendor = facts.get("vendor_id") or platform.processor()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "GenuineIntel" not in vendor)


def _processor() -> dict[str, str]:
    """Return what Linux says of the first processor: its `vendor_id`, its `flags` and more; elsewhere nothing."""
    if not _CPUINFO.is_file():
        return {}
    first, _, _ = _CPUINFO.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def device_or_best(device: str | None) -> str:
    """Return the device, or the best one of this machine for None.

    Raises:
        ModelError: this machine has no such device.
    """
    import torch
    from sentence_transformers.util import get_device_name

    if device is None:
        return str(get_device_name())
    known = "give 'cpu', 'cuda', 'cuda:1' or 'mps', or leave it out for the best that there is."
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"device={device!r} is no device of torch: {known}") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= (count := torch.cuda.device_count()):
        built = "" if torch.backends.cuda.is_built() else ", and the installed torch is one for the CPU alone"
        raise ModelError(f"device={device!r}: torch finds {count} CUDA GPUs on this machine{built}: {known}")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError(f"device={device!r}: torch finds no GPU of Apple's on this machine: {known}")
    return device


def is_cpu(device: str) -> bool:
    """Tell whether a device is the CPU."""
    import torch

    return bool(torch.device(device).type == "cpu")


def cpu_threads() -> int:
    """Return how many threads a computation of torch's uses on the CPU, as this thread asks for it."""
    import torch

    with _SETTING_THREADS:
        return int(torch.get_num_threads())


def take_share(n_workers: int) -> None:
    """Let this thread, one of so many that compute at a time, use its share of torch's threads on the CPU."""
    import torch

    with _SETTING_THREADS:
        n = torch.get_num_threads()
        torch.set_num_threads(max(1, n // n_workers))
        # A thread begins with the number that was set last, in whichever thread, so it is set back in another one.
        restoring = threading.Thread(target=torch.set_num_threads, args=(n,))
        restoring.start()
        restoring.join()


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
