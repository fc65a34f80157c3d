"""Changes at random through two stores of one folder, beside a dict that says what there should be."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from late_interaction import LocalStore
from tests.torture.figures import Figures
from tests.torture.model import LIMITS, SPEC, State, applied, apply, change, judge


async def run_steps(n: int, seed: int = 0) -> Figures:
    """Make `n` changes; now and then close a store, or put a copy of the folder in its place."""
    figures, rng = Figures(), random.Random(seed)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "db"
        stores = [LocalStore(folder, "stateful", limits=LIMITS) for _ in range(2)]
        for store in stores:
            await store.open(SPEC)
        state: State = {}
        for number in range(n):
            figures.cases += 1
            what = change(rng, f"{seed}.{number}")
            store, other = rng.sample(stores, 2)
            roll = rng.random()
            try:
                if roll < 0.02:
                    what = ("close",)
                    await store.close()
                    await store.open(SPEC)
                elif roll < 0.03:
                    what = ("folder swapped for its copy",)
                    for each in stores:
                        await each.close()
                        await each.open(SPEC)
                    shutil.copytree(folder, folder.with_name("copy"))
                    shutil.rmtree(folder)
                    folder.with_name("copy").rename(folder)
                await apply(store, what)
                state = applied(state, what)
                figures.counts[what[0]] += 1
                if number % 5 == 0:
                    state = await judge(other, [state], figures, f"step {number}, {what[0]}", rng)
            except Exception as error:  # noqa: BLE001 - counted
                figures.note("foreign", f"step {number}, {what[0]}: {error!r}")
        for store in stores:
            await store.close()
    return figures
