"""Many processes index into one folder at once, and search meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from late_interaction import LateInteractionPipeline
from late_interaction.maxsim import maxsim
from tests.support.models import HashModel
from tests.torture.figures import Figures

BATCH = 10


def content(process: int, number: int) -> str:
    return f"process{process} number{number} " + " ".join(
        f"w{(process * 7 + number * j) % 97}" for j in range(20)
    )


def run_writers(processes: int, documents: int) -> tuple[Figures, float]:
    """Let processes index documents, `BATCH` to a call; return what came of it and documents a second.

    Each call is followed by two searches: for a document of that call, and one that all processes replace again and
    again. The time is that from the first write to the last, in all processes.
    """
    figures = Figures()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.writers"])
    with tempfile.TemporaryDirectory() as folder:
        pipes, workers = [], []
        for process in range(processes):
            ours, theirs = context.Pipe()
            workers.append(
                context.Process(target=work, args=(folder, process, documents, theirs), daemon=True)
            )
            workers[-1].start()
            theirs.close()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        begin = time.monotonic()
        for pipe in pipes:
            pipe.send("go")
        for pipe, worker in zip(pipes, workers, strict=True):
            try:
                figures.add(pipe.recv())
            except EOFError:
                figures.note("foreign", "a writer ended before its end")
            worker.join()
        seconds = time.monotonic() - begin
        asyncio.run(_judge(Path(folder), processes, documents, figures))
    return figures, processes * documents / seconds


def work(folder: str, process: int, documents: int, pipe: Connection) -> None:
    figures = Figures()

    async def main() -> None:
        model = HashModel()
        async with LateInteractionPipeline(
            folder, model, doc_pool_factor=1, query_pool_distance=0
        ) as pipeline:
            pipe.send("ready")
            await asyncio.to_thread(pipe.recv)
            for first in range(0, documents, BATCH):
                numbers = range(first, min(first + BATCH, documents))
                rows = [{"doc_id": f"{process}-{i}", "content": content(process, i)} for i in numbers]
                begin = time.monotonic()
                await pipeline.index_documents(
                    [*rows, {"doc_id": "everyones", "content": f"everyones p{process} p{process}"}]
                )
                figures.longest_s = max(figures.longest_s, time.monotonic() - begin)
                figures.cases += len(rows)
                for text, wanted in ((rows[0]["content"], rows[0]["doc_id"]), ("everyones", "everyones")):
                    await _search(pipeline, model, text, wanted, figures)

    try:
        asyncio.run(main())
    except Exception as error:  # noqa: BLE001 - counted
        figures.note("foreign", f"process {process}: {error!r}")
    pipe.send(figures)


async def _search(
    pipeline: LateInteractionPipeline, model: HashModel, text: str, wanted: str, figures: Figures
) -> None:
    results = await pipeline.search(text, k=3)
    figures.counts["searches"] += 1
    if [result.doc_id for result in results].count(wanted) > 1:
        figures.note("doubled", f"a search for {text!r}")
    if not results or results[0].doc_id != wanted:
        figures.note("lost", f"a search for {text!r} finds {results[:2]}")
    for result in results:
        query = model.encode_queries([text])[0]
        right = float(maxsim(query, model.encode_documents([result.content]))[0])
        if abs(right - result.score) > 0.01 * len(query):  # int8
            figures.note(
                "wrong", f"a search for {text!r} gives {result.doc_id} the score {result.score}, not {right}"
            )


async def _judge(folder: Path, processes: int, documents: int, figures: Figures) -> None:
    async with LateInteractionPipeline(
        folder, HashModel(), doc_pool_factor=1, query_pool_distance=0
    ) as pipeline:
        found = {document.doc_id: document.content for document in await pipeline.find()}
        count = await pipeline.count()
    if count != len(found):
        figures.note("doubled", f"{count} documents, {len(found)} ids", count - len(found))
    expected = {f"{p}-{i}": content(p, i) for p in range(processes) for i in range(documents)}
    missing = expected.keys() - found.keys()
    if missing:
        figures.note("lost", f"{sorted(missing)[:5]}", len(missing))
    for doc_id, text in expected.items():
        if found.get(doc_id, text) != text:
            figures.note("wrong", f"{doc_id} has the content {found[doc_id]!r}")
