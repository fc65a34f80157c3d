"""lateweave: its MaxSim kernel over every document, float32 in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lateweave
import numpy as np
from harness import main


class Lateweave:
    """The bare kernel: there is no index."""

    name, package = "lateweave, its kernel over all documents", "lateweave"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        np.save(folder / "tokens.npy", np.concatenate(documents))
        np.save(folder / "lengths.npy", np.array([len(each) for each in documents], np.int64))

    def open(self, folder: Path) -> None:
        self.tokens = np.load(folder / "tokens.npy")
        self.lengths = np.load(folder / "lengths.npy")

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {"threads": 1}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        scores = np.asarray(lateweave.maxsim_scores_packed(query, self.tokens, self.lengths, **setting))
        best = np.argpartition(-scores, k)[:k]
        return best[np.argsort(-scores[best])].tolist()


if __name__ == "__main__":
    main(Lateweave)
