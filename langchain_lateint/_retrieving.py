"""The retriever of `as_retriever`: LangChain's, and the search types "hybrid" and "lexical"."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStoreRetriever
from typing_extensions import override

from langchain_lateint._operations import MODE_TYPES


class SearchRetriever(VectorStoreRetriever):
    """Retrieves documents of a `LateInteractionVectorStore` by any of its search types.

    The fields are translated into a search when it is asked for, so that one that is set later, or configured, counts.
    """

    allowed_search_types: ClassVar[Collection[str]] = (
        *VectorStoreRetriever.allowed_search_types,
        *MODE_TYPES,
    )

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        search_type, arguments = self._asked(kwargs)
        return self.vectorstore.search(query, search_type, **arguments)

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        search_type, arguments = self._asked(kwargs)
        return await self.vectorstore.asearch(query, search_type, **arguments)

    def _asked(self, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return LangChain's search type, and the arguments: those of the call, or else the retriever's own."""
        if self.search_type in MODE_TYPES:
            return "similarity", {"mode": self.search_type, **self.search_kwargs, **kwargs}
        return self.search_type, {**self.search_kwargs, **kwargs}
