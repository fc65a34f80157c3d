"""Measure loading on Astra: documents a second, by the service's latency and its limits, and what the run waits for.

    python benchmarks/astra_loading.py [--documents 300] [--matrices ../shared/data/tokens_5k.npz]

The pace of the library (requests in flight and rows of an insert follow what the service bears) is beside a fixed one
of 20 requests of 50 rows. The local Data API (tools/data_api) runs in a process of its own; its switches give the
latency, and the limit on rows a second, beyond which it answers HTTP 429. The two alternate over the repetitions; shown
are medians. "fails" is an index that was not written within the 60 s for which lost requests are sent again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from astrapy import DataAPIClient

from benchmarks.encoded import token_matrices
from late_interaction import AstraStore, LateInteractionPipeline, PrecomputedEmbeddings, StoreWriteError
from late_interaction.pacing import Waits
from late_interaction.stores.astra.pace import Pace

CONDITIONS: dict[str, dict[str, Any]] = {
    "0 ms": {},
    "5 ms": {"latency_ms": 5},
    "20 ms": {"latency_ms": 20},
    "20 ms, 2,000 rows/s": {"latency_ms": 20, "rows_per_s": 2000},
    "20 ms, 500 rows/s": {"latency_ms": 20, "rows_per_s": 500},
    "20 ms, and 2 ms a row, one after the other": {"latency_ms": 20, "row_ms": 2},
    "the same, timeout_s=1.5": {"latency_ms": 20, "row_ms": 2, "timeout_s": 1.5},
}


def serve(pipe: Connection) -> None:
    """Run the local Data API: each message has its switches, and is answered by the requests since the last one."""
    from tools.data_api import DataApiServer, Settings

    async def run() -> None:
        async with DataApiServer() as server:
            pipe.send((server.endpoint, server.token, server.keyspace))
            while (switches := await asyncio.to_thread(pipe.recv)) is not None:
                refused = sum(request.status == 429 for request in server.log.requests)
                inserts = server.log.select("insertMany")
                written = sum(request.rows_written for request in inserts)
                pipe.send((len(server.log.requests), refused, written / max(1, len(inserts) - refused)))
                server.log.clear()
                for name, value in vars(Settings(**switches)).items():
                    setattr(server.settings, name, value)

    with suppress(EOFError):
        asyncio.run(run())


class Fixed(Pace):
    """A pace that does not follow the service."""

    def answered(self, sent_at: float, n_rows: int = 0) -> None:
        """Do nothing."""

    def overloaded(self, sent_at: float) -> None:
        """Do nothing."""


async def load(database: Any, pipe: Connection, switches: dict[str, Any], pace: str, data: Any) -> Any:
    """Load all documents into a new index; return documents a second, and what was asked."""
    rows, matrices = data
    switches = dict(switches)
    store = AstraStore(database, "loading", timeout_s=switches.pop("timeout_s", 20.0))
    model = PrecomputedEmbeddings(matrices[0].shape[1], "benchmark")
    async with LateInteractionPipeline(store, model, doc_pool_factor=2) as pipeline:
        if pace == "fixed":
            store.requests.pace.__class__ = Fixed
        pipe.send(switches)
        pipe.recv()
        waits = Waits(store.waited)
        started = time.perf_counter()
        with waits.of("writing"):
            try:
                await pipeline.index_embeddings(rows, matrices)
            except StoreWriteError:
                written = 0
            else:
                written = len(rows)
        took_s = time.perf_counter() - started
        pipe.send({})
        requests, refused, rows_each = pipe.recv()
        await pipeline.drop()
    return written / took_s, requests, refused, rows_each, waits.shares().get("service", 0)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--matrices", type=Path, default=Path("../shared/data/tokens_5k.npz"))
    arguments = parser.parse_args()
    matrices, _ = token_matrices(arguments.matrices, arguments.documents)
    rows = [{"doc_id": f"doc-{i}", "content": f"passage {i} " * 40} for i in range(len(matrices))]

    pipe, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(other,), daemon=True)
    process.start()
    endpoint, token, keyspace = pipe.recv()

    print(f"{len(rows):,} documents, {sum(map(len, matrices)) / len(rows) / 2:.0f} token rows each")
    print(
        "\n| service | pace | documents/s | requests | of them refused | rows of an insert | waits for service |"
    )
    print("|---|---|---|---|---|---|---|")
    for condition, switches in CONDITIONS.items():
        runs: dict[str, list[Any]] = {"follows": [], "fixed": []}
        for _, pace in itertools.product(range(arguments.repetitions), runs):
            database = DataAPIClient(token, environment="hcd").get_async_database(endpoint, keyspace=keyspace)
            runs[pace].append(await load(database, pipe, switches, pace, (rows, matrices)))
        for pace, measured in runs.items():
            each, requests, refused, rows_each, service = map(statistics.median, zip(*measured, strict=True))
            shown = f"{each:.1f}" if each else "fails"
            print(
                f"| {condition} | {pace} | {shown} | {requests:,.0f} | {refused:,.0f} | {rows_each:.0f} | "
                f"{service:.0%} |",
                flush=True,
            )
    pipe.send(None)
    process.join()


if __name__ == "__main__":
    asyncio.run(main())
