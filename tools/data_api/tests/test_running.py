"""The ways to run the server."""

import subprocess
import sys
import time

import httpx
import pytest
from astrapy import DataAPIClient
from astrapy.api_options import APIOptions, TimeoutOptions
from astrapy.exceptions import (
    DataAPITimeoutException,
)
from astrapy.info import (
    CreateTableDefinition,
)

from tools.data_api import Fault, Settings, run_in_thread
from tools.data_api.tests.helpers import TOKENS, rows


def test_in_a_thread_for_synchronous_callers() -> None:
    with run_in_thread(Settings(page_size=20), token="t", keyspace="ks") as server:
        table = server.database().create_table("t", definition=CreateTableDefinition.coerce(TOKENS))
        table.insert_many(rows(1, 45))
        assert len(list(table.find({}))) == 45
        assert server.log.count("find") == 3
        server.settings.page_size = 50
        assert len(list(table.find({}))) == 45
        assert server.log.count("find") == 4
        endpoint = server.endpoint
    with pytest.raises(httpx.ConnectError):
        httpx.post(endpoint)


def test_stopping_lets_go_of_requests_that_hang() -> None:
    with run_in_thread(Settings(faults=[Fault("hang")])) as server:
        impatient = APIOptions(timeout_options=TimeoutOptions(request_timeout_ms=50))
        with pytest.raises(DataAPITimeoutException):
            server.database(api_options=impatient).list_table_names()
        started = time.monotonic()
    assert time.monotonic() - started < 2


@pytest.mark.slow
def test_as_a_process() -> None:
    command = [
        sys.executable,
        "-m",
        "tools.data_api",
        "--port",
        "0",
        "--page-size",
        "20",
        "--token",
        "secret",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = dict(process.stdout.readline().strip().split("=", 1) for _ in range(3))
            client = DataAPIClient(printed["ASTRA_DB_APPLICATION_TOKEN"])
            database = client.get_database(
                printed["ASTRA_DB_API_ENDPOINT"], keyspace=printed["ASTRA_DB_KEYSPACE"]
            )
            table = database.create_table("t", definition={"columns": {"k": "int"}, "primaryKey": "k"})
            table.insert_many([{"k": number} for number in range(45)])
            assert len(table.find({}).fetch_next_page().results) == 20
        finally:
            process.terminate()
