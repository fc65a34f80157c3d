"""Filters: what they mean is what LlamaIndex's own evaluator says, and nothing that matches is lost on the way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import utils
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

from late_interaction.errors import FilterError
from late_interaction.filters import matches as matches_core
from late_interaction.filters import parse_filter
from llamaindex_lateint import LateInteractionVectorStore
from llamaindex_lateint.filters import check_filters, matches, push_down
from llamaindex_lateint.nodes import encodable_node
from tests.adapters.conftest import MakeStore, drop

OF_LISTS = [FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL]
OF_STRINGS = [FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE]
EQUAL = [FilterOperator.EQ, FilterOperator.NE]
OF_SCALARS = [
    op for op in FilterOperator if op not in (*OF_LISTS, *OF_STRINGS, *EQUAL, FilterOperator.IS_EMPTY)
]

strings = st.sampled_from(["a", "b", "ab", "Ab", "", "1"])
numbers = st.integers(-2, 2) | st.sampled_from([0.5, 1.0])
scalars = strings | numbers
lists = (
    st.lists(strings, max_size=3)
    | st.lists(st.integers(-2, 2), max_size=3)
    | st.lists(st.sampled_from([0.5, 1.0]), max_size=3)
)
names = st.sampled_from(["x", "y", "x.y", "doc_id", "ref_doc_id", "$z", "_node_type"])


def one(operators: list[FilterOperator], values: st.SearchStrategy[Any]) -> st.SearchStrategy[MetadataFilter]:
    return st.builds(MetadataFilter, key=names, value=values, operator=st.sampled_from(operators))


filters_of_one = (
    one(OF_LISTS, lists)
    | one(OF_STRINGS, strings)
    | one(EQUAL, scalars | lists)
    | one(OF_SCALARS, scalars)
    | one([FilterOperator.IS_EMPTY], st.none())
)
conditions = st.sampled_from([None, *FilterCondition])
flat_filters = st.builds(MetadataFilters, filters=st.lists(filters_of_one, max_size=3), condition=conditions)
nested_filters = st.recursive(
    filters_of_one,
    lambda inner: st.builds(MetadataFilters, filters=st.lists(inner, max_size=3), condition=conditions),
    max_leaves=6,
)
values = st.none() | scalars | lists | st.fixed_dictionaries({"y": scalars | lists})
metadatas = st.dictionaries(names, values, max_size=5)


def stored(metadata: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    source = {} if parent is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=parent)}
    node = TextNode(text="text", metadata=metadata, relationships=source)
    return encodable_node(node, images=False).document.metadata


def by_llamaindex(filter: MetadataFilter, metadata: dict[str, Any]) -> bool:
    """LlamaIndex's own evaluator, where a value of another type does not match instead of raising."""
    try:
        accepts = utils.build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[filter]))
        return bool(accepts("the node"))
    except TypeError:
        return False


a_key_is_missing = MetadataFilter(key="x", value=1, operator=FilterOperator.NE)
needs_the_evaluator = pytest.mark.skipif(
    not hasattr(utils, "build_metadata_filter_fn") or not by_llamaindex(a_key_is_missing, {}),
    reason="an older llama-index-core, without an evaluator or with one for which a missing key matches nothing",
)


@pytest.mark.slow
@needs_the_evaluator
@given(filter=filters_of_one, metadata=metadatas)
def test_each_operator_means_what_llamaindex_says(filter: MetadataFilter, metadata: dict[str, Any]) -> None:
    check_filters(filter)
    assert matches(filter, stored(metadata)) == by_llamaindex(filter, metadata)


@needs_the_evaluator
@given(filters=flat_filters, metadata=metadatas)
def test_each_condition_means_what_llamaindex_says(
    filters: MetadataFilters, metadata: dict[str, Any]
) -> None:
    each = [by_llamaindex(part, metadata) for part in filters.filters]
    expected = {
        None: all(each),
        FilterCondition.AND: all(each),
        FilterCondition.OR: any(each) or not each,
        FilterCondition.NOT: not any(each),
    }
    assert matches(filters, stored(metadata)) == expected[filters.condition]


DATES = ["2024-05-01", "2024-05-01T02:00:00+02:00", "2024-05-01 00:00:00.5", "2024-05"]
dates = st.sampled_from([*DATES, *map(dt.datetime.fromisoformat, DATES[:3])])
of_dates = one([*OF_SCALARS, *EQUAL, *OF_STRINGS], st.sampled_from(DATES)) | one(
    OF_LISTS, st.lists(st.sampled_from(DATES), max_size=2)
)
values |= dates | st.lists(dates, max_size=2) | st.dictionaries(st.sampled_from(["a", "ab", "1"]), scalars)


@pytest.mark.slow
@given(
    filters=st.recursive(
        filters_of_one | of_dates,
        lambda inner: st.builds(MetadataFilters, filters=st.lists(inner, max_size=3), condition=conditions),
        max_leaves=6,
    ),
    metadata=st.dictionaries(names, values, max_size=5),
    parent=st.none() | strings.filter(bool),
)
def test_what_is_pushed_down_loses_nothing(
    filters: MetadataFilters | MetadataFilter, metadata: dict[str, Any], parent: str | None
) -> None:
    pushed = push_down(filters)
    have = stored(metadata, parent)
    if matches(filters, have) and pushed is not None:
        assert matches_core(pushed, have)


def test_most_operators_are_pushed_down() -> None:
    values: dict[FilterOperator, Any] = {op: ["a"] for op in OF_LISTS} | {FilterOperator.IS_EMPTY: None}
    not_pushed = {
        op
        for op in FilterOperator
        if push_down(MetadataFilter(key="x", value=values.get(op, "a"), operator=op)) is None
    }
    assert not_pushed == {FilterOperator.NE, FilterOperator.NIN}


def test_parts_of_texts_are_looked_for_by_the_store() -> None:
    for op, core in (("text_match", "$contains"), ("text_match_insensitive", "$icontains")):
        assert push_down(where("x", op, "Ab")) == parse_filter({"x": {core: "Ab"}})
    assert push_down(where("x", "contains", 3)) == parse_filter({"x": {"$contains": 3}})
    both = push_down(where("x", "all", [1, 2]))
    assert both == parse_filter({"$and": [{"x": {"$contains": 1}}, {"x": {"$contains": 2}}]})


# --- through the store

LIBRARY: dict[str, dict[str, Any]] = {
    "one": {"year": 1999, "lang": "en", "tags": ["red", "blue"], "title": "The Sea", "draft": True},
    "two": {"year": 2005, "lang": "de", "tags": ["red"], "title": "Das Meer", "draft": False},
    "three": {"year": 2005.0, "lang": "en", "tags": [], "title": "the SEA again"},
    "four": {"lang": None, "title": "", "by": {"name": "Ada"}, "at": dt.datetime(2024, 5, 1, 12)},
}


def condition(op: str, *filters: Any) -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=FilterCondition(op))


def where(key: str, op: str, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, operator=FilterOperator(op), value=value)


CASES = [
    (where("year", "==", 2005), "two three"),
    (where("year", ">", 1999), "two three"),
    (where("year", "<", 2005), "one"),
    (where("year", ">=", 1999), "one two three"),
    (where("year", "<=", 1999.0), "one"),
    (where("lang", "!=", "en"), "two four"),
    (where("tags", "!=", "red"), "one two three four"),
    (where("tags", "==", ["red"]), "two"),
    (where("tags", "==", "red"), ""),
    (where("lang", "in", ["de", "fr"]), "two"),
    (where("year", "nin", [1999, 2000]), "two three four"),
    (where("tags", "any", ["blue", "green"]), "one"),
    (where("tags", "all", ["blue", "red"]), "one"),
    (where("tags", "contains", "red"), "one two"),
    (where("title", "contains", "Sea"), "one"),
    (where("title", "text_match", "Sea"), "one"),
    (where("title", "text_match_insensitive", "sea"), "one three"),
    (where("lang", "is_empty"), "four"),
    (where("tags", "is_empty"), "three four"),
    (where("by", "contains", "name"), "four"),
    (where("at", ">", "2024-05-01T13:00+02:00"), "four"),
    (where("at", "==", "2024-05-01T12:00Z"), "four"),
    (where("at", "<", "2024-05-01"), ""),
    (where("at", "text_match", "2024"), ""),
    (where("title", "is_empty"), "four"),
    (where("nowhere", "is_empty"), "one two three four"),
    (where("nowhere", "==", "x"), ""),
    (where("ref_doc_id", "==", "book-two"), "two"),
    (where("doc_id", "in", ["book-one", "book-four"]), "one four"),
    (condition("and", where("year", "==", 2005), where("lang", "==", "en")), "three"),
    (condition("or", where("year", "==", 1999), where("lang", "==", "de")), "one two"),
    (condition("not", where("year", "==", 2005), where("lang", "is_empty")), "one"),
    (
        condition(
            "and",
            condition("not", condition("and", where("lang", "==", "en"), where("year", ">", 2000))),
            condition("or", where("tags", "contains", "blue"), where("lang", "is_empty")),
        ),
        "one four",
    ),
    (condition("not", condition("not", where("title", "text_match", "Meer"))), "two"),
    (MetadataFilters(filters=[]), "one two three four"),
]


BOOKS = [
    TextNode(
        id_=name,
        text=f"a book {name}",
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"book-{name}")},
    )
    for name, metadata in LIBRARY.items()
]


@pytest.fixture(scope="module")
def library(make: MakeStore, engine: str) -> Iterator[LateInteractionVectorStore]:
    """A store that no test changes."""
    store = make(engine)
    store.add(BOOKS)
    yield store
    drop(store)


def as_filters(filters: MetadataFilter | MetadataFilters) -> MetadataFilters:
    return MetadataFilters(filters=[filters]) if isinstance(filters, MetadataFilter) else filters


@pytest.mark.parametrize(("filters", "expected"), CASES)
async def test_a_filter_leaves_the_same_nodes_to_every_method(
    library: LateInteractionVectorStore, filters: MetadataFilter | MetadataFilters, expected: str
) -> None:
    filters = as_filters(filters)
    query = VectorStoreQuery(query_str="book", similarity_top_k=10, filters=filters)
    assert sorted(library.query(query).ids or ()) == sorted(expected.split())
    assert sorted((await library.aquery(query)).ids or ()) == sorted(expected.split())
    assert sorted(library.query(query, node_ids=list(LIBRARY)).ids or ()) == sorted(expected.split())
    assert sorted(node.node_id for node in library.get_nodes(filters=filters)) == sorted(expected.split())


@pytest.mark.slow
def test_a_filter_deletes_what_it_finds(store: LateInteractionVectorStore) -> None:
    for filters, expected in CASES[:-1]:
        store.add(BOOKS)
        store.delete_nodes(filters=as_filters(filters))
        assert {node.node_id for node in store.get_nodes()} == set(LIBRARY) - set(expected.split())


def test_native_filters_know_booleans_and_dotted_names(library: LateInteractionVectorStore) -> None:
    query = VectorStoreQuery(query_str="book", similarity_top_k=10)
    assert library.query(query, filter={"draft": True}).ids == ["one"]
    assert library.query(query, filter={"draft": {"$exists": False}, "tags": []}).ids == ["three"]
    assert library.query(query, filter={"by.name": "Ada"}).ids == ["four"]
    both = VectorStoreQuery(
        query_str="book", similarity_top_k=10, filters=MetadataFilters(filters=[where("year", "==", 2005)])
    )
    assert library.query(both, filter={"draft": False}).ids == ["two"]


@pytest.mark.slow
@pytest.mark.parametrize("op", ["text_match", "!=", "contains"])
def test_a_filter_after_the_search_still_finds_k(store: LateInteractionVectorStore, op: str) -> None:
    """The few nodes that match are the worst of two hundred."""
    nodes = [TextNode(id_=f"good {i}", text="exactly this", metadata={"kind": "common"}) for i in range(200)]
    for node in nodes:
        node.excluded_embed_metadata_keys = ["kind"]
    nodes += [
        TextNode(
            id_=f"bad {i}",
            text=f"word{i}",
            metadata={"kind": "a rare one"},
            excluded_embed_metadata_keys=["kind"],
        )
        for i in range(3)
    ]
    store.add(nodes)
    filters = MetadataFilters(filters=[where("kind", op, "common" if op == "!=" else "rare")])
    for k, expected in ((2, 2), (3, 3), (50, 3)):
        found = store.query(VectorStoreQuery(query_str="exactly this", similarity_top_k=k, filters=filters))
        assert len(found.ids or ()) == expected
        assert all(name.startswith("bad") for name in found.ids or ())


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (where("x", "in", "abc"), "'in' takes a list of values, not 'abc'"),
        (where("x", "nin", 1), "'nin' takes a list"),
        (where("x", "any", "abc"), "'any' takes a list"),
        (where("x", "all", 2), "'all' takes a list"),
        (where("x", "text_match", 1), "'text_match' takes a string"),
        (where("x", "text_match_insensitive", ["a"]), "'text_match_insensitive' takes a string"),
        (where("x", ">", [1]), "'>' takes one number or string"),
        (where("x", "contains", ["a"]), "'contains' takes one number or string"),
        (where("x", "==", None), "use the operator 'is_empty'"),
        (where("x", "!=", None), "use the operator 'is_empty'"),
    ],
)
def test_a_value_that_an_operator_cannot_use_is_refused(
    store: LateInteractionVectorStore, filter: MetadataFilter, message: str
) -> None:
    filters = condition("or", condition("not", filter))
    for call in (
        lambda: store.query(VectorStoreQuery(query_str="x", filters=filters)),
        lambda: store.get_nodes(filters=filters),
        lambda: store.delete_nodes(filters=filters),
    ):
        with pytest.raises(FilterError, match=message):
            call()


async def test_a_list_of_values_may_be_longer_than_a_filter_of_the_core(
    store: LateInteractionVectorStore,
) -> None:
    tagged = {"a": ["g1", "g7"], "b": ["g1499"], "c": ["other"], "d": [f"g{i}" for i in range(1500)]}
    store.add([TextNode(id_=one, text="a tree", metadata={"tags": tags}) for one, tags in tagged.items()])
    for op, expected in (("any", ["a", "b", "d"]), ("all", ["d"])):
        filters = as_filters(where("tags", op, [f"g{i}" for i in range(1500)]))
        assert [node.node_id for node in store.get_nodes(filters=filters)] == expected
        found = await store.aquery(VectorStoreQuery(query_str="a tree", similarity_top_k=4, filters=filters))
        assert sorted(found.ids or ()) == expected
