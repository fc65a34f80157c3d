"""Ours beside each peer in an environment of its own, one after the other, as a table.

    uv run --all-extras python benchmarks/peers/run.py ../shared/data/tokens_5k.npz --keep ~/peers
    uv run --all-extras python benchmarks/peers/run.py ../shared/data/tokens_5k.npz --keep ~/peers --documents 20000 \
        --only fast_plaid lancedb --build

A peer is built once, into a folder of `--keep`; `--build` stops there, so that only searches need a quiet machine. Each
peer is searched right after ours, so that both see the same state of the machine; the ratio is of CPU seconds
(`getrusage`, all threads). A line is the cheapest setting that reaches a goal. What fails, or takes longer than
`--timeout` seconds, is printed with the reason. More documents than the file has are made of them, as in growth.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from growth import made  # noqa: E402 - the benchmarks are scripts beside each other, no package
from harness import BUILT, GOALS, exact, load  # noqa: E402

from late_interaction import RaggedTokens  # noqa: E402

PEERS = {
    "ours.py --brute": None,
    "lateweave_kernel.py": ["lateweave==0.2.0"],
    "chroma_one.py": ["chromadb==1.5.9"],
    "qdrant_edge_shard.py": ["qdrant-edge-py==0.9.0"],
    "qdrant_local.py": ["qdrant-client==1.20.0"],
    "lancedb_multivector.py": ["lancedb==0.40.0"],
    "lancedb_multivector.py --index": ["lancedb==0.40.0"],
    "fast_plaid_index.py": ["fast-plaid==1.7.0.2110"],
    "fast_plaid_index.py --eight": ["fast-plaid==1.7.0.2110"],
    "next_plaid_crate.py": [],
    "next_plaid_crate.py --eight": [],
    "pylate_plaid.py": ["pylate==1.6.0", "fast-plaid==1.4.6.290"],
    "pylate_voyager.py": ["pylate==1.6.0", "voyager==2.1.0"],
}
"""Each script, and what its environment has; None for this one."""


def tokens_of(arguments: argparse.Namespace, keep: Path) -> Path:
    """Return a file with as many documents as are asked for, and keep the exact top 10 beside the indexes."""
    path: Path = arguments.tokens
    with np.load(path) as file:
        n_real = len(file["offsets"]) - 1
    if n_real < arguments.documents:
        path = keep / "tokens.npz"
        if not path.exists():
            documents, queries = load(arguments.tokens, None)
            real = RaggedTokens.from_matrices(documents)
            documents = [matrix for some in made(real, arguments.documents) for matrix in some]
            tokens = np.concatenate(documents)
            codes = np.rint(tokens * (127 / np.abs(tokens).max(axis=1, keepdims=True))).astype(np.int8)
            offsets = np.cumsum([0, *map(len, documents)])
            np.savez(path, codes=codes, offsets=offsets, queries=queries)
    if not (keep / "truth.npy").exists():
        documents, queries = load(path, arguments.documents)
        np.save(keep / "truth.npy", exact(documents, queries))
    return path


def run(
    what: str, script: str, needs: list[str] | None, arguments: argparse.Namespace
) -> dict[str, Any] | str:
    """Return what a script measured, or why it did not."""
    file, *options = script.split()
    start = [sys.executable]
    if needs is not None:
        packages = [part for each in [*needs, "numpy"] for part in ("--with", each)]
        start = ["uv", "run", "-q", "--isolated", "--no-project", *packages, "python"]
    folder = arguments.place / "-".join([file.removesuffix(".py"), *(one.strip("-") for one in options)])
    if what == "build" and (folder / BUILT).exists():
        return json.loads((folder / BUILT).read_text())
    if what == "build":
        shutil.rmtree(folder, ignore_errors=True)  # what was left by one that did not end
    command = [*start, str(HERE / file), *options, what, str(arguments.file.resolve()), str(folder)]
    command += ["--documents", str(arguments.documents), "--queries", str(arguments.queries)]
    command += ["--limit", str(arguments.limit)]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=arguments.timeout,
            cwd=HERE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"{what}: not done after {arguments.timeout:.0f} s"
    if done.returncode:
        return f"{what}: " + (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return json.loads(done.stdout.strip().splitlines()[-1])


def cheapest(result: dict[str, Any], goal: float) -> dict[str, Any]:
    """Return the cheapest setting that reaches a recall, or else the one of the highest."""
    reached = [one for one in result["settings"] if one["recall"] >= goal]
    if reached:
        return min(reached, key=lambda one: one["cpu_ms"])
    return max(result["settings"], key=lambda one: one["recall"])


def rows(result: dict[str, Any], ours: dict[str, Any] | None) -> list[str]:
    """Return lines of the table: for each goal the cheapest setting that reaches it, beside ours for that goal."""
    chosen = {goal: cheapest(result, goal) for goal in GOALS}
    lines = []
    for one in {id(each): each for each in chosen.values()}.values():
        goals = [goal for goal in GOALS if chosen[goal] is one and one["recall"] >= goal]
        ratio = (
            "1"
            if ours is None
            else f"{one['cpu_ms'] / cheapest(ours, max(goals, default=min(GOALS)))['cpu_ms']:.2f}"
        )
        cells = (
            f"{result['name']} {result['version']}",
            ", ".join(map(str, goals)) or "none",
            f"{one['recall']:.3f}",
            f"{one['cpu_ms']:.1f}",
            f"{one['wall_ms']:.1f}",
            ratio,
            f"{result['build_cpu_s']:.1f}",
            f"{result['build_wall_s']:.1f}",
            f"{result['megabytes']:.0f}",
            f"{result['build_mb']:.0f}",
            f"{result['peak_mb']:.0f}",
            str(one["queries"]),
            json.dumps(one["setting"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokens", type=Path, help="matrices as token_matrices.py makes them")
    parser.add_argument("--keep", type=Path, required=True, help="where indexes are built and kept")
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--only", nargs="*", help="scripts whose names begin so")
    parser.add_argument(
        "--build", action="store_true", help="build what is not built yet, and search nothing"
    )
    arguments = parser.parse_args()
    arguments.place = arguments.keep / str(arguments.documents)
    arguments.place.mkdir(parents=True, exist_ok=True)
    arguments.file = tokens_of(arguments, arguments.place)
    print(
        "| engine | goal | recall@10 | CPU ms | wall ms | CPU, ours = 1 | build, CPU s | build, s | MB on disk | "
        "MB to build | MB to search | queries | setting |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for script, needs in PEERS.items():
        if arguments.only and not script.startswith(tuple(arguments.only)):
            continue
        built = run("build", script, needs, arguments)
        if isinstance(built, str):
            print(f"| {script} | {built} |", flush=True)
            continue
        if arguments.build:
            print(f"| {script} | {json.dumps(built)} |", flush=True)
            continue
        for what in ("build", "search"):
            ours = run(what, "ours.py", None, arguments)
            assert not isinstance(ours, str), ours
        result = run("search", script, needs, arguments)
        print(*rows(ours, None), sep="\n", flush=True)
        print(
            f"| {script} | {result} |" if isinstance(result, str) else "\n".join(rows(result, ours)),
            flush=True,
        )


if __name__ == "__main__":
    main()
