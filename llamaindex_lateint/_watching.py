"""Watch LlamaIndex where it loses or adds something on its way to the store and says nothing.

LlamaIndex reports the beginning and the end of its methods to the handlers of its instrumentation. The handler here
looks after three things that the store itself cannot see:

- `IngestionPipeline.run` gives its vector store only the nodes that have an embedding. A pipeline without an embedding
  model as a transformation therefore stores nothing, and its document store still remembers every document as done.
- `VectorStoreIndex.as_retriever` restricts every query to the image and index nodes that the index has recorded, which
  would hide all text nodes. The handler takes this list away, so that `node_ids` of a query are always the caller's.
- A retriever leaves the query's embedding in the query, where the next retriever, of another index, would find it.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import QueryBundle
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.span_handlers import NullSpanHandler

from llamaindex_lateint.no_embedding import QueryEmbedding

logger = logging.getLogger(__name__)


class DroppedNodesWarning(UserWarning):
    """Warns that an `IngestionPipeline` has not stored nodes, because they have no embedding.

    The same is logged as an error. Turn it into an exception in your tests, where it is easily overlooked:

    >>> import warnings
    >>> from llamaindex_lateint import DroppedNodesWarning
    >>> with warnings.catch_warnings():  # around pipeline.run(…)
    ...     warnings.simplefilter("error", DroppedNodesWarning)
    """


class Watch(NullSpanHandler):
    """A handler of LlamaIndex's instrumentation, for the stores of this library."""

    _without_embedding: set[str] = PrivateAttr(default_factory=set)
    """The spans that began with a query without an embedding."""

    def span_enter(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take a retriever's list of node ids away if it is not the caller's but the index's own record."""
        if not isinstance(instance, BaseRetriever):
            return
        if (query := _query(bound_args)) is not None and query.embedding is None:
            self._without_embedding.add(id_)
        index = getattr(instance, "_index", None)
        record = getattr(getattr(index, "index_struct", None), "nodes_dict", {})
        is_ours = _is_ours(getattr(index, "vector_store", None)) and getattr(instance, "fills_node_ids", True)
        if is_ours and record and getattr(instance, "_node_ids", None) == list(record.values()):
            instance._node_ids = None  # type: ignore[attr-defined]  # noqa: SLF001 - LlamaIndex has no other way

    def span_exit(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        result: Any | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the embedding out of the query of a retriever that has ended, and look at the nodes of a pipeline."""
        self._clean(id_, bound_args)
        if isinstance(instance, IngestionPipeline) and _is_ours(instance.vector_store):
            _report_dropped(instance, result)

    def prepare_to_drop_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the embedding out of the query of a retriever that has failed."""
        self._clean(id_, bound_args)

    def _clean(self, id_: str, bound_args: inspect.BoundArguments) -> None:
        if id_ not in self._without_embedding:
            return
        self._without_embedding.discard(id_)
        query = _query(bound_args)
        if query is not None and isinstance(query.embedding, QueryEmbedding):
            query.embedding = None


def watch() -> None:
    """Register the handler, once for the process."""
    if not any(isinstance(handler, Watch) for handler in root_dispatcher.span_handlers):
        root_dispatcher.add_span_handler(Watch())


def _is_ours(store: Any) -> bool:
    return bool(getattr(store, "encodes_itself", False))


def _query(bound_args: inspect.BoundArguments) -> QueryBundle | None:
    return next((one for one in bound_args.arguments.values() if isinstance(one, QueryBundle)), None)


def _report_dropped(pipeline: IngestionPipeline, result: Any) -> None:
    if not isinstance(result, list | tuple):
        return
    if dropped := sum(node.embedding is None for node in result):
        message = (
            f"IngestionPipeline dropped {dropped} of {len(result)} nodes: they are NOT in the vector store, "
            "because LlamaIndex stores only nodes that have an embedding. Add NoEmbedding() (from "
            "llamaindex_lateint) as the last of the pipeline's transformations and run it again"
        )
        if pipeline.docstore is not None:
            message += (
                ", with a new docstore: the present one holds their documents for stored and skips them"
            )
        # LlamaIndex swallows exceptions of its handlers, and so a warning that is turned into one: log first.
        logger.error("%s.", message)
        warnings.warn(f"{message}.", DroppedNodesWarning, stacklevel=2)
