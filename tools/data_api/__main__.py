"""Run the local Data API as a process: ``python -m tools.data_api --port 8181``."""

import argparse
import asyncio
from contextlib import suppress

from tools.data_api.server import DataApiServer
from tools.data_api.settings import Settings


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.data_api", description="A local Data API, in memory."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8181, help="0 picks a free port")
    parser.add_argument("--keyspace", default="default_keyspace")
    parser.add_argument("--token", default="local-token", help="what clients must send")
    parser.add_argument(
        "--page-size", type=int, default=50, help="rows in a page of a find without vector sort"
    )
    parser.add_argument("--latency-ms", type=float, default=0.0, help="least duration of a request")
    parser.add_argument("--latency-jitter-ms", type=float, default=0.0, help="random time on top")
    parser.add_argument(
        "--ann-recall-loss", type=float, default=0.0, help="probability that ANN misses a row"
    )
    parser.add_argument("--ann-delay-s", type=float, default=0.0, help="how long ANN does not see a new row")
    parser.add_argument("--seed", type=int, default=0, help="of every chance")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    settings = Settings(
        page_size=arguments.page_size,
        latency_ms=arguments.latency_ms,
        latency_jitter_ms=arguments.latency_jitter_ms,
        ann_recall_loss=arguments.ann_recall_loss,
        ann_delay_s=arguments.ann_delay_s,
    )
    async with DataApiServer(
        settings,
        keyspace=arguments.keyspace,
        token=arguments.token,
        host=arguments.host,
        port=arguments.port,
        seed=arguments.seed,
    ) as server:
        print(f"ASTRA_DB_API_ENDPOINT={server.endpoint}")
        print(f"ASTRA_DB_KEYSPACE={server.keyspace}")
        print(f"ASTRA_DB_APPLICATION_TOKEN={server.token}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(_arguments()))
