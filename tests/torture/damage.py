"""Damaged files and senseless arguments: an error of ours or a right answer, never anything else."""

from __future__ import annotations

import io
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from late_interaction import (
    Document,
    EncodedDocument,
    LateInteractionPipeline,
    LocalStore,
)
from late_interaction.errors import LateInteractionError, StoreError
from late_interaction.filters import matches, parse_filter
from late_interaction.packing import pack, unpack
from late_interaction.stores.local import sqlite
from tests.torture.figures import Figures
from tests.torture.model import DIM, LIMITS, SPEC, document, matrix, pipeline_on

Attempt = Callable[[], Coroutine[Any, Any, Any]]


async def run_damaged_index_files(n: int, seed: int = 0) -> Figures:
    """Damage the search index file `n` times: every answer of a search must stay the right one."""
    figures, rng = Figures(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder, "damaged", limits=LIMITS)
        await store.open(SPEC)
        await store.upsert([document(f"d{i}", "v", 3 + i % 14) for i in range(300)])
        await store.optimize()
        path, query = store.folder / "centroids.npz", matrix("query", "v", 4)
        good = path.read_bytes()
        right = _ids(await pipeline_on(store).search_with_embeddings(query, k=5, exact=True))
        await store.close()
        for number in range(n):
            figures.cases += 1
            path.write_bytes(_damaged(good, rng) if rng.random() < 0.7 else _hostile(good, rng))
            store._views.forget()  # as in a new process: what was read before is trusted
            try:
                used = await _search_with(
                    folder, query, right, figures, f"damage {number}", write=number % 50 == 0
                )
            except Exception as error:  # noqa: BLE001 - counted
                figures.note("foreign", f"damage {number}: {error!r}")
                continue
            figures.counts["index files used" if used else "index files refused"] += 1
            if number % 50 == 0 and not used:  # it was built anew
                good = path.read_bytes()
    return figures


async def _search_with(
    folder: str, query: np.ndarray, right: list[str], figures: Figures, what: str, *, write: bool
) -> bool:
    """Search with whatever index file is there; write and optimize as well, if asked; say whether it was used."""
    store = LocalStore(folder, "damaged", limits=LIMITS)
    await store.open(SPEC)
    try:
        found = _ids(await pipeline_on(store).search_with_embeddings(query, k=5))
        used = bool((await store.info())["documents_in_index"])
        # Candidates are scored exactly: a usable index may leave out the last of them, and nothing else.
        if found[:1] != right[:1] or (not used and found != right):
            figures.note("wrong", f"{what}: {found}, not {right}")
        if write:
            await store.upsert([document("d0", "v", 3)])
            await store.optimize()
            again = _ids(await pipeline_on(store).search_with_embeddings(query, k=5, exact=True))
            if again != right or not (await store.info())["documents_in_index"]:
                figures.note("wrong", f"{what}, after optimize(): {again}, not {right}")
        return used
    finally:
        await store.close()


def _ids(results: list[Any]) -> list[str]:
    return [result.doc_id for result in results]


def _damaged(good: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or replace bytes at random."""
    data = bytearray(good)
    match rng.randrange(6):
        case 0:
            for _ in range(rng.randint(1, 40)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            first = rng.randrange(len(data))
            data[first : first + 4096] = bytes(min(4096, len(data) - first))
        case 3:
            first = rng.randrange(len(data))
            del data[first : first + rng.randint(1, 2000)]
        case 4:
            first = rng.randrange(len(data))
            data[first:first] = rng.randbytes(rng.randint(1, 2000))
        case _:
            return rng.randbytes(rng.randrange(5000))
    return bytes(data)


def _hostile(good: bytes, rng: random.Random) -> bytes:
    """An index file of the right form and id, with one value that is not right."""
    with np.load(io.BytesIO(good)) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    name = rng.choice(
        ["centroids", "starts", "postings", "rids", "trained_tokens", "format", "index_id", "build_id"]
    )
    array = arrays[name]
    changes: list[Callable[[], Any]] = [
        lambda: -array if array.dtype.kind in "if" else np.array("x" * 100_000),
        lambda: array.astype(np.float64) * 1e9 if array.dtype.kind in "if" else array,
        lambda: array[::-1] if array.ndim else np.array(2**62),
        lambda: array[:-1] if array.ndim else array.reshape(1),
        lambda: array.reshape(1, -1),
        lambda: np.full(array.shape, np.nan),
        lambda: np.full(array.shape, 2**63 - 1),
        lambda: array.astype(str),
        lambda: array.astype(np.complex64) if array.dtype.kind in "if" else array.reshape(1),
        lambda: np.zeros((0, 0)),
        lambda: np.concatenate([array.ravel(), array.ravel()]),
        lambda: np.array(None, dtype=object),
    ]
    if rng.random() < 0.1:
        del arrays[name]
    else:
        arrays[name] = rng.choice(changes)()
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


async def run_damaged_documents(n: int, seed: int = 0) -> Figures:
    """Damage the SQLite file `n` times: whatever is asked gives an answer or an error of ours.

    SQLite has no checksums, so that a flipped byte in a text cannot be told: answers are not compared.
    """
    figures, rng = Figures(), random.Random(seed)
    busy, sqlite._BUSY_S = sqlite._BUSY_S, 0.2
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = LocalStore(folder, "damaged", limits=LIMITS)
            await store.open(SPEC)
            await store.upsert([document(f"d{i}", "v", 3 + i % 14) for i in range(150)])
            await store.close()
            good = (store.folder / "documents.sqlite3").read_bytes()
            for number in range(n):
                figures.cases += 1
                shutil.rmtree(store.folder)
                store.folder.mkdir()
                (store.folder / "documents.sqlite3").write_bytes(_damaged(good, rng))
                await _use(store, figures, f"damage {number}")
    finally:
        sqlite._BUSY_S = busy
    return figures


async def _use(store: LocalStore, figures: Figures, what: str) -> None:
    store = LocalStore(store.folder.parent, store.name, limits=LIMITS)
    pipeline = pipeline_on(store)
    attempts: dict[str, Attempt] = {
        "open": lambda: store.open(SPEC),
        "search": lambda: pipeline.search_with_embeddings(matrix("query", "v", 3), k=5),
        "find": store.find,
        "filter": lambda: store.count(parse_filter({"n": {"$gt": 5}})),
        "upsert": lambda: store.upsert([document("d7", "w", 5)]),
        "matrices": lambda: store.matrices([f"d{i}" for i in range(20)]),
        "delete": lambda: store.delete(["d8"]),
        "info": store.info,
        "optimize": store.optimize,
    }
    for name, attempt in attempts.items():
        try:
            await attempt()
            figures.counts["calls answered"] += 1
        except LateInteractionError:
            figures.counts["calls refused"] += 1
            if name == "open":
                break
        except Exception as error:  # noqa: BLE001 - counted
            figures.note("foreign", f"{what}, {name}: {error!r}")
    await store.close()


async def run_bad_arguments(n: int, seed: int = 0) -> Figures:
    """Call with `n` senseless arguments: refused by a LateInteractionError, a ValueError or a TypeError, or done."""
    figures, rng = Figures(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder, "arguments", limits=LIMITS)
        await store.open(SPEC)
        kept = [document(f"d{i}", "v", 4) for i in range(20)]
        await store.upsert(kept)
        pipeline = pipeline_on(store)
        await pipeline.initialize()
        kinds: list[Callable[[], Attempt]] = [
            lambda: _filter_attempt(store, rng),
            lambda: _row_attempt(pipeline, rng),
            lambda: _matrix_attempt(store, rng),
            lambda: _blob_attempt(rng),
            lambda: _call_attempt(pipeline, store, rng),
        ]
        for number in range(n):
            figures.cases += 1
            attempt = rng.choice(kinds)()
            try:
                await attempt()
                figures.counts["arguments taken"] += 1
            except (LateInteractionError, ValueError, TypeError):
                figures.counts["arguments refused"] += 1
            except Exception as error:  # noqa: BLE001 - counted
                figures.note("foreign", f"argument {number}: {error!r}")
            if number % 500 == 499:
                await _still_whole(store, pipeline, kept, figures, f"after argument {number}")
        await pipeline.aclose()
    return figures


async def _still_whole(
    store: LocalStore,
    pipeline: LateInteractionPipeline,
    kept: list[EncodedDocument],
    figures: Figures,
    what: str,
) -> None:
    names = [each.document.doc_id for each in kept]
    await store.delete(sorted(await store.existing([d.doc_id for d in await store.find()]) - set(names)))
    there, tokens = await store.matrices(names)
    if there != names or any(
        not np.array_equal(tokens.matrix(i), each.matrix) for i, each in enumerate(kept)
    ):
        figures.note("wrong", f"{what}: the documents are not as they were")
    results = await pipeline.search_with_embeddings(kept[0].matrix, k=1)
    if _ids(results) != ["d0"]:
        figures.note("wrong", f"{what}: {results}")


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any value, of those that JSON knows and others."""
    plain: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.choice([True, False]),
        lambda: rng.choice([0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 3]),
        lambda: rng.choice([0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 1e308]),
        lambda: rng.choice(
            ["", "a", "\0", "\ud800", "é" * 50, "$eq", "x" * 3000, "'; DROP TABLE documents; --"]
        ),
        lambda: rng.choice([b"bytes", 3 + 4j, object(), int, Path("x"), np.float32("nan"), np.int64(7)]),
    ]
    if depth < 4 and rng.random() < 0.4:
        if rng.random() < 0.5:
            return [junk(rng, depth + 1) for _ in range(rng.randint(0, 4))]
        keys = ["a", "", "$eq", "$in", "$and", "$or", "$not", "$gt", "\0", "n", "version", "$foo", "a.b"]
        return {rng.choice(keys): junk(rng, depth + 1) for _ in range(rng.randint(0, 4))}
    if depth == 0 and rng.random() < 0.01:
        value: Any = "deep"
        for _ in range(rng.choice([500, 3000])):
            value = {"$and": [value]} if rng.random() < 0.5 else [value]
        return value
    return rng.choice(plain)()


def _filter_attempt(store: LocalStore, rng: random.Random) -> Attempt:
    fields, operators = (
        ["n", "version", "mark", "missing", "\0"],
        ["$eq", "$ne", "$gt", "$lte", "$in", "$nin", "$exists"],
    )
    spec = junk(rng) if rng.random() < 0.5 else {rng.choice(fields): {rng.choice(operators): junk(rng, 2)}}

    async def attempt() -> None:
        parsed = parse_filter(spec)
        count = await store.count(parsed)
        expected = sum(matches(parsed, each.metadata) for each in await store.find())
        assert count == expected, f"{spec}: {count} by SQL, {expected} by Python"

    return attempt


def _row_attempt(pipeline: LateInteractionPipeline, rng: random.Random) -> Attempt:
    def index() -> Coroutine[Any, Any, Any]:
        row = {
            "doc_id": junk(rng),
            "content": junk(rng),
            rng.choice(["a", "", "\0", "content_type"]): junk(rng),
        }
        for key in rng.sample(list(row), rng.randint(0, 1)):
            del row[key]
        if isinstance(row.get("doc_id"), str) and row["doc_id"].startswith("d"):
            row["doc_id"] = "other"
        return pipeline.index_embeddings([junk(rng) if rng.random() < 0.2 else row], [matrix("x", "y", 3)])

    return index


def _matrix_attempt(store: LocalStore, rng: random.Random) -> Attempt:
    good = matrix("x", "y", 4)
    bad: list[Callable[[], Any]] = [
        lambda: good[:0],
        lambda: good[:, :3],
        lambda: good[0],
        lambda: good * np.float32("nan"),
        lambda: good * np.float32("inf"),
        lambda: good * 0,
        lambda: good.astype(np.complex64),
        lambda: good.astype(str),
        lambda: np.array([[10**30] * DIM], dtype=object),
        lambda: np.full((2, DIM), 1e38, np.float64) * 1e10,
        lambda: np.ma.masked_array(good, mask=True),
        good.tolist,
        lambda: None,
        lambda: "matrix",
        lambda: np.zeros((1, 1, DIM)),
    ]
    value = rng.choice(bad)()
    return lambda: store.upsert([EncodedDocument(Document("other", "text"), value)])


def _blob_attempt(rng: random.Random) -> Attempt:
    async def attempt() -> None:
        blob = bytearray(pack(matrix("x", "y", 4), rng.choice(["float32", "float16", "int8"])))
        if rng.random() < 0.5:
            del blob[rng.randrange(len(blob)) :]
        for _ in range(rng.randint(0, 5)):
            if blob:
                blob[rng.randrange(len(blob))] = rng.randrange(256)
        try:
            found = unpack(bytes(blob))
        except StoreError:
            raise
        except (ValueError, TypeError) as error:
            raise AssertionError(f"unpack promises StoreError, and raised {error!r}") from error
        assert (np.abs(found) <= 2.1).all(), f"unpack gave what no unit vector holds: {found}"

    return attempt


def _call_attempt(pipeline: LateInteractionPipeline, store: LocalStore, rng: random.Random) -> Attempt:
    query = matrix("query", "v", 3)
    calls: list[Attempt] = [
        lambda: pipeline.search_with_embeddings(query, k=junk(rng)),
        lambda: pipeline.search_with_embeddings(junk(rng), k=2),
        lambda: pipeline.search_with_embeddings(query, k=2, filter=junk(rng)),
        lambda: pipeline.search_with_embeddings(
            query, k=2, n_ann_tokens=junk(rng), n_maxsim_candidates=junk(rng)
        ),
        lambda: pipeline.get_documents(junk(rng)),
        lambda: pipeline.find(limit=junk(rng)),
        lambda: pipeline.update_metadata("other", junk(rng)),
        lambda: pipeline.delete_documents([junk(rng), "other"]),
        lambda: pipeline.count(junk(rng) or {"a": 1}),
        lambda: store.existing(["d0", "\0", "\ud800"[:0]]),
    ]
    return rng.choice(calls)
