"""Documents that say which version of what they are, and a dict that says which there should be."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from late_interaction import (
    Document,
    EncodedDocument,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
)
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.stores.local.limits import Limits
from tests.torture.figures import Figures

DIM = 8
LIMITS = Limits(exact_tokens=1500)
IDS = 400


def pipeline_on(store: LocalStore) -> LateInteractionPipeline:
    """Make a pipeline of vectors as they are."""
    model = PrecomputedEmbeddings(DIM, "torture")
    return LateInteractionPipeline(store, model, doc_pool_factor=1, query_pool_distance=0, packing="float32")


SPEC = pipeline_on(LocalStore("unused")).spec


class Held(NamedTuple):
    """What is known of one document."""

    version: str
    n_tokens: int
    mark: int


State = dict[str, Held]
Change = tuple[Any, ...]


def matrix(doc_id: str, version: str, n_tokens: int) -> np.ndarray:
    """The token matrix of a document in a version, always the same."""
    rng = np.random.default_rng(zlib.crc32(f"{doc_id}/{version}".encode()))
    rows = rng.normal(size=(n_tokens, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def document(doc_id: str, version: str, n_tokens: int) -> EncodedDocument:
    """A document in a version."""
    metadata = {"version": version, "n": n_tokens, "mark": 0}
    return EncodedDocument(
        Document(doc_id, f"{doc_id} {version}", "text", metadata), matrix(doc_id, version, n_tokens)
    )


def change(rng: random.Random, version: str) -> Change:
    """A change at random."""
    roll = rng.random()
    if roll < 0.5:
        ids = rng.sample(range(IDS), rng.randint(1, 25))
        return ("upsert", version, [(f"d{i}", rng.randint(3, 16)) for i in ids])
    if roll < 0.65:
        return ("delete", [f"d{i}" for i in rng.sample(range(IDS), rng.randint(1, 25))])
    if roll < 0.85:
        return ("mark", f"d{rng.randrange(IDS)}", rng.randrange(1, 1_000_000))
    if roll < 0.92:
        return ("delete where", rng.randint(3, 16))
    if roll < 0.93:
        return ("clear",)
    return ("optimize",)


def applied(state: State, what: Change) -> State:
    """The state after a change."""
    after = dict(state)
    match what:
        case ("upsert", version, chosen):
            for doc_id, n_tokens in chosen:
                after.pop(doc_id, None)
                after[doc_id] = Held(version, n_tokens, 0)
        case ("delete", doc_ids):
            for doc_id in doc_ids:
                after.pop(doc_id, None)
        case ("mark", doc_id, mark) if doc_id in after:
            after[doc_id] = after[doc_id]._replace(mark=mark)
        case ("delete where", n_tokens):
            after = {doc_id: held for doc_id, held in after.items() if held.n_tokens != n_tokens}
        case ("clear",):
            after = {}
    return after


async def apply(store: LocalStore, what: Change) -> None:
    """Make a change in a store."""
    match what:
        case ("upsert", version, chosen):
            await store.upsert([document(doc_id, version, n_tokens) for doc_id, n_tokens in chosen])
        case ("delete", doc_ids):
            await store.delete(doc_ids)
        case ("mark", doc_id, mark):
            await store.update_metadata(doc_id, {"mark": mark})
        case ("delete where", n_tokens):
            await store.delete(parse_filter({"n": n_tokens}))
        case ("clear",):
            await store.clear()
        case ("optimize",):
            await store.optimize()


async def judge(
    store: LocalStore, allowed: Sequence[State], figures: Figures, what: str, rng: random.Random
) -> State:
    """Compare everything that a store gives with the states that it may be in; return the one that it is in."""
    documents = await store.find()
    found = {d.doc_id: Held(d.metadata["version"], d.metadata["n"], d.metadata["mark"]) for d in documents}
    if len(found) != len(documents):
        figures.note("doubled", what, len(documents) - len(found))
    for each in documents:
        if each.content != f"{each.doc_id} {each.metadata['version']}":
            figures.note("wrong", f"{what}: {each.doc_id} has the content {each.content!r}")
    if not any(found == state for state in allowed):
        nearest = min(allowed, key=lambda state: len(state.items() ^ found.items()))
        figures.note(
            "lost",
            f"{what}: {sorted(nearest.items() ^ found.items())[:4]}",
            len(nearest.items() ^ found.items()),
        )
    ids = list(found)
    there, tokens = await store.matrices(ids)
    expected = [matrix(doc_id, found[doc_id].version, found[doc_id].n_tokens) for doc_id in ids]
    if there != ids:
        figures.note("lost", f"{what}: {len(ids) - len(there)} have no matrix", len(ids) - len(there))
    for i, doc_id in enumerate(there):
        if not np.array_equal(tokens.matrix(i), expected[i]):
            figures.note("wrong", f"{what}: {doc_id} has another matrix")
    if ids:
        await _search(store, found, expected, figures, what, rng)
    return found


async def _search(
    store: LocalStore,
    found: State,
    expected: list[np.ndarray],
    figures: Figures,
    what: str,
    rng: random.Random,
) -> None:
    pipeline = pipeline_on(store)
    query = matrix("query", str(rng.random()), 3)
    scores = dict(zip(found, maxsim(query, expected).tolist(), strict=True))
    limit = rng.randint(3, 16)
    for exact in (True, False):
        for allowed in (None, {"n": {"$lte": limit}}):
            right = {i: score for i, score in scores.items() if allowed is None or found[i].n_tokens <= limit}
            results = await pipeline.search_with_embeddings(query, k=10, exact=exact, filter=allowed)
            figures.counts["searches"] += 1
            if len({result.doc_id for result in results}) != len(results):
                figures.note("doubled", f"{what}: a search finds a document twice")
            best = sorted(right.values(), reverse=True)[:10]
            got = [result.score for result in results]
            is_right = len(got) == len(best) and all(
                result.doc_id in right and abs(right[result.doc_id] - result.score) < 1e-4
                for result in results
            )
            if not is_right or (exact and not np.allclose(got, best, atol=1e-4)):
                figures.note(
                    "wrong", f"{what}: a search (exact={exact}, filter={allowed}) gives {results[:3]}"
                )
