"""LateInteractionTranslator: translate LangChain's structured queries to filters, for its SelfQueryRetriever."""

from __future__ import annotations

from typing import Any

from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)
from typing_extensions import override

_COMPARATORS = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
    Comparator.CONTAIN: "$contains",
    Comparator.LIKE: "$like",
}
_COMBINING = {Operator.AND: "$and", Operator.OR: "$or"}


class LateInteractionTranslator(Visitor):
    """Translates structured queries, as `structured_query_translator` of LangChain's `SelfQueryRetriever.from_llm`.

    >>> from langchain_core.structured_query import Comparator, Comparison, StructuredQuery
    >>> from langchain_lateint import LateInteractionTranslator
    >>> since_2000 = Comparison(comparator=Comparator.GTE, attribute="year", value=2000)
    >>> query = StructuredQuery(query="apple pie", filter=since_2000, limit=None)
    >>> LateInteractionTranslator().visit_structured_query(query)
    ('apple pie', {'filter': {'year': {'$gte': 2000}}})

    `contain` finds a part of a text, or an element of a list; of several values all of them. `like` takes the wildcards
    of SQL, and finds a part of a text where it is given none.
    """

    allowed_comparators = tuple(_COMPARATORS)
    allowed_operators = tuple(Operator)

    @override
    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """Return `{"$and": […]}`, `{"$or": […]}` or `{"$not": …}`; `not` of several means none of them."""
        self._validate_func(operation.operator)
        filters = [argument.accept(self) for argument in operation.arguments]
        if operation.operator == Operator.NOT:
            return {"$not": filters[0] if len(filters) == 1 else {"$or": filters}}
        return {_COMBINING[operation.operator]: filters}

    @override
    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """Return `{attribute: {operator: value}}`; a date is compared as an instant."""
        self._validate_func(comparison.comparator)
        value = _value(comparison.value)
        if comparison.comparator == Comparator.CONTAIN and isinstance(value, list):
            return {"$and": [{comparison.attribute: {"$contains": one}} for one in value]}
        if (
            comparison.comparator == Comparator.LIKE
            and isinstance(value, str)
            and not {"%", "_"} & set(value)
        ):
            value = f"%{value}%"
        return {comparison.attribute: {_COMPARATORS[comparison.comparator]: value}}

    @override
    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """Return the text to search for, and the arguments of the search."""
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}


def _value(value: Any) -> Any:
    """Return a JSON value; LangChain's parser writes a date as {"date": "2024-04-20", "type": "date"}."""
    if isinstance(value, list | tuple):
        return [_value(one) for one in value]
    if isinstance(value, dict) and value.get("type") in ("date", "datetime"):
        return value[value["type"]]
    return value
