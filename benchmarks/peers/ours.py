"""late-interaction: a folder, and brute force by its kernel (`--brute`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import main

from late_interaction import Document, EncodedDocument, PrecomputedEmbeddings, RaggedTokens, SyncPipeline
from late_interaction.maxsim import maxsim


class Ours:
    """A folder, searched through the pipeline."""

    name, package = "late-interaction, a folder", "late-interaction"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        dim = documents[0].shape[1]
        (folder.parent / "dim").write_text(str(dim))
        index = SyncPipeline(folder, PrecomputedEmbeddings(dim, "peers"), doc_pool_factor=1)
        rows = [
            EncodedDocument(Document(str(i), f"document {i}"), matrix) for i, matrix in enumerate(documents)
        ]
        index.initialize()
        for first in range(0, len(rows), 500):
            index.run(lambda pipeline, some=rows[first : first + 500]: pipeline.store.upsert(some))
        index.optimize()
        index.close()

    def open(self, folder: Path) -> None:
        dim = int((folder.parent / "dim").read_text())
        self.index = SyncPipeline(folder, PrecomputedEmbeddings(dim, "peers"), doc_pool_factor=1)

    def settings(self) -> Iterator[dict[str, Any]]:
        for n in (50, 75, 100, 150):
            yield {"n_maxsim_candidates": n}
        yield {}
        for n in (800, 1600, 3200):
            yield {"n_maxsim_candidates": n}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        return [int(result.doc_id) for result in self.index.search_with_embeddings(query, k, **setting)]


class Brute:
    """Every document scored by the kernel, float32 in memory."""

    name, package = "late-interaction, its kernel over all documents", "late-interaction"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        ragged = RaggedTokens.from_matrices(list(documents))
        np.save(folder / "tokens.npy", ragged.tokens)
        np.save(folder / "offsets.npy", ragged.offsets)

    def open(self, folder: Path) -> None:
        self.documents = RaggedTokens(np.load(folder / "tokens.npy"), np.load(folder / "offsets.npy"))

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        scores = maxsim(query, self.documents)
        best = np.argpartition(-scores, k)[:k]
        return best[np.argsort(-scores[best])].tolist()


if __name__ == "__main__":
    brute = "--brute" in sys.argv
    if brute:
        sys.argv.remove("--brute")
    main(Brute if brute else Ours)
