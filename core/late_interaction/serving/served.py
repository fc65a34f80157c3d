"""What is served: a pipeline, whether it may be written to, and what it can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from late_interaction.errors import StoreError
from late_interaction.options import Mode, SearchOptions
from late_interaction.pipeline import LateInteractionPipeline, Query
from late_interaction.rows import check_doc_id
from late_interaction.serving.facets import Facets
from late_interaction.types import Document, SearchResults

_NO_WORD = "xqzjvkwpxqzjvk"
"""What no document says, to learn cheaply whether words can be searched for."""


class NoDocumentError(LookupError):
    """There is no document of an id."""


class Served:
    """A pipeline as the page, the API and the MCP server use it.

    Args:
        pipeline: the index; closed by whoever made it.
        allow_writes: whether documents may be added and deleted.
    """

    def __init__(self, pipeline: LateInteractionPipeline, *, allow_writes: bool = False) -> None:
        self.pipeline = pipeline
        self.allow_writes = allow_writes
        self.facets = Facets(pipeline)
        self._has_words = False

    @property
    def name(self) -> str:
        """The index's name."""
        return self.pipeline.store.name

    @property
    def model_name(self) -> str:
        """The model's name, without the folders that lead to it on this machine."""
        name = self.pipeline.model.model_name
        return Path(name).name if Path(name).is_absolute() else name

    async def modes(self) -> tuple[Mode, ...]:
        """Return what a search may go by: token vectors, and the words too where the store has an index of them."""
        if not self._has_words:
            try:
                await self.pipeline.store.lexical(_NO_WORD, 1)
            except StoreError:
                return ("late",)
            self._has_words = True
        return ("late", "hybrid", "lexical")

    async def search(self, query: Query, k: int, options: SearchOptions) -> SearchResults:
        """Search as `LateInteractionPipeline.search` does.

        Raises:
            ValueError, TypeError: an argument is wrong, or the store has no index of words to search.
        """
        mode = options.get("mode", "late")
        if mode in ("hybrid", "lexical") and mode not in await self.modes():
            raise ValueError(
                f"mode={mode!r} needs an index of words, and {self.name!r} has none: an index in a folder gets one by "
                "`late-interaction optimize`, one on Astra where it is made with lexical=True."
            )
        return await self.pipeline.search(query, k, **options)

    async def document(self, doc_id: str | int) -> Document:
        """Return a document.

        Raises:
            NoDocumentError: there is none of this id.
            ValueError: it is no id.
        """
        checked = check_doc_id(doc_id)
        for document in await self.pipeline.get_documents([checked]):
            return document
        raise NoDocumentError(f"There is no document {checked!r} in the index {self.name!r}.")

    async def described(self) -> dict[str, Any]:
        """Return what a client has to know before it asks."""
        facets = await self.facets.of_index()
        return {
            "index": self.name,
            "documents": await self.pipeline.count(),
            "model": self.model_name,
            "images": self.pipeline.model.supports_images,
            "modes": await self.modes(),
            "writes": self.allow_writes,
            "fields": {facet.field: [choice.value for choice in facet.choices] for facet in facets},
        }
