"""Requests per second of `late-interaction serve` beside the pipeline alone, with 1, 4 and 16 callers at a time.

    uv run --all-extras python benchmarks/serving.py --documents 1500 --searches 200

The index holds docstrings of the standard library, by the demo's model. The pipeline is called in this process, the
server over a socket as a process of its own; the page encodes its results once more, to mark them. Seconds of a core
are those of the process that searches, its threads among them, so that they tell what a search costs on a shared
machine. The ways take turns, and the median of the rounds stands in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from late_interaction import LateInteractionPipeline, load_model
from late_interaction.demo import stdlib_rows

CALLERS = (1, 4, 16)
ROUNDS = 3
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rate:
    """Searches per second, and milliseconds of a core for each."""

    per_second: float
    core_ms: float


def core_seconds(pid: int) -> float:
    """Return the processor seconds of a process so far, its threads among them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def rate(ask: Callable[[str], Awaitable[None]], queries: list[str], callers: int, pid: int) -> Rate:
    """Ask all queries, so many at a time."""
    left = iter(queries)

    async def caller() -> None:
        for query in left:
            await ask(query)

    core, started = core_seconds(pid), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds = time.perf_counter() - started
    return Rate(len(queries) / seconds, 1000 * (core_seconds(pid) - core) / len(queries))


def started(folder: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server; return its process and its address."""
    code = "from late_interaction.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "serve",
        "--db",
        folder,
        "--model",
        "demo",
        "--device",
        "cpu",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://\S+:\d+", line):
            return process, found[0]
    raise SystemExit("the server did not start")


async def measure(folder: str, n_documents: int, queries: list[str]) -> None:
    model = load_model("demo", device="cpu")
    async with LateInteractionPipeline(folder, model) as pipeline:
        await pipeline.index_documents(stdlib_rows(n_documents))
        await pipeline.optimize()
        print(f"{await pipeline.count():,} documents, {len(queries)} searches, k = 10")
        process, address = started(folder)
        limits = httpx.Limits(max_connections=max(CALLERS))
        try:
            async with httpx.AsyncClient(
                base_url=address, limits=limits, timeout=120, trust_env=False
            ) as client:

                async def alone(query: str) -> None:
                    assert len(await pipeline.search(query)) == 10

                async def api(query: str) -> None:
                    answer = await client.post("/api/search", json={"query": query})
                    assert len(answer.json()["results"]) == 10

                async def page(query: str) -> None:
                    answer = await client.get("/", params={"q": query})
                    assert "10 results" in answer.text, answer.text[:200] + answer.text[-3000:]

                ways = {
                    "pipeline alone": (alone, os.getpid()),
                    "API": (api, process.pid),
                    "page": (page, process.pid),
                }
                rates: dict[tuple[str, int], list[Rate]] = {}
                for ask, pid in ways.values():
                    await rate(ask, queries[:10], 1, pid)
                for _ in range(ROUNDS):
                    for callers in CALLERS:
                        for way, (ask, pid) in ways.items():
                            some = queries if way != "page" else queries[: max(callers, len(queries) // 5)]
                            rates.setdefault((way, callers), []).append(await rate(ask, some, callers, pid))
        finally:
            process.terminate()
            process.wait()
    print("\n| callers | " + " | ".join(f"{way}, per s (core ms each)" for way in ways) + " | API / alone |")
    print("|" + "---|" * (len(ways) + 2))
    for callers in CALLERS:
        speeds = {way: median(one.per_second for one in rates[way, callers]) for way in ways}
        cores = {way: median(one.core_ms for one in rates[way, callers]) for way in ways}
        cells = [f"{speeds[way]:.0f} ({cores[way]:.1f})" for way in ways]
        ratio = median(
            api.per_second / alone.per_second
            for api, alone in zip(rates["API", callers], rates["pipeline alone", callers], strict=True)
        )
        print(f"| {callers} | {' | '.join(cells)} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--searches", type=int, default=200)
    arguments = parser.parse_args()
    names = [str(row["object"]) for row in stdlib_rows(arguments.searches)]
    queries = [f"what does {name.rpartition('.')[2].replace('_', ' ')} do?" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(folder, arguments.documents, queries))


if __name__ == "__main__":
    main()
