"""One result for each group, and each content once: what is left of a ranking."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from late_interaction.filters import value_of
from late_interaction.metadata import dumps
from late_interaction.types import SearchResult


def first_of_each(
    results: Iterable[SearchResult], *, group_by: str | None = None, distinct: bool = False
) -> Iterator[SearchResult]:
    """Yield the first result of each group, of those whose content did not come before.

    Args:
        results: best first.
        group_by: a metadata field; results that lack it, or have None there, are groups of their own.
        distinct: leave out a result whose content equals that of one that was yielded.
    """
    groups: set[str] = set()
    contents: set[Hashable] = set()
    for result in results:
        value = None if group_by is None else value_of(result.metadata, group_by)
        group = None if value is None else dumps(value, sort_keys=True)
        content = _content(result)
        if (group is not None and group in groups) or (distinct and content in contents):
            continue
        if group is not None:
            groups.add(group)
        contents.add(content)
        yield result


def _content(result: SearchResult) -> Hashable:
    """Return what two results have to share to be of equal content."""
    if result.content_type == "text":
        return result.content
    # The content of an image may be only its size: without a reference to the image it is like no other.
    image = [dumps(result.metadata.get(key)) for key in ("image", "thumbnail")]
    return (result.content, *image) if image != ["null", "null"] else (result.doc_id,)
