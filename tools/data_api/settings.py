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
        ann_recall_loss: probability with which ANN passes over each row that it should have found.
        ann_delay_s: how long after a write ANN sees the row (``math.inf``: not before
            ``DataApiServer.release_ann()``). Reads by key see it at once, and so does a delete.
        ann_mixed_ties: whether ANN returns equal similarities in any order, and not in that of writing.
        ddl_s: how long a command on tables or indexes takes at least: about 1.1 s on an idle server.
        cold_tables: whether the first insertMany into a table fails with UNEXPECTED_SERVER_ERROR, as with an API node
            whose cache does not know the new table.
        guardrails: whether a table takes ten indexes and the database a hundred, as on the service; a self-hosted
            database does not count them unless it is told to.
        faults: what goes wrong, tried in this order; the first that matches a request is its fate.
        hold: awaited with each request before it is carried out: a test decides with it whose request goes next.
    """

    page_size: int = 50
    latency_ms: float = 0.0
    latency_jitter_ms: float = 0.0
    ann_recall_loss: float = 0.0
    ann_delay_s: float = 0.0
    ann_mixed_ties: bool = False
    ddl_s: float = 0.0
    cold_tables: bool = False
    guardrails: bool = True
    faults: list[Fault] = field(default_factory=list)
    hold: Callable[[Request], Awaitable[None]] | None = None
