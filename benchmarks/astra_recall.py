"""Find how many candidates Astra needs: recall of the exact top k by the parameters of stage 1.

    python benchmarks/astra_recall.py ../shared/data/tokens_5k.npz [--pool-factor 2] [--queries 100]

Token ANN is computed exactly, in numpy, over the stored (pooled) token vectors; the lists then go through the store's
own arithmetic. Two values for a similarity that no list has are compared: 0, and the last similarity of the list. The
last lines printed are the defaults. `python benchmarks/token_matrices.py` makes larger sets.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.encoded import token_matrices
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_document, pool_query
from late_interaction.stores.astra.ann import Asked, merge_ann_lists
from late_interaction.stores.astra.scaling import TOKENS_SCALING
from late_interaction.types import RaggedTokens

KS = (1, 5, 10, 20, 50, 100)
DEPTHS = (50, 100, 200, 400, 600, 1000)
CANDIDATES = (10, 20, 50, 100, 200, 400)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrices", type=Path)
    parser.add_argument("--pool-factor", type=float, default=2)
    parser.add_argument("--queries", type=int, default=100)
    arguments = parser.parse_args()
    matrices, queries = token_matrices(arguments.matrices)
    documents = RaggedTokens.from_matrices([pool_document(m, arguments.pool_factor) for m in matrices])
    owners = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
    print(
        f"{len(documents):,} documents, {len(owners):,} stored tokens (pool factor {arguments.pool_factor:g})"
    )

    scaling = TOKENS_SCALING
    defaults = {k: (scaling.n_ann_tokens(k), scaling.n_maxsim_candidates(k)) for k in KS}
    depths = sorted({*DEPTHS, *(depth for depth, _ in defaults.values())})
    recalls: dict[tuple[str, int, int, int], list[float]] = defaultdict(list)
    for matrix in tqdm(queries[: arguments.queries]):
        query = pool_query(matrix, 0.03)
        best = np.argsort(-maxsim(query.vectors, documents, query.weights), kind="stable")
        cosines = query.vectors @ documents.tokens.T
        order = np.argsort(-cosines, axis=1)[:, : max(depths)]
        for depth in depths:
            lists = [
                [{"doc_id": int(owners[j]), "$similarity": (1 + row[j]) / 2} for j in columns]
                for row, columns in zip(cosines, order[:, :depth], strict=True)
            ]
            found = merge_ann_lists(lists, Asked.of(query, 0), depth)
            ranked = {
                "0": np.array(found.doc_ids),
                "last": np.array(found.doc_ids)[np.argsort(-found.bounds, kind="stable")],
            }
            for k in KS:
                for n in {*CANDIDATES, defaults[k][1]}:
                    for stand_in, doc_ids in ranked.items():
                        if n >= k:
                            recalls[stand_in, k, depth, n].append(np.isin(best[:k], doc_ids[:n]).mean())
    for stand_in in ("0", "last"):
        print(
            f"\nmissing similarity: {stand_in}\n   k  depth | candidates: "
            + "  ".join(f"{n:5}" for n in CANDIDATES)
        )
        for k in KS:
            for depth in DEPTHS:
                values = [recalls.get((stand_in, k, depth, n)) for n in CANDIDATES]
                shown = "  ".join("    -" if v is None else f"{np.mean(v):.3f}" for v in values)
                print(f"{k:4} {depth:6} |             {shown}")
    print("\ndefaults")
    for k, (depth, n) in defaults.items():
        print(
            f"k = {k:3}: {depth:4} tokens, {n:3} candidates, recall {np.mean(recalls['0', k, depth, n]):.3f}"
        )


if __name__ == "__main__":
    main()
