"""The Data API fails in every way it knows, while documents are indexed, replaced, deleted and searched."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from late_interaction import AstraStore, LateInteractionPipeline
from late_interaction.errors import DocumentError, StoreError
from late_interaction.maxsim import maxsim
from late_interaction.stores.astra.limits import Limits
from tests.support.models import HashModel
from tests.torture.figures import Figures
from tools.data_api import DataApiServer, Fault, Settings

ACTIONS: tuple[Any, ...] = (
    "http_error",
    "reset",
    "malformed_json",
    "error_envelope",
    "hang",
    "partial_insert",
)


async def run_faults(runs: int, rows: int = 100, seed: int = 0) -> Figures:
    """Run the whole life of an index `runs` times, each under another kind, rate and side of fault."""
    figures = Figures()
    rng = random.Random(seed)
    for number in range(runs):
        action = ACTIONS[number % len(ACTIONS)]
        applied, probability = bool(number // len(ACTIONS) % 2), rng.choice([0.02, 0.05, 0.2])
        command = "insertMany" if action == "partial_insert" else None
        fault = Fault(
            action,
            command=command,
            probability=probability,
            applied=applied,
            status=rng.choice([429, 500, 503]),
        )
        async with DataApiServer(Settings(faults=[fault])) as server:
            what = f"run {number}: {action} at {probability}, {'applied' if applied else 'not applied'}"
            await _Run(server, fault, rows, figures, what).run()
        figures.cases += fault.fired
        figures.counts["runs"] += 1
        figures.counts["requests"] += fault.matched
    return figures


def row(number: int, version: str) -> dict[str, Any]:
    words = " ".join(f"{version}{number}x{i}" for i in range(3 if version == "new" else 5))
    return {
        "doc_id": f"d{number}",
        "content": f"{version} word{number} {words}",
        "version": version,
        "number": number,
    }


class _Run:
    """One life of an index: all rows are indexed, a fifth replaced, a fifth deleted, and it is searched meanwhile."""

    def __init__(self, server: DataApiServer, fault: Fault, n: int, figures: Figures, what: str) -> None:
        self.server, self.fault, self.n, self.figures, self.what = server, fault, n, figures, what
        self.model = HashModel()
        self.state: dict[str, str] = {}
        self.allowed: dict[str, set[str]] = {f"d{i}": {"old"} for i in range(n)}
        self.over = asyncio.Event()

    def pipeline(self, timeout_s: float) -> LateInteractionPipeline:
        store = AstraStore(
            self.server.async_database(),
            "torture",
            timeout_s=timeout_s,
            retries=5,
            limits=Limits(first_wait_s=0.005, longest_wait_s=0.05),
        )
        return LateInteractionPipeline(store, self.model, doc_pool_factor=1, query_pool_distance=0)

    async def run(self) -> None:
        faults, self.server.settings.faults = self.server.settings.faults, []
        timeout_s = 0.3 if self.fault.action == "hang" else 10
        writer, reader = self.pipeline(timeout_s), self.pipeline(timeout_s)
        await writer.initialize()
        await reader.initialize()
        self.server.settings.faults = faults
        searching = asyncio.create_task(self.search(reader))
        try:
            await self.index(writer, [row(i, "old") for i in range(self.n)])
            await self.index(writer, [row(i, "new") for i in range(self.n // 5)])
            await self.delete(writer, [f"d{i}" for i in range(self.n // 5, 2 * self.n // 5)])
        finally:
            self.over.set()
            await searching
        self.server.settings.faults = []
        await writer.aclose()
        await reader.aclose()
        await self.judge()

    async def index(self, pipeline: LateInteractionPipeline, rows: list[dict[str, Any]]) -> None:
        todo = {each["doc_id"]: each for each in rows}
        for each in rows:
            self.allowed[each["doc_id"]].add(each["version"])

        async def attempt() -> None:
            try:
                written = list(await pipeline.index_documents(list(todo.values())))
            except (StoreError, DocumentError) as error:
                written = list(error.indexed)
            for doc_id in written:
                self.state[doc_id] = todo.pop(doc_id)["version"]

        await self._until(attempt, lambda: not todo)

    async def delete(self, pipeline: LateInteractionPipeline, doc_ids: list[str]) -> None:
        done = False

        async def attempt() -> None:
            nonlocal done
            try:
                await pipeline.delete_documents(doc_ids)
            except StoreError:
                return
            done = True
            for doc_id in doc_ids:
                self.state.pop(doc_id, None)

        await self._until(attempt, lambda: done)

    async def _until(
        self, attempt: Callable[[], Coroutine[Any, Any, None]], done: Callable[[], bool]
    ) -> None:
        for _ in range(60):
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - counted
                self.figures.note("foreign", f"{self.what}: {error!r}")
                return
            if done():
                return
        self.figures.note("lost", f"{self.what}: 60 attempts did not suffice")

    async def search(self, pipeline: LateInteractionPipeline) -> None:
        rng = random.Random(0)
        while not self.over.is_set():
            query = f"old word{rng.randrange(self.n)}"
            try:
                results = await pipeline.search(query, k=5)
            except StoreError:
                self.figures.counts["searches that said that the store failed"] += 1
                continue
            except Exception as error:  # noqa: BLE001 - counted
                self.figures.note("foreign", f"{self.what}: a search: {error!r}")
                continue
            self.figures.counts["searches"] += 1
            if len({result.doc_id for result in results}) != len(results):
                self.figures.note("doubled", f"{self.what}: a search for {query!r}")
            encoded = self.model.encode_queries([query])[0]
            for result in results:
                version, number = result.metadata["version"], result.metadata["number"]
                texts = [row(number, each)["content"] for each in ("old", "new")]
                rights = [
                    float(maxsim(encoded, [matrix])[0]) for matrix in self.model.encode_documents(texts)
                ]
                if min(abs(result.score - right) for right in rights) > 0.05:
                    self.figures.note(
                        "wrong", f"{self.what}: {result.doc_id} scores {result.score}, not {rights}"
                    )
                if (
                    result.content != row(number, version)["content"]
                    or version not in self.allowed[result.doc_id]
                ):
                    self.figures.note(
                        "wrong", f"{self.what}: {result.doc_id} is {version}: {result.content!r}"
                    )
            await asyncio.sleep(0.005)

    async def judge(self) -> None:
        """Compare what is stored with what was acknowledged, and look for each document by its own words."""
        pipeline = self.pipeline(60)
        await pipeline.initialize()
        documents = await pipeline.find()
        found = {document.doc_id: document.metadata["version"] for document in documents}
        if len(found) != len(documents):
            self.figures.note("doubled", self.what, len(documents) - len(found))
        if found != self.state:
            differ = sorted(found.items() ^ self.state.items())
            self.figures.note("lost", f"{self.what}: {differ[:5]}", len(differ))
        for document in documents:
            if document.content != row(document.metadata["number"], document.metadata["version"])["content"]:
                self.figures.note("wrong", f"{self.what}: {document}")
        for document in documents[:: max(1, len(documents) // 20)]:
            results = await pipeline.search(document.content, k=1)
            if [result.doc_id for result in results] != [document.doc_id]:
                self.figures.note("lost", f"{self.what}: its own words do not find {document.doc_id}")
        await pipeline.aclose()
