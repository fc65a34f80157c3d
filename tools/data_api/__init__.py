"""A local Data API: the table commands of Astra DB over HTTP, for the unmodified astrapy client, in memory.

It enforces what the service enforces: limits, types, key rules, index rules, pages, error codes. Its switches
make it as bad as the service can be: ANN that misses rows or sees them late, latency, faults. Each rule stands
in one module: ``limits``, ``columns`` (types), ``schema`` (definitions), ``analysis`` (filters of each command),
``reads``, ``writes``, ``definitions``, ``errors``, ``faults``.

What it leaves out it refuses by an error that says so: collections, vectorize search, user-defined
types, the column types duration, inet and time, sorts other than by a vector, ``skip``, ``$push``, ``$pullAll``.

    async with DataApiServer() as server:
        database = server.async_database()

    with run_in_thread(Settings(page_size=20)) as server:
        database = server.database()

    python -m tools.data_api --port 8181
"""

from tools.data_api.faults import Fault
from tools.data_api.log import Request, RequestLog
from tools.data_api.server import DataApiServer, run_in_thread
from tools.data_api.settings import Settings

__all__ = ["DataApiServer", "Fault", "Request", "RequestLog", "Settings", "run_in_thread"]
