"""The embedded store's index: centroids of the token vectors, and for each centroid the documents near it.

It is disposable: it holds nothing that SQLite does not (index_file.py reads and writes it). The idea is PLAID's
(Santhanam et al., CIKM 2022): a token is approximated by its nearest centroid, so a document's best match for a query
vector is approximated by the best centroid it has a token at. For a document met at none of the centroids probed, the
similarity of the last centroid probed is imputed (Lee et al., "Rethinking the role of token retrieval", 2023).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from late_interaction.clustering import NearestCentroids
from late_interaction.types import FloatMatrix, QueryVectors, RaggedTokens

_SAMPLE_STEP = 8
_LEAST_SAMPLED = 16
BLOCK = 1 << 16
"""Values of an index read or hashed at a time: the C library keeps as much memory as the largest piece freed."""
_ENTRIES = 100_000
"""About how many entries of lists are put together at a time."""
_PLACES = 1_000_000
"""About how many similarities of documents are held at a time."""


@dataclass(frozen=True, slots=True)
class CentroidIndex:
    """An immutable snapshot; searches may go on in it while the next one is built.

    Attributes:
        index_id: names the index it belongs to.
        build_id: names this content; the SQLite file has the same name if it is the documents' index.
        centroids: (n_centroids, dim) float32 unit rows.
        starts: (n_centroids + 1,) int64; centroid c's documents are `postings[starts[c]:starts[c + 1]]`.
        postings: int32 positions into `row_ids`, ascending for each centroid.
        row_ids: (n_docs,) int64 row ids, ascending.
        trained_tokens: how many token vectors there were when the centroids were trained.
    """

    index_id: str
    build_id: str
    centroids: FloatMatrix
    starts: NDArray[np.int64]
    postings: NDArray[np.int32]
    row_ids: NDArray[np.int64]
    trained_tokens: int

    @property
    def last_row_id(self) -> int:
        """The largest row id that is covered, or 0 if every document was deleted."""
        return int(self.row_ids[-1]) if len(self.row_ids) else 0

    def approximate(self, query: QueryVectors, n_ann_tokens: int) -> NDArray[np.float32]:
        """Return the approximate MaxSim of every document.

        Args:
            query: the query's vectors and weights.
            n_ann_tokens: for each query vector about as many of the nearest centroids are probed as have lists of
                this many entries on average (a document is one entry in each list it is in).

        Returns:
            (n_docs,) float32, in the order of `row_ids`.
        """
        similarities = query.vectors @ self.centroids.T
        thresholds = self._thresholds(similarities, n_ann_tokens)
        n_docs = len(self.row_ids)
        together = max(1, min(_ENTRIES // n_ann_tokens, _PLACES // max(1, n_docs), len(similarities)))
        scores = np.zeros(n_docs, np.float32)
        best = np.empty((1 + together, n_docs), np.float32)
        for first in range(0, len(similarities), together):
            block = slice(first, first + together)
            weights = query.weights[block, None]
            terms = best[1 : 1 + len(weights)]
            terms[:] = thresholds[block, None]
            places, values = self._probed(similarities[block], thresholds[block])
            terms.reshape(-1)[places] = values
            terms *= weights
            best[0] = scores
            best[: 1 + len(weights)].sum(axis=0, out=scores)
        return scores

    def _probed(
        self, similarities: FloatMatrix, thresholds: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the entries of the lists that are probed for each query vector, the best list last.

        So what NumPy writes last for a document is its best. `np.maximum.at` needs no order, and lets no other thread
        run meanwhile. For the same reason there is no loop over the query vectors here: each call does much.

        Returns:
            (n,) places in an array of (n_query_vectors, n_docs), and (n,) what to write there.
        """
        n_lists = similarities.shape[1]
        near = np.flatnonzero(similarities >= thresholds[:, None])
        values = similarities.ravel()[near]
        order = np.argsort(values)
        near, values = near[order], values[order]
        vectors, near = np.divmod(near, n_lists)
        starts = self.starts[near]
        lengths = self.starts[near + 1] - starts
        ends = np.cumsum(lengths)
        entries = np.repeat(starts - ends + lengths, lengths)
        entries += np.arange(ends[-1])
        places = np.repeat(len(self.row_ids) * vectors, lengths)
        places += self.postings.take(entries)
        return places, np.repeat(values, lengths)

    def _thresholds(self, similarities: FloatMatrix, n_ann_tokens: int) -> NDArray[np.float32]:
        """Return for each query vector the similarity from which on centroids are probed."""
        n_probed = round(len(self.centroids) * n_ann_tokens / max(1, len(self.postings)))
        n_probed = min(max(1, n_probed), len(self.centroids))
        # A sample of the centroids tells, faster than they all could be ranked.
        step = min(_SAMPLE_STEP, max(1, n_probed // _LEAST_SAMPLED))
        sample = similarities if n_probed == len(self.centroids) else similarities[:, ::step]
        rank = max(0, sample.shape[1] - max(1, n_probed // step))
        thresholds: NDArray[np.float32] = np.partition(sample, rank, axis=1)[:, rank]
        return thresholds

    def digest(self) -> str:
        """Return a name of the content, which another content does not have."""
        digest = hashlib.sha256(f"{self.index_id} {self.trained_tokens}".encode())
        columns = (
            (self.centroids, "<f2"),
            (self.starts, "<i8"),
            (self.postings, "<i4"),
            (self.row_ids, "<i8"),
        )
        for array, dtype in columns:
            digest.update(f"{array.shape}".encode())
            values = np.ravel(array)
            for first in range(0, len(values), BLOCK):
                digest.update(np.ascontiguousarray(values[first : first + BLOCK], dtype).data)
        return digest.hexdigest()

    def keep(self, alive: NDArray[np.bool_]) -> CentroidIndex:
        """Return an index with the documents that are `alive`, a mask in the order of `row_ids`."""
        kept = alive[self.postings]
        centroid_of = np.repeat(np.arange(len(self.centroids)), np.diff(self.starts))[kept]
        moved = np.cumsum(alive, dtype=np.int32) - 1
        return self._with_postings(centroid_of, moved[self.postings[kept]], self.row_ids[alive])

    def extend(self, batches: Iterable[tuple[NDArray[np.int64], RaggedTokens]]) -> CentroidIndex:
        """Return the index with more documents at the same centroids.

        Args:
            batches: row ids, ascending and all above those of this index, with their token matrices.
        """
        centroid_of = [np.repeat(np.arange(len(self.centroids)), np.diff(self.starts))]
        positions, row_ids, count = [self.postings], [self.row_ids], len(self.row_ids)
        nearest_centroids = NearestCentroids(self.centroids)
        for batch_row_ids, documents in batches:
            nearest = nearest_centroids(documents)
            document_of = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
            pairs = np.unique(document_of * len(self.centroids) + nearest)
            centroid_of.append(pairs % len(self.centroids))
            positions.append((count + pairs // len(self.centroids)).astype(np.int32))
            row_ids.append(batch_row_ids)
            count += len(batch_row_ids)
        return self._with_postings(
            np.concatenate(centroid_of), np.concatenate(positions), np.concatenate(row_ids)
        )

    def _with_postings(
        self,
        centroid_of: NDArray[np.int64],
        positions: NDArray[np.int32],
        row_ids: NDArray[np.int64],
    ) -> CentroidIndex:
        order = np.argsort(centroid_of, kind="stable")
        starts = np.zeros(len(self.centroids) + 1, np.int64)
        np.cumsum(np.bincount(centroid_of, minlength=len(self.centroids)), out=starts[1:])
        return replace(self, starts=starts, postings=positions[order], row_ids=row_ids)


def empty_index(index_id: str, centroids: FloatMatrix, trained_tokens: int) -> CentroidIndex:
    """Return an index with centroids and no document, to be extended."""
    return CentroidIndex(
        index_id=index_id,
        build_id="",  # the build names it by its content
        # As they come back from the file, so that documents are assigned to the centroids they are found at.
        centroids=centroids.astype(np.float16).astype(np.float32),
        starts=np.zeros(len(centroids) + 1, np.int64),
        postings=np.empty(0, np.int32),
        row_ids=np.empty(0, np.int64),
        trained_tokens=trained_tokens,
    )
