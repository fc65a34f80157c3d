"""Every suite, each some seconds; the environment variable TORTURE makes them longer."""

from __future__ import annotations

import sys

import pytest

from tests.stores.test_astra_two_clients import run_interleavings
from tests.torture.damage import run_bad_arguments, run_damaged_documents, run_damaged_index_files
from tests.torture.faults import run_faults
from tests.torture.figures import Figures, times
from tests.torture.kills import run_kills
from tests.torture.stateful import run_steps
from tests.torture.writers import run_writers

pytestmark = pytest.mark.slow
posix = pytest.mark.skipif(sys.platform == "win32", reason="a forkserver and SIGKILL")


def check(figures: Figures, cases: int) -> None:
    assert figures.notes == []
    assert figures.bad == 0
    assert figures.cases >= cases


@posix
def test_a_killed_writer_loses_nothing_that_it_acknowledged():
    figures = run_kills(times(25))
    check(figures, times(25))
    assert figures.counts["searches"] > 2 * times(25)


@posix
def test_eight_processes_index_into_one_folder():
    figures, per_second = run_writers(8, times(40))
    check(figures, 8 * times(40))
    assert per_second > 1


async def test_faults_of_the_data_api_lose_nothing():
    figures = await run_faults(times(12), rows=20)
    check(figures, times(12))


async def test_interleavings_of_two_clients_mix_nothing():
    figures = await run_interleavings(times(20), seed=2)
    assert figures.mixtures == figures.lost == []


async def test_changes_at_random_are_what_a_dict_says():
    check(await run_steps(times(300)), times(300))


async def test_damaged_index_files_change_no_answer():
    figures = await run_damaged_index_files(times(200))
    check(figures, times(200))
    assert figures.counts["index files refused"] > times(80)


async def test_damaged_documents_give_errors_of_ours():
    check(await run_damaged_documents(times(60)), times(60))


async def test_bad_arguments_are_refused():
    check(await run_bad_arguments(times(3000)), times(3000))
