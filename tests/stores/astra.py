"""Pipelines on the local Data API, and rows for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from late_interaction import AstraStore, LateInteractionPipeline
from late_interaction.stores.astra.limits import Limits
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Fault

FILTERABLE = {"year": int, "lang": str}
QUICK = Limits(first_wait_s=0.001, longest_wait_s=0.005)
"""Retries without the waits."""
FITTED = replace(QUICK, fitted_from=3, document_width=16, part_bytes=500)
"""Document vectors almost from the start, by a reduction of several parts."""
SCHEMES = {
    "tokens": {},
    "documents": {"candidates": "documents"},
    "fitted": {"candidates": "documents", "limits": FITTED},
}
"""Options of `pipeline_on` for each way in which an index finds candidates."""


def pipeline_on(server: DataApiServer, name: str = "things", **options) -> LateInteractionPipeline:
    """Make a pipeline with a hash model on the index `name`; options of the store are passed on to it."""
    store = {
        key: options.pop(key)
        for key in (
            "timeout_s",
            "retry_for_s",
            "retries",
            "concurrency",
            "filterable",
            "limits",
            "candidates",
            "lexical",
        )
        if key in options
    }
    store = {"limits": QUICK, **store}
    return LateInteractionPipeline(
        AstraStore(server.async_database(), name, **store), HashModel(), **{"doc_pool_factor": 1, **options}
    )


def rows(n: int, version: str = "old", n_words: int = 4) -> list[dict]:
    """Make `n` rows whose words no other row or version has."""
    return [
        {
            "doc_id": f"d{i}",
            "content": " ".join(f"{version}{i}x{j}" for j in range(n_words)),
            "year": i,
            "lang": version,
        }
        for i in range(n)
    ]


@dataclass
class CutAfter(Fault):
    """From a number of requests on, no request is answered; the first of them may still be applied."""

    after: int = 0
    seen: int = field(default=0, init=False)
    cut: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __init__(self, after: int, action="http_error", applied: bool = False) -> None:
        super().__init__(action, applied=applied)
        self.after, self.seen, self.cut = after, 0, asyncio.Event()

    def fires(self, command, table, random) -> bool:
        self.seen += 1
        if self.seen <= self.after:
            return False
        if self.seen > self.after + 1:
            self.applied = False
        self.cut.set()
        return True


@dataclass
class Down(Fault):
    """One command fails after the first few."""

    def __init__(self, command: str, after: int) -> None:
        super().__init__("http_error", command=command)
        self.after = after

    def fires(self, command, table, random) -> bool:
        if command != self.command:
            return False
        self.matched += 1
        return self.matched > self.after
