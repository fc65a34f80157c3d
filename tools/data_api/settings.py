"""The switches of the server, all changeable while it runs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tools.data_api.faults import Fault
from tools.data_api.log import Request


@dataclass
class Settings:
    """How the service behaves.

    Attributes:
        page_size: rows in a page of a find without vector sort (the Data API's ``default-page-size``: 50
            since v1.0.47; the hosted documentation says 20).
        latency_ms: how long every request takes at least.
        latency_jitter_ms: up to how much longer, uniformly.
        row_ms: how long each inserted row takes, one after the other: a server that is slow under load.
        ann_recall_loss: probability with which ANN passes over each row that it should have found.
        ann_delay_s: how long after a write ANN sees the row (``math.inf``: not before
            ``DataApiServer.release_ann()``). Reads by key see it at once, and so does a delete.
        ann_mixed_ties: whether ANN returns equal similarities in any order, and not in that of writing.
        ann_rounding: up to how much a similarity is off, either way; rows are ranked by what comes of it. Those of a
            real server differ from exact ones in the fourth digit (1e-4).
        ddl_s: how long it takes to change a table or index: about 1.1 s on an idle server.
        ddl_timeout_s: after how long a change that takes longer is answered by UNEXPECTED_DRIVER_ERROR, although it
            took effect.
        rows_per_s: how much the service takes on: a request counts for the rows that it inserts, or for one, and those
            beyond the rows of one second are answered by HTTP 429. None for no limit.
        cold_tables: whether the first insertMany into a table fails with UNEXPECTED_SERVER_ERROR, as with an API node
            whose cache does not know the new table.
        guardrails: whether a table takes ten indexes and the database a hundred, as on the service; a self-hosted
            database does not count them unless it is told to.
        lexical: whether the engine orders by BM25. An older one, such as that of 2024-11, takes a text index and
            refuses the sort.
        faults: what goes wrong, tried in this order; the first that matches a request is its fate.
        hold: awaited with each request before it is carried out: a test decides with it whose request goes next.
    """

    page_size: int = 50
    latency_ms: float = 0.0
    latency_jitter_ms: float = 0.0
    row_ms: float = 0.0
    ann_recall_loss: float = 0.0
    ann_delay_s: float = 0.0
    ann_mixed_ties: bool = False
    ann_rounding: float = 0.0
    ddl_s: float = 0.0
    ddl_timeout_s: float = 10.0
    rows_per_s: float | None = None
    cold_tables: bool = False
    guardrails: bool = True
    lexical: bool = True
    faults: list[Fault] = field(default_factory=list)
    hold: Callable[[Request], Awaitable[None]] | None = None
