"""LateInteractionRetriever: a retriever with `k` and a filter, which a call may override."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_lateint.vectorstores import LateInteractionVectorStore


class LateInteractionRetriever(BaseRetriever):
    """Retrieves the documents of a store with the highest MaxSim for a query.

    >>> from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
    >>> texts = ["Apple pie with cinnamon", "The tide comes in at noon"]
    >>> years = [{"year": 2021}, {"year": 1999}]
    >>> with LateInteractionVectorStore.from_texts(texts, "demo", years, path="my_index") as store:
    ...     retriever = LateInteractionRetriever(vectorstore=store, k=1)
    ...     best = retriever.invoke("a dessert of apples")
    ...     older = retriever.invoke("a dessert of apples", filter={"year": {"$lt": 2000}})
    >>> best[0].page_content, older[0].page_content
    ('Apple pie with cinnamon', 'The tide comes in at noon')

    `invoke` takes `k`, `filter` and the other arguments of `similarity_search` for one call. A filter given there
    replaces the retriever's own. For MMR or a threshold, use the store's `as_retriever`.

    Attributes:
        vectorstore: where to search.
        k: how many documents.
        filter: only documents whose metadata match.
    """

    vectorstore: LateInteractionVectorStore
    k: int = Field(default=4, ge=1)
    filter: dict[str, Any] | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @override
    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        return self.vectorstore.similarity_search(query, **self._search(k, filter), **kwargs)

    @override
    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        return await self.vectorstore.asimilarity_search(query, **self._search(k, filter), **kwargs)

    def _search(self, k: int | None, filter: dict[str, Any] | None) -> dict[str, Any]:
        return {"k": self.k if k is None else k, "filter": self.filter if filter is None else filter}
