"""A service that does not answer, or is slow: how long a call waits, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from late_interaction import LateInteractionPipeline, StoreError
from late_interaction.cli._shared import store_at
from late_interaction.stores.astra import client as astra_client
from late_interaction.stores.astra import patience
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.failures import failure_of
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.pace import Pace
from tests.stores.astra import FILTERABLE, QUICK, Down, pipeline_on, rows
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Fault

NINE = {f"field{i}": int for i in range(9)}


@dataclass
class DownFor(Fault):
    """A node that restarts: from the first request that meets it on, for some seconds, none is carried out."""

    seconds: float = 0.0
    until: float | None = field(default=None, init=False)

    def __init__(self, seconds: float, action: Any = "http_error", command: str | None = None) -> None:
        super().__init__(action, command)
        self.seconds, self.until = seconds, None

    def fires(self, command, table, random) -> bool:
        if self.command not in (None, command):
            return False
        self.until = self.until or time.monotonic() + self.seconds
        return time.monotonic() < self.until


async def seconds(work: Awaitable[Any]) -> float:
    """Return how long a call takes that ends with a StoreError."""
    started = time.monotonic()
    with pytest.raises(StoreError):
        await work
    return time.monotonic() - started


CALLS: dict[str, Callable[[LateInteractionPipeline], Awaitable[Any]]] = {
    "listTables": lambda pipeline: pipeline.initialize(),
    "listIndexes": lambda pipeline: pipeline.initialize(),
    "createTable": lambda pipeline: new(pipeline).initialize(),
    "createIndex": lambda pipeline: new(pipeline).initialize(),
    "createVectorIndex": lambda pipeline: new(pipeline).initialize(),
    "dropTable": lambda pipeline: pipeline.drop(),
    "find": lambda pipeline: pipeline.search("old1x1", k=1),
    "insertMany": lambda pipeline: pipeline.index_documents(rows(2)),
    "updateOne": lambda pipeline: pipeline.update_metadata("d0", {"x": 1}),
    "deleteOne": lambda pipeline: pipeline.delete_document("d0"),
    "deleteMany": lambda pipeline: pipeline.clear(),
}


def new(pipeline: LateInteractionPipeline) -> LateInteractionPipeline:
    return pipeline_on(pipeline.server, "new", filterable=FILTERABLE, timeout_s=0.2, retry_for_s=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("command", CALLS)
async def test_every_kind_of_request_is_lost_and_given_up_in_time(server, command):
    before = pipeline_on(server)
    await before.initialize()
    await before.index_documents(rows(3))
    pipeline = pipeline_on(server, timeout_s=0.2, retry_for_s=0.8)
    pipeline.server = server
    if command not in ("listTables", "listIndexes"):
        await pipeline.initialize()
    server.log.clear()
    server.settings.faults = [Fault("hang", command=command)]
    assert 0.5 < await seconds(CALLS[command](pipeline)) < 2.5
    assert server.log.count(command) >= 3


@pytest.mark.slow
async def test_a_service_that_comes_back_in_time_is_waited_for(server, monkeypatch):
    """While writing four times as long as while searching, as when a node restarts."""
    monkeypatch.setattr(astra_client, "LOADING_S", 1.5)
    monkeypatch.setattr(astra_client, "SEARCHING_S", 0.2)
    pipeline = pipeline_on(server, limits=Limits(first_wait_s=0.02, longest_wait_s=0.1))
    await pipeline.initialize()
    server.settings.faults = [DownFor(0.5)]
    await pipeline.index_documents(rows(3))
    assert await pipeline.count() == 3
    server.settings.faults = [DownFor(0.5)]
    assert await seconds(pipeline.search("old1x1", k=1)) < 0.5
    await asyncio.sleep(0.5)
    assert len(await pipeline.search("old1x1", k=1)) == 1
    server.settings.faults = [DownFor(0.5)]
    copied = [batch async for batch in pipeline.store.scan(batch_size=2)]
    assert [len(batch) for batch in copied] == [2, 1]


def test_the_waits_are_those_of_the_documentation():
    assert (patience.LOADING_S, patience.SEARCHING_S) == (60, 15)
    assert (Limits().first_wait_s, Limits().longest_wait_s) == (0.25, 5)
    assert [Limits().wait_s(number) for number in (0, 1, 4, 5, 10_000)] == [0.25, 0.5, 4, 5, 5]
    # A hanging request leaves time for another one, in a search too.
    assert [patience.Patience(for_s).timeout_s(20) for for_s in (60, 15, 0)] == [20, 7.5, 20]


@pytest.mark.parametrize("way", ["database", "environment", "command line"])
async def test_the_option_reaches_the_store(server, monkeypatch, way):
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", server.endpoint)
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
    if way == "command line":
        place, options = store_at("astra:late_interaction", "x", retry_for_s=0), {}
    else:
        place = server.async_database() if way == "database" else "astra:late_interaction"
        options = {"retry_for_s": 0}
    pipeline = LateInteractionPipeline(place, HashModel(), **options)
    await pipeline.initialize()
    server.log.clear()
    server.settings.faults = [Fault("http_error")]
    with pytest.raises(StoreError, match=r"\(1 attempt\)"):
        await pipeline.count()
    assert len(server.log.requests) == 1
    with pytest.raises(ValueError, match="a Store has a retry_for_s of its own"):
        LateInteractionPipeline(pipeline.store, HashModel(), retry_for_s=1)


async def test_a_call_that_gave_up_finds_out_what_is_written_without_waiting_as_long_again(server):
    pipeline = pipeline_on(server, retry_for_s=0.8, timeout_s=0.2)
    await pipeline.initialize()
    server.settings.faults = [Fault("hang", command="insertMany"), Down("find", after=1)]
    assert await seconds(pipeline.index_documents(rows(3))) < 1.5 * 0.8 + 1


async def test_the_time_of_a_call_stops_when_what_was_lost_is_answered(server):
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    requests = pipeline.store.requests
    server.settings.faults = [
        Fault("http_error", "createIndex", times=1),
        Fault("error_envelope", "createIndex", times=1, error_code="CANNOT_ADD_EXISTING_INDEX"),
        Fault("http_error", "find", times=1),
    ]
    with requests.loading():
        await requests.create_index("things_docs", "another", {"column": "content"})
        assert patience.patience_of_the_call(1).left_s == 60
        assert await pipeline.count() == 0
        assert patience.patience_of_the_call(1).left_s == 60
    assert [fault.fired for fault in server.settings.faults] == [1, 1, 1]


async def test_losses_are_told_of_at_the_first_one_and_then_seldom(server, caplog, monkeypatch):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", probability=0.5)]
    for _ in range(20):
        await pipeline.count()
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "find things_docs at 127.0.0.1" in lines[0].getMessage()
    assert "was lost: HTTP 503. It is sent again for up to 15 s." in lines[0].getMessage()
    now = time.monotonic()
    monkeypatch.setattr(patience.time, "monotonic", lambda: now + 11)
    pipeline.store.requests._losses.lost("find", "HTTP 503", 15)
    assert "others before it: HTTP 503" in caplog.records[-1].getMessage()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 2


LONG = """The Data API command generated a database query that was rejected.

The Data API should have generated a valid query.

The command used the keyspace and table or collection: k.t.
The command generated the CQL query: INSERT INTO t.
The command generated the CQL values: [0x00ff00ff].
The database error: Cannot have more than 10 indexes.

Retrying the command will likely result in the same error."""
UNKNOWN = """Only columns defined in the table schema can be set.

The table k.t defines the columns: a, b.
The command included the unknown columns: c.
The command used the keyspace and table or collection: k.t.

Resend the command using only defined columns."""

BRIEF = (
    "Only columns defined in the table schema can be set. The table k.t defines the columns: a, b. "
    "The command included the unknown columns: c"
)


@pytest.mark.parametrize(
    ("message", "brief"),
    [
        (LONG, "Cannot have more than 10 indexes"),
        ("An unexpected error.\n\nError Class: X\nError Message: timed out\n\nReview it.", "timed out"),
        (
            UNKNOWN,
            BRIEF,
        ),
        ("The database error: " + "x" * 10_000, "x" * 399 + "…"),
        ("One line.", "One line"),
    ],
)
def test_of_a_long_message_the_part_that_helps_is_shown(message, brief):
    failure = failure_of([{"errorCode": "CODE", "message": message, "family": "REQUEST"}])
    assert str(failure) == f"CODE: {brief}"


async def test_one_cause_is_one_warning_with_a_count(server, caplog):
    """Token rows that cannot be deleted: a warning at the first batch, and one at the end with the count of all."""
    pipeline = pipeline_on(server, retry_for_s=0)
    await pipeline.initialize()
    await pipeline.index_documents(rows(40))
    server.settings.faults = [Fault("http_error", command="deleteMany")]
    await pipeline.index_documents(rows(40, "new"), batch_size=4)
    told = [record.getMessage() for record in caplog.records if "left over" in record.getMessage()]
    assert [line.split(" documents")[0] for line in told] == [
        "Token rows of up to 4",
        "Token rows of up to 40",
    ]
    await pipeline.aclose()
    assert sum("left over" in record.getMessage() for record in caplog.records) == 2


async def test_the_doctor_says_what_it_leaves_alone(server):
    pipeline = pipeline_on(server, retry_for_s=0)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    server.settings.faults = [Fault("http_error", command="deleteMany")]
    await pipeline.index_documents(rows(2, "new"))
    server.settings.faults = []
    health = await diagnose(pipeline.store, full=True)
    assert (health.young, health.surplus, health.healthy) == (["d0", "d1"], [], True)
    health = await diagnose(pipeline.store, full=True, older_than_s=0)
    assert (health.young, health.surplus, health.healthy) == ([], ["d0", "d1"], False)


# --- definitions


async def test_definitions_are_made_side_by_side(server):
    server.settings.ddl_s = 0.1
    server.log.clear()
    started = time.monotonic()
    await pipeline_on(server, filterable=NINE).initialize()
    assert time.monotonic() - started < 22 * 0.1
    assert 1 < server.log.max_in_flight <= 5
    assert server.log.commands["createIndex"] == 18


@dataclass
class OneDefinitionAtATime(Fault):
    """A service that refuses a definition while another one is under way."""

    def __init__(self, server: DataApiServer) -> None:
        super().__init__("error_envelope", error_code="INVALID_DATABASE_QUERY")
        self.server = server

    def fires(self, command, table, random) -> bool:
        return command.startswith("create") and self.server.log.in_flight > 1


async def test_a_service_that_takes_one_definition_at_a_time_gets_one_at_a_time(server):
    server.settings.ddl_s = 0.01
    server.settings.faults = [OneDefinitionAtATime(server)]
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    await pipeline.index_documents(rows(2))
    assert await pipeline.count({"year": 1}) == 1


async def test_what_a_broken_creation_left_out_is_all_that_the_next_one_makes(server):
    server.settings.faults = [Down("createIndex", after=6)]
    with pytest.raises(StoreError, match="createIndex"):
        await pipeline_on(server, filterable=NINE, retry_for_s=0).initialize()
    server.settings.faults = []
    server.log.clear()
    await pipeline_on(server, filterable=NINE).initialize()
    assert server.log.commands["createTable"] == 0
    assert server.log.commands["createIndex"] == 18 - 6


async def test_definitions_that_take_too_long_for_the_service_are_made(server):
    server.settings.ddl_s, server.settings.ddl_timeout_s = 0.05, 0.02
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    await pipeline.index_documents(rows(2))
    assert await pipeline.count({"year": 1}) == 1


@pytest.mark.parametrize("command", ["createTable", "createIndex", "createVectorIndex"])
@pytest.mark.parametrize("code", ["CANNOT_ADD_EXISTING_INDEX", "CANNOT_ADD_EXISTING_TABLE"])
async def test_a_definition_that_the_service_repeated_by_itself_is_made(server, command, code):
    server.settings.faults = [Fault("error_envelope", command, times=1, applied=True, error_code=code)]
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    await pipeline.index_documents(rows(2))
    assert await pipeline.count({"year": 1}) == 1


# --- the pace


async def test_fewer_requests_are_in_flight_where_the_service_has_no_room():
    pace = Pace(16, Limits())
    now = time.monotonic()
    pace.overloaded(now)
    pace.overloaded(now)  # They were in flight together.
    assert pace.in_flight == 8
    for _ in range(200):
        pace.answered(time.monotonic())
    assert pace.in_flight == 16
    for _ in range(9):
        pace.overloaded(time.monotonic() + 1)
    assert pace.in_flight >= 1


async def test_slow_inserts_are_fewer_and_then_smaller(monkeypatch):
    now = 0.0
    monkeypatch.setattr("late_interaction.stores.astra.pace.time.monotonic", lambda: now)
    pace = Pace(16, Limits(rows=40))
    for in_flight in (8, 4, 4):
        now += 10
        pace.answered(now - 3, n_rows=40)
        assert pace.in_flight == in_flight
    assert pace.rows == 20
    pace = Pace(4, Limits(rows=40))
    now += 10.0
    pace.answered(now - 3, n_rows=40)
    pace.answered(now - 3, n_rows=40)  # Sent before the first one was answered.
    assert pace.rows == 20
    for _ in range(9):
        now += 10
        pace.answered(now - 3, n_rows=pace.rows)
    assert pace.rows == 5
    for _ in range(400):
        pace.answered(now - 0.1, n_rows=pace.rows)
    assert pace.rows == 40


async def test_places_are_taken_in_turn_and_given_back_whatever_happens():
    pace, order = Pace(2, Limits()), []

    async def work(n: int) -> None:
        async with pace:
            order.append(n)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(work(n)) for n in range(8)]
    await asyncio.sleep(0.005)
    tasks[3].cancel()  # It waits.
    tasks[0].cancel()  # It works.
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 4, 5, 6, 7]
    async with pace, pace:
        pass


# --- what a run waits for


@pytest.mark.slow
@pytest.mark.parametrize("waits_for", ["encoder", "network", "service"])
async def test_progress_says_what_a_run_waits_for(server, capsys, waits_for):
    server.settings.latency_ms = 30 if waits_for == "network" else 0
    pipeline = pipeline_on(server, concurrency=2, limits=replace(QUICK, rows=20))
    await pipeline.initialize()
    encode = pipeline.model.encode_documents
    if waits_for == "encoder":
        pipeline.model.encode_documents = lambda texts, **more: (time.sleep(0.1), encode(texts, **more))[1]
    if waits_for == "service":
        server.settings.faults = [Fault("http_error", command="insertMany", probability=0.5)]
    await pipeline.index_documents(rows(80), batch_size=16, show_progress=True)
    line = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert "doc/s" in line
    assert f"waits for {waits_for} " in line


async def test_a_store_that_tells_nothing_waits_for_writing(tmp_path, capsys):
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.index_documents(rows(20), show_progress=True)
    assert "waits for" in (shown := capsys.readouterr().err)
    assert "network" not in shown


@pytest.mark.slow
async def test_a_throttled_load_is_written_with_few_lost_requests(server):
    pipeline = pipeline_on(server, limits=Limits(first_wait_s=0.05))
    await pipeline.initialize()
    server.settings.rows_per_s = 200
    server.log.clear()
    await pipeline.index_documents(rows(100), batch_size=100)
    refused = [request for request in server.log.requests if request.status == 429]
    assert await pipeline.count() == 100
    assert 0 < len(refused) < 60
