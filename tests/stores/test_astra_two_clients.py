"""Two clients write one id at the same time: the document is wholly one version's, or absent, and is found.

Each interleaving is deterministic: each client has one request in flight at a time, the local Data API holds them, and
a scheduler with a seed decides whose goes next. `run_interleavings` is the benchmark's too (benchmarks/torture.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from astrapy.api_options import APIOptions

from late_interaction import AstraStore, LateInteractionPipeline, StoreError
from late_interaction.stores.astra.doctor import diagnose
from tests.stores.astra import QUICK, SCHEMES
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Request

pytestmark = pytest.mark.slow

WORDS = {"old": 7, "a": 3, "b": 5}
"""How many words each version of the document has: shorter and longer ones, of several requests and of one."""
Operation = Callable[[LateInteractionPipeline], Awaitable[Any]]


def row(version: str) -> dict[str, Any]:
    content = " ".join(f"{version}{i}" for i in range(WORDS[version]))
    return {"doc_id": "d", "content": content, "version": version, "tag": version, "note": version}


OPERATIONS: dict[str, Operation] = {
    "upsert a": lambda p: p.index_documents([row("a")]),
    "upsert b": lambda p: p.index_documents([row("b")]),
    "delete": lambda p: p.delete_document("d"),
    "set tag": lambda p: p.update_metadata("d", {"tag": "set"}),
    "set note": lambda p: p.update_metadata("d", {"note": "set"}),
    "set tag too": lambda p: p.update_metadata("d", {"tag": "too", "other": 1}),
}


async def fit(pipeline: LateInteractionPipeline) -> None:
    with contextlib.suppress(StoreError):  # There may be no document, or another client's fit takes over.
        await pipeline.fit_candidates()


OPERATIONS["fit"] = fit


class Turns:
    """Holds the requests of some clients, and lets one after the other pass.

    Args:
        rng: decides whose request is next.
    """

    def __init__(self, rng: random.Random) -> None:
        self.order: list[str] = []
        self._rng = rng
        self._waiting: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()

    async def hold(self, request: Request) -> None:
        """Wait until it is the turn of the client that sent the request."""
        client = request.user_agent.partition("/")[0]
        turn = self._waiting[client] = asyncio.Event()
        self._changed.set()
        await turn.wait()

    async def run(self, works: dict[str, Awaitable[None]]) -> None:
        """Run the clients to their ends. A request passes only when each client either waits or has ended."""
        tasks = {client: asyncio.ensure_future(work) for client, work in works.items()}
        for task in tasks.values():
            task.add_done_callback(lambda _: self._changed.set())
        while running := [client for client, task in tasks.items() if not task.done()]:
            self._changed.clear()
            if set(running) <= self._waiting.keys():
                client = self._rng.choice(sorted(running))
                self.order.append(client)
                self._waiting.pop(client).set()
            else:
                await self._changed.wait()
        for task in tasks.values():
            await task


@dataclass
class Figures:
    """What came of some interleavings.

    Attributes:
        interleavings: how many were run.
        requests: how many requests were interleaved.
        mixtures: what is not wholly one version's, and how it came about.
        lost: what its own words or its declared fields do not find.
        leftovers: interleavings that left token rows which no document names.
        outcomes: how often each pair of operations ended in which version.
    """

    interleavings: int = 0
    requests: int = 0
    mixtures: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    leftovers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


async def run_interleavings(n: int, seed: int = 0, scheme: str = "tokens") -> Figures:
    """Run `n` random interleavings of two clients' operations on one document of a local Data API.

    Args:
        n: how many.
        seed: of the random choices.
        scheme: how the index finds candidates, as in `SCHEMES`; "fitted" has operations that fit, too.
    """
    names = [name for name in OPERATIONS if scheme == "fitted" or not name.startswith("fit")]
    figures = Figures()
    async with DataApiServer() as server:
        first, second, reader = (client(server, name, scheme) for name in ("first", "second", "reader"))
        for pipeline in (first, second, reader):
            await pipeline.initialize()
        for number in range(n):
            rng = random.Random(seed * 1_000_003 + number)
            await reader.clear()
            before: State = None
            if rng.random() < 0.85:
                await reader.index_documents([row("old")])
                before = ("old", "old", "old", None)
            plans = [rng.choices(names, k=rng.choice((1, 1, 1, 2))) for _ in range(2)]
            turns = Turns(rng)
            server.settings.hold = turns.hold
            works = zip(("first", "second"), (first, second), plans, strict=True)
            await turns.run({name: work(pipeline, plan) for name, pipeline, plan in works})
            server.settings.hold = None
            what = f"seed {seed}, number {number}: {' then '.join(plans[0])} | {' then '.join(plans[1])}"
            figures.interleavings += 1
            figures.requests += len(turns.order)
            await judge(reader, possible(plans, before), what, figures)
        for pipeline in (first, second, reader):
            await pipeline.aclose()
    return figures


def client(server: DataApiServer, name: str, scheme: str) -> LateInteractionPipeline:
    """Make a client with a name that the server sees; two token rows to a request, so that a version takes several."""
    options = SCHEMES[scheme]
    limits = replace(options.get("limits", QUICK), rows=2)
    if scheme == "fitted":
        limits = replace(limits, fitted_from=1)
    database = server.async_database(api_options=APIOptions(callers=[(name, "1")]))
    store = AstraStore(
        database,
        "t",
        filterable={"tag": str},
        concurrency=1,
        retries=0,
        limits=limits,
        candidates=options.get("candidates"),
    )
    return LateInteractionPipeline(store, HashModel(), doc_pool_factor=1)


async def work(pipeline: LateInteractionPipeline, plan: Sequence[str]) -> None:
    for name in plan:
        await OPERATIONS[name](pipeline)


async def judge(pipeline: LateInteractionPipeline, states: set[State], what: str, figures: Figures) -> None:
    """Compare what is stored with every version that it may be."""
    documents = await pipeline.find()
    versions = {document.metadata.get("version") for document in documents}
    figures.outcomes[f"{what.partition(': ')[2]} -> {', '.join(sorted(versions)) or 'absent'}"] += 1
    health = await diagnose(pipeline.store, full=True, older_than_s=0, sample=0)
    if health.stale or health.torn or (not documents and health.documents):
        figures.mixtures.append(f"{what}: {health.to_dict()}")
    figures.leftovers += bool(health.orphans or health.surplus)
    if not documents:
        if None not in states:
            figures.mixtures.append(f"{what}: absent, and not by a deletion")
        return
    (document,) = documents
    metadata = document.metadata
    version = metadata["version"]
    wanted = row(version)
    state = (version, metadata["tag"], metadata["note"], metadata.get("other"))
    if document.content != wanted["content"] or state not in states:
        figures.mixtures.append(f"{what}: {state} is not one of {states}")
    results = await pipeline.search(document.content, k=1)
    if [(r.doc_id, round(r.score)) for r in results] != [("d", WORDS[version])]:
        figures.lost.append(f"{what}: its own words find {results}")
    chosen = {"tag": metadata["tag"]}
    found = await pipeline.search(document.content, k=1, filter=chosen)
    if [r.doc_id for r in found] != ["d"] or await pipeline.count(chosen) != 1:
        figures.lost.append(f"{what}: {chosen} finds {found}")


State = tuple[Any, ...] | None
"""A document's version, tag, note and other; None if it is absent."""


def possible(plans: Sequence[Sequence[str]], before: State) -> set[State]:
    """Return the states in which the clients' operations may leave the document, one after the other in any order.

    Where both clients update metadata, one update may have been made of what the other had not changed yet, and
    overwrites it: then the document is as if the other update had not happened.
    """
    both = all(any(name.startswith("set") for name in plan) for plan in plans)
    states = set()
    for first, second in itertools.product(
        *(_without_updates(plan) if both else [list(plan)] for plan in plans)
    ):
        for places in itertools.combinations(range(len(first) + len(second)), len(first)):
            order = iter(first), iter(second)
            state = before
            for place in range(len(first) + len(second)):
                state = _apply(next(order[place not in places]), state)
            states.add(state)
    return states


def _without_updates(plan: Sequence[str]) -> list[list[str]]:
    """Return the plan with every part of its metadata updates left out."""
    return [
        [name for name, stays in zip(plan, kept, strict=True) if stays]
        for kept in itertools.product((True, False), repeat=len(plan))
        if all(stays or name.startswith("set") for name, stays in zip(plan, kept, strict=True))
    ]


def _apply(name: str, state: State) -> State:
    if name == "fit":
        return state
    if name == "delete":
        return None
    if name.startswith("upsert"):
        return (name[-1], name[-1], name[-1], None)
    if state is None:
        return None
    version, tag, note, other = state
    return {
        "set tag": (version, "set", note, other),
        "set note": (version, tag, "set", other),
        "set tag too": (version, "too", note, 1),
    }[name]


@pytest.mark.parametrize(("scheme", "requests"), [("tokens", 15), ("documents", 8), ("fitted", 12)])
async def test_no_interleaving_of_two_clients_mixes_versions(scheme, requests):
    figures = await run_interleavings(60, seed=1, scheme=scheme)
    assert figures.interleavings == 60
    assert figures.requests > 60 * requests
    assert figures.mixtures == []
    assert figures.lost == []
    assert len(figures.outcomes) > 20
