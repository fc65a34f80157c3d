"""Evaluate LlamaIndex's metadata filters, and push down to the store the part that it can apply before a search.

Filters mean what LlamaIndex's own implementation says, `llama_index.core.vector_stores.utils.build_metadata_filter_fn`
(as of 0.14.25), and may also be nested:

- A key is one top-level key; a dot in it is a dot.
- A missing key equals None: only `NE`, `NIN` and `IS_EMPTY` match it.
- `EQ` and the other comparisons look at the whole value: a list does not equal one of its elements. `CONTAINS`, `ANY`
  and `ALL` look for elements of a list, and for substrings of a string.
- `NOT` matches if none of its filters does.

That function raises for a document whose value has another type than the filter's. Here such a document does not
match. Also, True does not equal the number 1, and dates are compared as the core does it: as instants, whether they are
datetimes or strings of ISO 8601. Upper and lower case are told apart by `str.casefold`, as the core does it too.

The core's filters treat lists differently (`$eq` also finds an element), so the pushed part may find a document too
many, never one too few, and `matches` decides.

The ids of documents are texts, also where they look like dates: those are compared letter by letter.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from late_interaction import FilterError
from late_interaction.filters import And, Filter, Or, in_order, parse_filter, same
from late_interaction.metadata import instant
from llamaindex_lateint.nodes import IMAGE_NAMES, PARENT, PARENT_NAMES, is_node, stored_key

_TAKES_A_LIST = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
_TAKES_A_STRING = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)
_ORDER = {
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
}
_MOST_PUSHED = 100
"""Values of one `ANY` or `ALL` that are pushed down: each is a condition, of which the core takes 1,000."""
_PUSHED = {
    FilterOperator.EQ: "$eq",
    **_ORDER,
    FilterOperator.IN: "$in",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$icontains",
}


def check_filters(filters: MetadataFilters | MetadataFilter) -> None:
    """Check that each operator has a value that it can be used with.

    Raises:
        FilterError: an operator and its value do not fit; the message names them.
        TypeError: these are not LlamaIndex's filters.
    """
    if not isinstance(filters, MetadataFilters | MetadataFilter):
        raise TypeError(
            f"filters must be MetadataFilters, not {type(filters).__name__}; pass a mapping such as {{'lang': 'en'}}, "
            "which is a filter in the core's language, as vector_store_kwargs={'filter': …}."
        )
    if isinstance(filters, MetadataFilters):
        for one in filters.filters:
            check_filters(one)
        return
    op, value = filters.operator, filters.value
    if op == FilterOperator.IS_EMPTY:
        return
    if value is None:
        wanted = "a value; for a missing or empty field use the operator 'is_empty'"
    elif op in _TAKES_A_LIST:
        wanted = "" if isinstance(value, list) else "a list of values"
    elif op in _TAKES_A_STRING:
        wanted = "" if isinstance(value, str) else "a string"
    elif op in _ORDER or op == FilterOperator.CONTAINS:
        wanted = "one number or string" if isinstance(value, list) else ""
    else:
        wanted = ""
    if wanted:
        raise FilterError(f"The filter on {filters.key!r}: {op.value!r} takes {wanted}, not {value!r:.80}.")


def push_down(filters: MetadataFilters | MetadataFilter) -> Filter | None:
    """Return a filter that finds every document that `matches` does, and few others; None if all may match."""
    if isinstance(filters, MetadataFilter):
        return _push_one(filters)
    parts = [push_down(one) for one in filters.filters]
    pushed = tuple(part for part in parts if part is not None)
    if filters.condition == FilterCondition.NOT or not pushed:
        return None
    if filters.condition == FilterCondition.OR:
        return Or(pushed) if len(pushed) == len(parts) else None
    return And(pushed)


def of_documents(ref_doc_ids: Sequence[str]) -> dict[str, Any]:
    """Return a filter in the core's language that finds the nodes of these documents, by their sources' ids."""
    among: dict[str, Any] = {PARENT: {"$in": list(ref_doc_ids)}}
    dates = [one for one in ref_doc_ids if instant(one) is not None]
    if not dates:
        return among
    # `$in` compares dates as instants, of which two ids may be one; `$like` compares texts.
    others = [one for one in ref_doc_ids if instant(one) is None]
    return among | {"$or": [{PARENT: {"$in": others}}, *({PARENT: {"$like": one}} for one in dates)]}


def matches(filters: MetadataFilters | MetadataFilter, metadata: Mapping[str, Any]) -> bool:
    """Return whether a document with these stored metadata matches.

    Args:
        filters: checked by `check_filters`.
        metadata: as `nodes.encodable_node` stores them.
    """
    if isinstance(filters, MetadataFilter):
        by_parent = filters.key in PARENT_NAMES and stored_key(filters.key) not in metadata
        equal = operator.eq if by_parent else same
        return _holds(filters.operator, filters.value, _find(metadata, filters.key), equal)
    found = (matches(one, metadata) for one in filters.filters)
    if not filters.filters:
        return True
    if filters.condition == FilterCondition.NOT:
        return not any(found)
    return any(found) if filters.condition == FilterCondition.OR else all(found)


def _push_one(filter: MetadataFilter) -> Filter | None:
    key, op = stored_key(filter.key), filter.operator
    if op in (FilterOperator.NE, FilterOperator.NIN) or key.startswith("$"):
        return None
    if op == FilterOperator.IS_EMPTY:
        # The core takes a missing dotted key for a path into objects.
        return None if "." in key else parse_filter({key: {"$in": [None, "", []]}})
    names = [key]
    if filter.key in PARENT_NAMES:
        names.append(PARENT)
    if filter.key in IMAGE_NAMES:
        names.append(filter.key)
    parts = [_push_condition(name, op, filter.value) for name in names]
    return Or(tuple(parts)) if len(parts) > 1 else parts[0]


def _push_condition(name: str, op: FilterOperator, value: Any) -> Filter:
    spec: dict[str, Any]
    if op == FilterOperator.ALL and value:
        spec = {"$and": [{name: {"$contains": one}} for one in value[:_MOST_PUSHED]]}
    elif op == FilterOperator.ANY and 0 < len(value) <= _MOST_PUSHED:
        spec = {"$or": [{name: {"$contains": one}} for one in value]}
    else:
        spec = {name: {_PUSHED[op]: value} if op in _PUSHED else {"$exists": True}}
    parsed = parse_filter(spec)
    assert parsed is not None
    return parsed


def _find(metadata: Mapping[str, Any], key: str) -> Any:
    """Return a field's value, or None if it is missing."""
    if (stored := stored_key(key)) in metadata:
        return metadata[stored]
    if key in IMAGE_NAMES and not is_node(metadata):
        return metadata.get(key)
    return metadata.get(PARENT) if key in PARENT_NAMES else None


def _holds(op: FilterOperator, value: Any, found: Any, equal: Callable[[Any, Any], bool]) -> bool:
    match op:
        case FilterOperator.IS_EMPTY:
            return found is None or found in ("", [])
        case _ if found is None:
            return op in (FilterOperator.NE, FilterOperator.NIN)
        case FilterOperator.EQ | FilterOperator.NE:
            return equal(found, value) == (op == FilterOperator.EQ)
        case FilterOperator.IN | FilterOperator.NIN:
            return any(equal(found, one) for one in value) == (op == FilterOperator.IN)
        case FilterOperator.CONTAINS:
            return _contains(found, value)
        case FilterOperator.ANY:
            return any(_contains(found, one) for one in value)
        case FilterOperator.ALL:
            return all(_contains(found, one) for one in value)
        case FilterOperator.TEXT_MATCH:
            return isinstance(found, str) and value in found
        case FilterOperator.TEXT_MATCH_INSENSITIVE:
            return isinstance(found, str) and value.casefold() in found.casefold()
        case _:
            return in_order(_ORDER[op], found, value)


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, list):
        return any(same(element, value) for element in found)
    return isinstance(found, str | dict) and isinstance(value, str) and value in found
