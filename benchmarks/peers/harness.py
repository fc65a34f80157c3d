"""What every peer's script does: read token matrices, build, search at settings from cheap to dear, print JSON.

A script has a class with `build`, `settings` and `search`, and ends with `main(Class)`. It runs in an environment of
its own, so that this module needs numpy and the standard library only.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

K = 10
GOALS = (0.95, 0.99)


class Peer(Protocol):
    """An engine for multi-vector search.

    Attributes:
        name: what the table calls it.
        package: whose version is told.
    """

    name: str
    package: str

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        """Write documents, (n_tokens, dim) float32 unit rows each, into an index in a folder; ids are positions."""

    def settings(self) -> Iterator[dict[str, Any]]:
        """Yield arguments of `search`, the cheapest first."""

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        """Return the ids of the `k` best documents for a query, (n_tokens, dim) float32 unit rows."""


def load(path: Path, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the first `n` documents and the queries of a file of `token_matrices.py`, as float32 unit rows."""
    with np.load(path) as file:
        offsets = file["offsets"][: n + 1]
        tokens = file["codes"][: offsets[-1]].astype(np.float32)
        queries = file["queries"].astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return np.split(tokens, offsets[1:-1]), queries


def exact(documents: Sequence[np.ndarray], queries: np.ndarray) -> list[set[int]]:
    """Return the exact top k of each query, by MaxSim."""
    tokens = np.concatenate(documents)
    starts = np.cumsum([0, *map(len, documents[:-1])])
    scores = (np.maximum.reduceat(tokens @ query.T, starts, axis=0).sum(axis=1) for query in queries)
    return [set(np.argsort(-each)[:K].tolist()) for each in scores]


def seconds() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def measure(
    peer: Peer, truth: Sequence[set[int]], queries: np.ndarray, setting: dict[str, Any], limit_s: float
) -> dict[str, Any]:
    """Return recall and times of a setting, over as many queries as the limit of CPU seconds allows, 10 at least."""
    peer.search(queries[0], K, **setting)
    recalls, wall, cpu = [], [], []
    for query, best in zip(queries, truth, strict=True):
        started, spent = time.perf_counter(), seconds()
        found = peer.search(query, K, **setting)
        wall.append(time.perf_counter() - started)
        cpu.append(seconds() - spent)
        recalls.append(len(best.intersection(found)) / K)
        if len(recalls) >= 10 and sum(cpu) > limit_s:
            break
    return {
        "setting": setting,
        "queries": len(recalls),
        "recall": float(np.mean(recalls)),
        "worst_decile": float(np.mean(np.sort(recalls)[: max(1, len(recalls) // 10)])),
        "cpu_ms": 1000 * float(np.median(cpu)),
        "wall_ms": 1000 * float(np.median(wall)),
    }


def main(kind: type[Peer]) -> None:
    """Measure a peer as the command line says, and print what came of it as JSON on the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--limit", type=float, default=20.0, help="CPU seconds of searches at one setting")
    arguments = parser.parse_args()
    documents, queries = load(arguments.tokens, arguments.documents)
    queries = queries[: arguments.queries]
    truth = exact(documents, queries)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    folder = Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        peer = kind()
        started, spent = time.perf_counter(), seconds()
        peer.build(folder, documents)
        result: dict[str, Any] = {
            "name": peer.name,
            "version": version(peer.package),
            "python": platform.python_version(),
            "documents": len(documents),
            "tokens": sum(map(len, documents)),
            "build_cpu_s": seconds() - spent,
            "build_wall_s": time.perf_counter() - started,
            "megabytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
            "settings": [],
        }
        for setting in peer.settings():
            result["settings"].append(measure(peer, truth, queries, setting, arguments.limit))
            print(result["settings"][-1], file=sys.stderr)
            if result["settings"][-1]["recall"] >= max(GOALS):
                break
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        result |= {"peak_mb": peak, "peak_before_mb": before}
        print(json.dumps(result))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
