"""fast-plaid: PLAID in Rust and torch, 4 bits a value (the default) or 8 (`--eight`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_plaid import search
from harness import main


class FastPlaid:
    """An index in a folder, on the CPU."""

    name, package, nbits = "fast-plaid, 4 bits", "fast-plaid", 4

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        index = search.FastPlaid(index=str(folder), device="cpu")
        index.create([torch.from_numpy(each) for each in documents], nbits=self.nbits)

    def open(self, folder: Path) -> None:
        self.index = search.FastPlaid(index=str(folder), device="cpu")

    def settings(self) -> Iterator[dict[str, Any]]:
        for n_ivf_probe, n_full_scores in ((4, 512), (8, 1024), (8, 4096), (16, 8192)):
            yield {"n_ivf_probe": n_ivf_probe, "n_full_scores": n_full_scores}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        (found,) = self.index.search(torch.from_numpy(query[None]), top_k=k, show_progress=False, **setting)
        return [int(doc_id) for doc_id, _ in found]


class EightBits(FastPlaid):
    """The same with twice the bits."""

    name, nbits = "fast-plaid, 8 bits", 8


if __name__ == "__main__":
    main(FastPlaid, EightBits)
