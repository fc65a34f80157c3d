"""Ours beside each peer in an environment of its own, one after the other, as a table.

    uv run --all-extras python benchmarks/peers/run.py ../shared/data/tokens_5k.npz --documents 5000

Each peer is run right after ours, so that both see the same state of a shared machine; the ratio is of CPU seconds
(`getrusage`, all threads). What fails, or takes longer than `--timeout` seconds, is printed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = {
    "ours.py --brute": None,
    "lateweave_kernel.py": ["lateweave==0.2.0"],
    "chroma_one.py": ["chromadb==1.5.9"],
    "qdrant_edge_shard.py": ["qdrant-edge-py==0.9.0"],
    "qdrant_local.py": ["qdrant-client==1.20.0"],
    "lancedb_multivector.py": ["lancedb==0.40.0"],
    "fast_plaid_index.py": ["fast-plaid==1.7.0.2110"],
}
"""Each script, and what its environment has; None for this one."""


def run(script: str, needs: list[str] | None, arguments: argparse.Namespace) -> dict[str, Any] | str:
    """Return what a script measured, or why it did not."""
    file, *options = script.split()
    start = [sys.executable]
    if needs is not None:
        packages = [part for each in [*needs, "numpy"] for part in ("--with", each)]
        start = ["uv", "run", "-q", "--isolated", "--no-project", *packages, "python"]
    command = [*start, str(HERE / file), str(arguments.tokens.resolve()), *options]
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
        return f"not done after {arguments.timeout:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(result: dict[str, Any], ours: dict[str, Any] | None) -> str:
    """Return a line of the table: the cheapest setting with a recall of .95, or else the best."""
    reached = [one for one in result["settings"] if one["recall"] >= 0.95]
    chosen = reached[0] if reached else max(result["settings"], key=lambda one: one["recall"])
    ratio = "1" if ours is None else f"{chosen['cpu_ms'] / ours['settings'][0]['cpu_ms']:.2f}"
    cells = (
        f"{result['name']} {result['version']}",
        f"{chosen['recall']:.3f}",
        f"{chosen['cpu_ms']:.1f}",
        f"{chosen['wall_ms']:.1f}",
        ratio,
        f"{result['build_cpu_s']:.1f}",
        f"{result['megabytes']:.0f}",
        f"{result['peak_mb'] - result['peak_before_mb']:.0f}",
        str(chosen["queries"]),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--only", nargs="*", help="scripts whose names begin so")
    arguments = parser.parse_args()
    print(
        "| engine | recall@10 | CPU ms | wall ms | CPU, ours = 1 | build, CPU s | MB | peak MB more | queries |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for script, needs in PEERS.items():
        if arguments.only and not script.startswith(tuple(arguments.only)):
            continue
        ours = run("ours.py", None, arguments)
        assert not isinstance(ours, str), ours
        print(row(ours, None), flush=True)
        result = run(script, needs, arguments)
        name = script.removesuffix(".py")
        print(f"| {name}: {result} |" if isinstance(result, str) else row(result, ours), flush=True)


if __name__ == "__main__":
    main()
