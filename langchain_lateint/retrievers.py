"""LateInteractionRetriever: a retriever with `k`, a filter and a threshold, which a call may override."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import override

from langchain_lateint._operations import check_search_type
from langchain_lateint._retrieving import SearchRetriever
from langchain_lateint.vectorstores import LateInteractionVectorStore

_THRESHOLD = "similarity_score_threshold"
_FIELDS = ("k", "filter", "score_threshold", "with_scores", "explain")


class LateInteractionRetriever(SearchRetriever):
    """Retrieves the documents of a store with the highest MaxSim for a query.

    >>> from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
    >>> texts = ["Apple pie with cinnamon", "The tide comes in at noon"]
    >>> years = [{"year": 2021}, {"year": 1999}]
    >>> with LateInteractionVectorStore.from_texts(texts, "demo", years, path="my_index") as store:
    ...     retriever = LateInteractionRetriever(vectorstore=store, k=1, with_scores=True)
    ...     best = retriever.invoke("a dessert of apples")
    ...     older = retriever.invoke("a dessert of apples", filter={"year": {"$lt": 2000}})
    >>> best[0].page_content, older[0].page_content
    ('Apple pie with cinnamon', 'The tide comes in at noon')
    >>> best[0].metadata["score"] > older[0].metadata["score"]
    True

    `invoke` takes `k`, `filter` and the other arguments of the search for one call. A filter given there replaces the
    retriever's own.

    Attributes:
        vectorstore: where to search.
        k: how many documents.
        filter: only documents whose metadata match.
        score_threshold: only documents with at least this relevance, from 0 to 1: "similarity" is then
            "similarity_score_threshold".
        with_scores: put the raw MaxSim under "score" and the document's id under "id" into the metadata.
        explain: put the words that answered the query under "matched" into the metadata (see the store's searches).
        search_type: "similarity", "mmr" or "similarity_score_threshold", as for `VectorStoreRetriever`, "hybrid" or
            "lexical".
        search_kwargs: further arguments of the search, such as `fetch_k` and `lambda_mult` for "mmr".
    """

    vectorstore: LateInteractionVectorStore
    k: int = Field(default=4, ge=1)
    filter: dict[str, Any] | None = None
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    with_scores: bool = False
    explain: bool = False

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    @override
    def validate_search_type(cls, values: dict[str, Any]) -> Any:
        """Check the search type; `search_kwargs` may also hold the retriever's own fields, as for other stores.

        LangChain makes a configured retriever of all fields of another: one at its default counts as not given.
        """
        values = {**values, "search_kwargs": dict(values.get("search_kwargs") or {})}
        for name in _FIELDS:
            if name in values["search_kwargs"]:
                if values.get(name) not in (None, cls.model_fields[name].default):
                    raise ValueError(f"{name} is given twice, once of it in search_kwargs: give one.")
                values[name] = values["search_kwargs"].pop(name)
        search_type, threshold = values.get("search_type", "similarity"), values.get("score_threshold")
        if search_type not in cls.allowed_search_types:
            raise ValueError(f"search_type is one of {', '.join(cls.allowed_search_types)}.")
        check_search_type(search_type, values["search_kwargs"])
        if threshold is not None and search_type not in ("similarity", _THRESHOLD):
            raise ValueError(f"a score_threshold goes with search_type={_THRESHOLD!r}.")
        if threshold is None and search_type == _THRESHOLD:
            raise ValueError(f"search_type={_THRESHOLD!r} needs a score_threshold.")
        store = values.get("vectorstore")
        if values.get("tags") is None and isinstance(store, LateInteractionVectorStore):
            values["tags"] = store._get_retriever_tags()  # noqa: SLF001 - as LangChain's as_retriever does
        return values

    @override
    def _asked(self, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        own = {name: getattr(self, name) for name in _FIELDS}
        given = {name: value for name, value in kwargs.items() if value is not None}
        search_type, arguments = super()._asked({**own, **given})
        arguments = {
            name: value for name, value in arguments.items() if value is not None and value is not False
        }
        if search_type == "similarity" and "score_threshold" in arguments:
            search_type = _THRESHOLD
        return search_type, arguments
