"""What LateInteractionModel does for its subclasses: threads, loops, forks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import sys
import threading
import time
import traceback

import numpy as np
import pytest

from late_interaction.encoders import ColBERTModel, LateInteractionModel
from tests.unit.text_encoders.models import TEXTS, Lengths


@pytest.mark.slow
async def test_the_async_twins_give_what_the_others_do(models: dict[str, ColBERTModel]) -> None:
    model = models["stanford"]
    for twin, matrices in (
        (await model.aencode_queries(TEXTS), model.encode_queries(TEXTS)),
        (await model.aencode_documents(TEXTS), model.encode_documents(TEXTS)),
    ):
        for matrix, expected in zip(twin, matrices, strict=True):
            np.testing.assert_array_equal(matrix, expected)


def test_a_models_own_encoder_needs_no_init() -> None:
    model = Lengths()
    (matrix,) = asyncio.run(model.aencode_queries(["two words"]))
    np.testing.assert_array_equal(matrix, [[9], [9]])
    assert model.count_truncated(["x" * 10_000]) == 0
    assert (model.supports_images, model.protected_tokens) == (False, 0)
    with pytest.raises(ValueError, match="position 0 is empty"):
        asyncio.run(model.aencode_documents([" "]))
    model.close()
    model.close()


async def test_run_is_off_the_loop_one_at_a_time_and_sees_the_context() -> None:
    model = Lengths()
    variable = contextvars.ContextVar("variable", default="unset")
    running: list[int] = []

    def work() -> tuple[str, str, int]:
        running.append(1)
        time.sleep(0.02)
        at_once = len(running)
        running.pop()
        return threading.current_thread().name, variable.get(), at_once

    async def call(value: str) -> tuple[str, str, int]:
        variable.set(value)
        return await model.run(work)

    ticks = 0
    calls = asyncio.gather(*(call(f"call {i}") for i in range(5)))
    while not calls.done():
        ticks += 1
        await asyncio.sleep(0.001)
    names, values, at_once = zip(*await calls, strict=True)
    assert ticks > 5
    assert set(names) == {"Lengths_0"}
    assert values == tuple(f"call {i}" for i in range(5))
    assert set(at_once) == {1}
    model.close()


def test_run_works_from_several_loops() -> None:
    model = Lengths()
    results: list[int] = []

    def in_a_loop(n: int) -> None:
        async def body() -> None:
            for _ in range(5):
                (matrix,) = await model.aencode_queries(["word " * n])
                results.append(len(matrix))

        asyncio.run(body())

    threads = [threading.Thread(target=in_a_loop, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [1] * 5 + [2] * 5 + [3] * 5
    model.close()


@pytest.mark.slow
def test_the_thread_ends_with_close_and_with_the_model() -> None:
    def thread_of(model: Lengths) -> threading.Thread:
        return asyncio.run(model.run(threading.current_thread))

    closed = Lengths()
    first = thread_of(closed)
    closed.close()
    first.join(5)
    assert not first.is_alive()
    second = thread_of(closed)
    assert second is not first
    del closed
    gc.collect()
    second.join(5)
    assert not second.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("family", ["stanford", "own"])
def test_a_forked_process_can_encode(models: dict[str, ColBERTModel], family: str) -> None:
    model: LateInteractionModel = Lengths() if family == "own" else models[family]
    texts = ["cat " * 20] * 64
    expected = model.encode_documents(texts)
    asyncio.run(model.aencode_documents(texts))

    child = os.fork()
    if child == 0:
        status = 1
        try:
            for matrices in (
                asyncio.run(model.aencode_documents(texts)),
                model.encode_documents(texts),
            ):
                for matrix, reference in zip(matrices, expected, strict=True):
                    np.testing.assert_allclose(matrix, reference, atol=1e-5)
            status = 0
        except BaseException:  # noqa: BLE001 -- nothing may leave the child but its status
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    deadline = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done == (child, 0)
    asyncio.run(model.aencode_documents(texts))
