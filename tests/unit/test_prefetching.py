"""`prefetched` and `Replicas`: in order, bounded, at once, and nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from late_interaction.encoders.prefetching import prefetched
from late_interaction.encoders.replicas import Replicas, check_devices

N = 20


def threads() -> int:
    return sum(thread.name.startswith("late-interaction-prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 2, N])
def test_in_order_and_never_further_ahead_than_asked(n: int, num_workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(n):
            taken += 1
            yield i

    found = []
    for i, square in enumerate(prefetched(lambda i: i * i, items(), num_workers)):
        assert taken <= i + 1 + num_workers
        found.append(square)
    assert found == [i * i for i in range(n)]
    assert threads() == 0


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_next_ones_are_prepared_while_the_caller_works(num_workers: int) -> None:
    done = [threading.Event() for _ in range(N)]

    def prepare(i: int) -> int:
        done[i].set()
        return i

    for i in prefetched(prepare, range(N), num_workers):
        for later in done[i + 1 : i + 1 + num_workers]:
            assert later.wait(10)  # While the caller has this one, without asking for the next.


def test_as_many_as_there_are_workers_are_prepared_at_once() -> None:
    together = threading.Barrier(3, timeout=10)
    assert list(prefetched(lambda i: (together.wait(), i)[1], range(6), 3)) == [*range(6)]


def test_one_alone_needs_no_thread() -> None:
    assert list(prefetched(lambda _: threading.get_ident(), ["one"], 4)) == [threading.get_ident()]


def test_an_error_comes_in_its_place_and_nothing_goes_on() -> None:
    begun = []

    def prepare(i: int) -> int:
        begun.append(i)
        if i == 5:
            raise ValueError("the sixth")
        return i

    found: list[int] = []
    with pytest.raises(ValueError, match="the sixth"):
        found.extend(prefetched(prepare, range(N), 2))
    assert found == [0, 1, 2, 3, 4]
    assert max(begun) <= 7
    assert threads() == 0


def test_closing_it_ends_the_threads_and_begins_nothing_more() -> None:
    begun: list[int] = []
    items = prefetched(lambda i: begun.append(i) or i, range(N), 2)
    assert next(items) == 0
    assert threads() > 0
    items.close()
    assert threads() == 0
    assert len(begun) <= 3


# --- replicas


def test_batches_go_to_whichever_copy_is_free_and_come_in_order() -> None:
    names = ["a", "b"]
    slow, busy = threading.Event(), set()
    did: dict[str, list[int]] = {name: [] for name in names}

    def compute(name: str, batch: int) -> int:
        assert name not in busy  # One thread at a time uses a copy.
        busy.add(name)
        if batch == 0:  # Its copy is at it until the other one has done three.
            assert slow.wait(10)
        did[name].append(batch)
        if batch == 3:
            slow.set()
        busy.discard(name)
        return batch * 10

    replicas = Replicas(names)
    assert list(replicas.map(compute, range(8))) == [batch * 10 for batch in range(8)]
    of_first = next(name for name in names if 0 in did[name])
    (other,) = set(names) - {of_first}
    assert did[other][:3] == [1, 2, 3]
    assert sorted(did["a"] + did["b"]) == [*range(8)]


def test_of_those_that_wait_the_one_that_began_first_is_next() -> None:
    replicas, order = Replicas(["only"]), []

    def compute(name: str, batch: str) -> None:
        order.append(batch)

    first, second = (replicas.map(compute, [batch]) for batch in ("first", "second"))
    callers = [threading.Thread(target=list, args=[one]) for one in (second, first)]
    with replicas.free():
        for n, caller in enumerate(callers, 1):
            caller.start()
            while len(replicas._waiting) < n:
                time.sleep(0.001)
    for caller in callers:
        caller.join()
    assert order == ["first", "second"]


def test_a_copy_whose_batch_failed_is_free_again() -> None:
    replicas = Replicas(["only"])

    def fail(name: str, batch: int) -> int:
        raise RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(replicas.map(fail, [1, 2]))
    with replicas.free() as name:
        assert name == "only"


def test_devices_are_checked() -> None:
    assert check_devices(None, None) == []
    assert check_devices(None, "cuda:1") == ["cuda:1"]
    assert check_devices(("cuda:0", "cuda:1"), None) == ["cuda:0", "cuda:1"]
    for devices, device, error, message in (
        ("cuda:0", None, TypeError, "a list of names"),
        ([0, 1], None, TypeError, "a list of names"),
        (["cuda:0"], "cuda", ValueError, "either device or devices"),
        ([], None, ValueError, "one or more devices of one kind"),
        (["cuda:0", "cpu"], None, ValueError, "of one kind"),
    ):
        with pytest.raises(error, match=message):
            check_devices(devices, device)  # type: ignore[arg-type]
