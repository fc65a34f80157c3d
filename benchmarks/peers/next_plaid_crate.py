"""next-plaid: PLAID in Rust, 4 bits a value (the default) or 8 (`--eight`), by its crate, which cargo builds here.

Its Python package is a client of a server that comes as a container; the crate on crates.io is what the server runs.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import main

CRATE = Path(__file__).parent / "next_plaid"
TARGET = Path(tempfile.gettempdir()) / "next_plaid_peer"
FLOATS, IDS = (np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.float32, np.int64))


def library() -> ctypes.CDLL:
    """Build the crate, and load it."""
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", str(TARGET)]
    subprocess.run(command, check=True, cwd=CRATE)
    made = ctypes.CDLL(str(TARGET / "release" / "libnext_plaid_peer.so"))
    size = ctypes.c_size_t
    made.peer_build.argtypes = [ctypes.c_char_p, FLOATS, IDS, size, size, size]
    made.peer_build.restype = ctypes.c_int
    made.peer_open.argtypes = [ctypes.c_char_p]
    made.peer_open.restype = ctypes.c_void_p
    made.peer_search.argtypes = [ctypes.c_void_p, FLOATS, size, size, size, size, size, ctypes.c_float, IDS]
    made.peer_search.restype = ctypes.c_int
    return made


class NextPlaid:
    """An index in a folder, at its defaults but for what is swept."""

    name, package, version, nbits = "next-plaid, 4 bits", "", "1.8.5", 4

    def __init__(self) -> None:
        self.library = library()

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        tokens = np.concatenate(documents)
        lengths = np.array([len(each) for each in documents], np.int64)
        shape = len(lengths), tokens.shape[1]
        done = self.library.peer_build(str(folder).encode(), tokens, lengths, *shape, self.nbits)
        if done != 0:
            raise RuntimeError("next-plaid could not build its index: see above.")

    def open(self, folder: Path) -> None:
        self.index = self.library.peer_open(str(folder).encode())
        if not self.index:
            raise RuntimeError("next-plaid could not open its index: see above.")

    def settings(self) -> Iterator[dict[str, Any]]:
        for probes, full, threshold in (
            (2, 256, 0.4), (4, 512, 0.4), (8, 4096, 0.4), (4, 512, 0), (8, 1024, 0), (16, 4096, 0), (32, 16384, 0)
        ):  # fmt: skip
            yield {"n_ivf_probe": probes, "n_full_scores": full, "centroid_score_threshold": threshold}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        ids = np.empty(k, np.int64)
        query = np.ascontiguousarray(query)
        n = self.library.peer_search(self.index, query, *query.shape, k, *setting.values(), ids)
        if n < 0:
            raise RuntimeError("next-plaid could not search: see above.")
        return ids[:n].tolist()


class EightBits(NextPlaid):
    """The same with twice the bits."""

    name, nbits = "next-plaid, 8 bits", 8


if __name__ == "__main__":
    main(NextPlaid, EightBits)
