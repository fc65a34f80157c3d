"""What a row has beside its metadata is no metadata: filters and changes that take it for that are refused.

A document of LangChain or LlamaIndex may have metadata of these names. Where one has, they mean those.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from late_interaction.errors import FilterError
from late_interaction.filters import Exists, Filter, fields
from late_interaction.stores.base import Store

logger = logging.getLogger(__name__)

_OF_ROWS = ("doc_id", "content", "content_type")


async def check_filter_of_change(store: Store, filter: Filter) -> None:
    """Refuse to delete or change what matches only because a row's own field is not among the metadata.

    Raises:
        FilterError: the filter would match documents, and names such a field.
    """
    if (unknown := await _unknown(store, fields(filter))) and await store.find(filter, limit=1):
        raise FilterError(f"{_about(unknown)} Nothing was changed.")


async def check_changed(store: Store, names: Iterable[str]) -> None:
    """Refuse metadata that would stand beside a row's own field of the same name.

    Raises:
        ValueError: a name is one of those.
    """
    if unknown := await _unknown(store, names):
        raise ValueError(
            f"{', '.join(unknown)} of a document is no metadata, and cannot be changed: index the document again."
        )


async def warn_of_filter(store: Store, filter: Filter | None) -> None:
    """Say why nothing was found, where a filter names a row's own field."""
    if filter is not None and (unknown := await _unknown(store, fields(filter))):
        logger.warning("Nothing was found: %s", _about(unknown))


async def _unknown(store: Store, names: Iterable[str]) -> list[str]:
    named = [name for name in _OF_ROWS if name in names]
    return [name for name in named if not await store.find(Exists(name), limit=1)]


def _about(names: list[str]) -> str:
    return (
        f"a filter looks at metadata, and no document has {', '.join(names)} there. Documents are named by ids, as in "
        "ids=[…] of a search or a list for delete_documents; the text is {'$content': …}."
    )
