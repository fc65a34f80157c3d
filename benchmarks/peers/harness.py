"""What every peer's script does: build an index in a folder, or open it, search at settings from cheap to dear.

A script has a class with `build`, `open`, `settings` and `search`, and ends with `main(Class)`. It runs in an
environment of its own, so that this module needs numpy and the standard library only. Building and searching are two
processes: memory and time of the one are not those of the other, and a machine needs to be quiet for the second only.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

K = 10
GOALS = (0.95, 0.99)
BUILT = "built.json"
STATUS = Path("/proc/self/status")


class Peer(Protocol):
    """An engine for multi-vector search.

    Attributes:
        name: what the table calls it.
        package: whose version is told, unless it has a `version`.
    """

    name: str
    package: str

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        """Write documents, (n_tokens, dim) float32 unit rows each, into an index in a folder; ids are positions."""

    def open(self, folder: Path) -> None:
        """Open the index that another process built."""

    def settings(self) -> Iterator[dict[str, Any]]:
        """Yield arguments of `search`, the cheapest first."""

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        """Return the ids of the `k` best documents for a query, (n_tokens, dim) float32 unit rows."""


def load(path: Path, n: int | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the first `n` documents and the queries of a file of `token_matrices.py`, as float32 unit rows."""
    with np.load(path) as file:
        offsets = file["offsets"][: None if n is None else n + 1]
        tokens = file["codes"][: offsets[-1]].astype(np.float32)
        queries = file["queries"].astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return np.split(tokens, offsets[1:-1]), queries


def exact(documents: Sequence[np.ndarray], queries: np.ndarray) -> np.ndarray:
    """Return the exact top k of each query, by MaxSim: (n_queries, k) positions."""
    tokens = np.concatenate(documents)
    starts = np.cumsum([0, *map(len, documents[:-1])])
    scores = (np.maximum.reduceat(tokens @ query.T, starts, axis=0).sum(axis=1) for query in queries)
    return np.stack([np.argsort(-each)[:K] for each in scores])


def seconds() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def peak_mb() -> float:
    """Return the most memory that this process has had, files that it has mapped included (VmHWM).

    `ru_maxrss` would begin with what the process that started this one has.
    """
    return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) / 1000


def built(peer: Peer, folder: Path, documents: Sequence[np.ndarray]) -> dict[str, Any]:
    """Build, and return what it took; memory is what the process had beyond the documents."""
    STATUS.with_name("clear_refs").write_text("5")  # the peak is what the process has now
    before = peak_mb()
    started, spent = time.perf_counter(), seconds()
    peer.build(folder, documents)
    return {
        "build_cpu_s": seconds() - spent,
        "build_wall_s": time.perf_counter() - started,
        "build_mb": peak_mb() - before,
        "megabytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
    }


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


def main(kind: type[Peer], eight_bits: type[Peer] | None = None) -> None:
    """Do as the command line says: build into FOLDER/index, or search there, and print JSON on the last line.

    `eight_bits` is the peer with 8 bits a value, where it has a second way; `--eight` asks for it.

    The exact top k of each query are kept in the file of tokens' name with `.truth.npy`, so that a process that
    searches has no document in memory but those of its index.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["build", "search"])
    parser.add_argument("tokens", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--limit", type=float, default=20.0, help="CPU seconds of searches at one setting")
    if eight_bits is not None:
        parser.add_argument("--eight", action="store_const", dest="kind", const=eight_bits)
    parser.set_defaults(kind=kind)
    arguments = parser.parse_args()
    index, record = arguments.folder / "index", arguments.folder / BUILT
    peer: Peer = arguments.kind()
    if arguments.what == "build":
        index.mkdir(parents=True)
        documents, _ = load(arguments.tokens, arguments.documents)
        record.write_text(json.dumps(built(peer, index, documents)))
        print(record.read_text())
        return
    with np.load(arguments.tokens) as file:
        queries = file["queries"][: arguments.queries].astype(np.float32)
    truth = [set(row) for row in np.load(arguments.folder.parent / "truth.npy")[: len(queries)].tolist()]
    started = time.perf_counter()
    peer.open(index)
    peer.search(queries[0], K, **next(iter(peer.settings())))
    result: dict[str, Any] = {
        "name": peer.name,
        "version": getattr(peer, "version", None) or version(peer.package),
        "python": platform.python_version(),
        "first_s": time.perf_counter() - started,
        "settings": [],
        **json.loads(record.read_text()),
    }
    for setting in peer.settings():
        result["settings"].append(measure(peer, truth, queries, setting, arguments.limit))
        print(result["settings"][-1], file=sys.stderr, flush=True)
        if result["settings"][-1]["recall"] >= max(GOALS):
            break
    result["peak_mb"] = peak_mb()
    print(json.dumps(result))
