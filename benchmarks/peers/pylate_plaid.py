"""PyLate's PLAID index, on the fast-plaid that it pins, at its defaults but for what is swept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import main
from pylate import indexes


def plaid(folder: Path, **options: Any) -> indexes.PLAID:
    return indexes.PLAID(str(folder), "index", device="cpu", show_progress=False, **options)


class PyLatePLAID:
    """An index in a folder, on the CPU."""

    name, package = "PyLate, PLAID", "pylate"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        ids = [str(i) for i in range(len(documents))]
        plaid(folder).add_documents(documents_ids=ids, documents_embeddings=list(documents))

    def open(self, folder: Path) -> None:
        self.folder, self.opened = folder, (0, 0)

    def settings(self) -> Iterator[dict[str, Any]]:
        for n_ivf_probe, n_full_scores in ((4, 512), (8, 1024), (8, 4096), (16, 8192), (32, 16384)):
            yield {"n_ivf_probe": n_ivf_probe, "n_full_scores": n_full_scores}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        if self.opened != tuple(setting.values()):  # they are arguments of the index
            self.index, self.opened = plaid(self.folder, **setting), tuple(setting.values())
        (found,) = self.index([query], k=k)
        return [int(each["id"]) for each in found]


if __name__ == "__main__":
    main(PyLatePLAID)
