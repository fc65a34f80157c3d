"""Warn when LlamaIndex's `IngestionPipeline` drops nodes without an embedding, which it does silently.

`IngestionPipeline.run` gives its vector store only the nodes that have an embedding. A pipeline without an
embedding model as a transformation therefore stores nothing, and its document store still remembers every
document as done. The vector store is not even called, so it cannot object. But LlamaIndex reports the end of each
run to the handlers of its instrumentation, and this module registers one.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

from llama_index.core.ingestion import IngestionPipeline
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.span_handlers import NullSpanHandler

logger = logging.getLogger(__name__)


class DroppedNodesWarning(UserWarning):
    """Warns that an `IngestionPipeline` has not stored nodes, because they have no embedding.

    The same is logged as an error. Turn it into an exception in your tests, where it is easily overlooked:

    >>> import warnings
    >>> from llamaindex_lateint import DroppedNodesWarning
    >>> with warnings.catch_warnings():  # around pipeline.run(…)
    ...     warnings.simplefilter("error", DroppedNodesWarning)
    """


class IngestionWatch(NullSpanHandler):
    """Warns when a run of an `IngestionPipeline` has dropped nodes that were meant for a store of this library."""

    def span_exit(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        result: Any | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the nodes of a run that has ended."""
        if not isinstance(instance, IngestionPipeline) or not isinstance(result, list | tuple):
            return
        if not getattr(instance.vector_store, "encodes_itself", False):
            return
        if dropped := sum(node.embedding is None for node in result):
            message = (
                f"IngestionPipeline dropped {dropped} of {len(result)} nodes: they are NOT in the vector store, "
                "because LlamaIndex stores only nodes that have an embedding. Add NoEmbedding() (from "
                "llamaindex_lateint) as the last of the pipeline's transformations and run it again"
            )
            if instance.docstore is not None:
                message += (
                    ", with a new docstore: the present one holds their documents for stored and skips them"
                )
            # LlamaIndex swallows exceptions of its handlers, and so a warning that is turned into one: log first.
            logger.error("%s.", message)
            warnings.warn(f"{message}.", DroppedNodesWarning, stacklevel=2)


def watch_ingestion() -> None:
    """Register the handler, once for the process."""
    if not any(isinstance(handler, IngestionWatch) for handler in root_dispatcher.span_handlers):
        root_dispatcher.add_span_handler(IngestionWatch())
