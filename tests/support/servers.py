"""An index served over a real socket, by a thread of this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from late_interaction import LateInteractionPipeline
from late_interaction.serving.app import make_app
from late_interaction.serving.guards import Access


@contextmanager
def serving(pipeline: LateInteractionPipeline, *, allow_writes: bool = False) -> Iterator[str]:
    """Yield the address of a server, which ends with the block and closes the pipeline."""
    app = make_app(pipeline, Access.to("127.0.0.1", None), allow_writes=allow_writes)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()
