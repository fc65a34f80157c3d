import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.errors import FilterError
from late_interaction.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    And,
    Comparison,
    Exists,
    Filter,
    Not,
    Or,
    fields,
    matches,
    parse_filter,
)
from late_interaction.stores.local import filters as local
from late_interaction.stores.local.filters import Verdict, matching, to_json


def parse(spec: Any) -> Filter:
    parsed = parse_filter(spec)
    assert parsed is not None
    return parsed


# --- the language ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_filter_is_none(nothing: Any) -> None:
    assert parse_filter(nothing) is None


def test_a_parsed_filter_is_returned_as_it_is() -> None:
    parsed = parse({"a": 1})
    assert parse_filter(parsed) is parsed


def test_the_tree() -> None:
    assert parse({"lang": "en", "year": {"$gte": 2000, "$lt": 2010}}) == And(
        (Comparison("lang", "$eq", "en"), Comparison("year", "$gte", 2000), Comparison("year", "$lt", 2010))
    )
    assert parse({"a": {"$nin": [1]}}) == Not(Comparison("a", "$in", (1,)))
    assert parse({"a": {"$exists": False}}) == Not(Exists("a"))
    assert parse({"$or": [{"a": None}, {"$not": {"b": {"$not": {"$gt": "x"}}}}]}) == Or(
        (Comparison("a", "$eq", None), Not(Not(Comparison("b", "$gt", "x"))))
    )


def test_filters_are_equal_when_they_mean_the_same() -> None:
    assert parse({"a": 1}) == parse({"a": {"$eq": 1.0}})
    assert hash(parse({"a": 1})) == hash(parse({"a": 1.0}))
    assert parse({"a": 1}) != parse({"a": True})
    assert parse({"a": [1, [0]]}) != parse({"a": [1, [False]]})
    assert parse({"a": {"$in": [1, 2]}}) == parse({"a": {"$in": [2, 1, 1.0]}})
    assert parse({"a": {"$gt": 1}}) != parse({"a": {"$gt": 2}})


def test_fields() -> None:
    assert fields(parse({"a": 1, "$or": [{"b.c": {"$gt": 1}}, {"$not": {"d": {"$exists": True}}}]})) == {
        "a",
        "b.c",
        "d",
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (3, "A filter is a mapping"),
        ({"year": {"$gtt": 1}}, r"filter\['year'\]\['\$gtt'\].*Did you mean '\$gt'\?.*\$exists"),
        ({"$nor": [{"a": 1}]}, r"no operator '\$nor'.*Did you mean '\$or'\?"),
        ({"$gt": 1}, r"'\$gt' belongs to a field"),
        ({"a": {"$or": [1, 2]}}, r"'\$or' combines filters"),
        ({"a": {"gte": 1}}, r"Did you mean '\$gte'\?"),
        ({"a": {"b": 1}}, "dotted name"),
        ({"a": {"$eq": {"b": 1}}}, "dotted name"),
        ({"a": [{"b": 1}]}, "dotted name"),
        ({"a": {}}, "empty"),
        ({"$or": [{"a": 1}, {}]}, r"filter\['\$or'\]\[1\]: .*empty"),
        ({"$and": []}, "empty"),
        ({"$and": {"a": 1}}, "takes a list"),
        ({"$or": [{"a": 1}, ["b"]]}, r"filter\['\$or'\]\[1\]: a filter is a mapping"),
        ({"$not": 3}, "a filter is a mapping"),
        ({"a": {"$not": 3}}, r"use '\$ne'"),
        ({"a": {"$not": {}}}, "empty"),
        ({"a": {"$exists": 1}}, "takes True or False"),
        ({"a": {"$in": "abc"}}, "takes a list"),
        ({"a": {"$nin": {1}}}, "takes a list"),
        ({"a": {"$gt": True}}, "takes a number or a string, not bool True"),
        ({"a": {"$lt": None}}, "not None"),
        ({"a": {"$gte": [1]}}, "not list"),
        ({"a": float("nan")}, "not a JSON value"),
        ({"a": {"$in": [1, float("inf")]}}, "not a JSON value"),
        ({"a": {"$lte": float("nan")}}, "not a JSON value"),
        ({"a": b"x"}, "bytes"),
        ({"a": {"$in": [object()]}}, "JSON values"),
        ({1: "a"}, "name is a string"),
        ({"a\0": 1}, "NUL"),
    ],
)
def test_malformed(spec: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        parse_filter(spec)


def test_too_deep() -> None:
    def nested(levels: int) -> dict[str, Any]:
        return {"a": 1} if levels == 1 else {"$not": nested(levels - 1)}

    def nested_on_field(levels: int) -> dict[str, Any]:
        return {"$gt": 1} if levels == 1 else {"$not": nested_on_field(levels - 1)}

    deep_list: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep_list = [deep_list]
    parse(nested(MAX_DEPTH))
    for spec in (nested(MAX_DEPTH + 1), nested(900), {"a": nested_on_field(MAX_DEPTH + 1)}, {"a": deep_list}):
        with pytest.raises(FilterError, match="deep"):
            parse_filter(spec)


def test_too_many_conditions() -> None:
    parse({"$or": [{"a": index} for index in range(MAX_CONDITIONS)]})
    with pytest.raises(FilterError, match=r"\$in"):
        parse_filter({"$or": [{"a": index} for index in range(MAX_CONDITIONS + 1)]})


# --- what it means --------------------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "year": 2005,
    "ratio": 1.0,
    "flag": True,
    "none": None,
    "lang": "en",
    "tags": ["a", "b", None, [1, 2]],
    "empty": [],
    "author": {"name": "Ada", "born": {"year": 1815}},
    "a.b": "literal",
    "a": {"b": "nested", "c": 3},
    "people": [{"name": "x"}],
}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"year": 2005}, True),
        ({"year": 2005.0}, True),
        ({"year": "2005"}, False),
        ({"year": {"$gte": 2000, "$lt": 2010}, "lang": "en"}, True),
        ({"year": {"$gte": 2000, "$lt": 2005}}, False),
        ({"year": {"$gt": "1"}}, False),
        ({"lang": {"$gt": 1}}, False),
        ({"lang": {"$lte": "en"}}, True),
        ({"flag": True}, True),
        ({"flag": 1}, False),
        ({"ratio": True}, False),
        ({"flag": {"$gte": 0}}, False),
        ({"none": None}, True),
        ({"missing": None}, True),
        ({"none": {"$exists": True}}, True),
        ({"missing": {"$exists": True}}, False),
        ({"missing": {"$ne": 1}}, True),
        ({"missing": {"$nin": [1, 2]}}, True),
        ({"missing": {"$nin": [1, None]}}, False),
        ({"missing": {"$gt": 1}}, False),
        ({"missing": {"$not": {"$gt": 1}}}, True),
        ({"tags": "b"}, True),
        ({"tags": {"$ne": "b"}}, False),
        ({"tags": None}, True),
        ({"tags": [1, 2]}, True),
        ({"tags": 1}, False),
        ({"tags": ["a", "b", None, [1, 2.0]]}, True),
        ({"tags": ["a", "b"]}, False),
        ({"tags": {"$gt": "a"}}, True),
        ({"tags": {"$gt": "b"}}, False),
        ({"empty": []}, True),
        ({"empty": None}, False),
        ({"empty": {"$exists": True}}, True),
        ({"year": {"$in": []}}, False),
        ({"year": {"$nin": []}}, True),
        ({"year": {"$in": ["x", 2005]}}, True),
        ({"tags": {"$in": [[2, 1], [1, 2]]}}, True),
        ({"author.name": "Ada"}, True),
        ({"author.born.year": {"$lt": 1900}}, True),
        ({"author.born.month": None}, True),
        ({"author": None}, False),
        ({"a.b": "literal"}, True),
        ({"a.b": "nested"}, False),
        ({"a.c": 3}, True),
        ({"people.name": "x"}, False),
        ({"$or": [{"year": 1}, {"lang": "en"}]}, True),
        ({"$not": {"year": 2005, "lang": "de"}}, True),
        ({"$and": [{"year": 2005}, {"lang": "de"}]}, False),
    ],
)
def test_meaning(spec: Any, expected: bool) -> None:
    parsed = parse(spec)
    assert matches(parsed, DOCUMENT) is expected
    assert select(parsed, [DOCUMENT]) == [expected]


# --- SQL says the same ----------------------------------------------------------------------------------------


def select(parsed: Filter, documents: list[Any]) -> list[bool]:
    """Which documents are found in SQLite; what SQL says for sure is so."""
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, documents)
        found = {row_id for (row_id,) in matching(connection, parsed, "rid")}
        for document, verdict in zip(documents, verdicts(connection, parsed), strict=True):
            assert verdict in (None, matches(parsed, document))
    return [row_id in found for row_id in range(1, len(documents) + 1)]


def fill(connection: sqlite3.Connection, documents: list[Any]) -> None:
    connection.execute("CREATE TABLE documents (rid INTEGER PRIMARY KEY, metadata TEXT NOT NULL)")
    connection.executemany(
        "INSERT INTO documents (metadata) VALUES (?)", [(to_json(one),) for one in documents]
    )


def verdicts(connection: sqlite3.Connection, parsed: Filter) -> list[int | None]:
    sql = Verdict(parsed)
    rows = connection.execute(f"SELECT {sql.expression} FROM documents ORDER BY rid", sql.parameters)
    return [verdict for (verdict,) in rows]


@pytest.mark.parametrize(
    "spec",
    [
        {"lang": "en"},
        {"lang": {"$ne": "en"}},
        {"lang": {"$in": ["en", "de", None]}},
        {"lang": {"$gte": "e", "$lt": "f"}},
        {"year": 7},
        {"year": {"$gte": 3, "$lt": 8.5}},
        {"share": {"$gt": 0.45}},
        {"flag": True},
        {"missing": None},
        {"tags": {"$nin": ["x", "y"]}},
        {"author.name": "Ada 3"},
        {"author.name": {"$exists": False}},
        {"$or": [{"year": 1}, {"$not": {"lang": "de", "year": {"$lte": 5}}}]},
    ],
)
def test_what_people_ask_is_decided_in_sql(spec: Any) -> None:
    documents: list[Any] = [
        {
            "lang": ["en", "de", "fr"][i % 3],
            "year": i,
            "share": i / 10,
            "flag": i % 2 == 0,
            "tags": [f"t{i}", "all"],
            "author": {"name": f"Ada {i}"},
        }
        for i in range(10)
    ]
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, documents)
        assert verdicts(connection, parse(spec)) == [matches(parse(spec), one) for one in documents]


def test_what_sql_cannot_judge_leaves_open_only_what_hangs_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a new operator needs nothing in SQL."""
    documents = [{"lang": "en" if i % 4 else "de", 'odd"key': i} for i in range(12)]
    read = []
    monkeypatch.setattr(local, "matches", lambda *args: read.append(args) or matches(*args))
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, documents)
        both = parse({"lang": "de", 'odd"key': {"$gt": 3}})
        assert [row_id for (row_id,) in matching(connection, both, "rid")] == [5, 9]
        assert len(read) == 3
        either = parse({"$or": [{"lang": "en"}, {'odd"key': 4}]})
        assert [row_id for (row_id,) in matching(connection, either, "rid", above=4)] == [
            5,
            6,
            7,
            8,
            10,
            11,
            12,
        ]
        assert len(read) == 5
        assert [row_id for (row_id,) in matching(connection, either, "rid", among=[1, 2, 5])] == [2, 5]


# Corners of JSON, of SQLite's paths and of floats; alike, so that filters and documents meet.
KEYS = [
    *"ab.\"\\'é😀\u2028\ud800#*?[$\n\x7f ",
    "",
    "a.b",
    "b.a",
    "a.b.a",
    "a.",
    'a"b',
    'a".b"',
    "a[0]",
    "a.$",
]
KEYS += ['\\"', "u0022", "\\u0022", "\\u0000", "{a}", "?1", "%s", "array of 1"]
FIELDS = [key for key in KEYS if not key.startswith("$")]
STRINGS = [
    *"ab\0\1\2\"\\'éÉ😀\ud800\udfff\ue000\x0b1[",
    "",
    "ab",
    "a\0",
    "a\0b",
    "a\1",
    "a\1b",
    "\0\1",
    "\1\1",
]
STRINGS += ["\1\2", "\\u0000", "\\\\u0000", "\\u0001", '\\"', "1.0", "null", "true", "[]", "{}", "array of 1"]
NUMBERS: list[float] = [0, -0.0, 1, 1.0, -1, 0.1, 0.3, 0.1 + 0.2, 5e-324, 1e16, 10**16, 2.0**53, 2**53 + 1]
NUMBERS += [n for power in (63, 64) for n in (2**power - 1, 2**power, 2.0**power, 2**power + 1)]
NUMBERS += [
    n for large in (1e300, sys.float_info.max) for n in (large, int(large) - 1, int(large), int(large) + 1)
]
NUMBERS += [10**400, 10**400 + 1]
NUMBERS += [-number for number in NUMBERS]
SCALARS: list[Any] = [None, True, False, *NUMBERS, *STRINGS]
LISTS: list[Any] = [
    [],
    [[]],
    [1],
    [1.0],
    [True],
    [None],
    ["1"],
    [1, 2],
    [2, 1],
    [[1], 2],
    [[1.0], 2.0],
    ["a\0"],
]


@pytest.mark.slow
def test_sql_compares_as_matches_does() -> None:
    values = [*SCALARS, *LISTS, *([value] for value in SCALARS[::3]), {}, {"a": 1}, [{"a": 1}], [{}, 1]]
    documents = [{}, *({"a": value} for value in values)]
    specs = [{op: value} for op in ("$eq", "$ne") for value in [*SCALARS, *LISTS]]
    specs += [{op: bound} for op in ("$gt", "$gte", "$lt", "$lte") for bound in [*NUMBERS, *STRINGS]]
    specs += [
        {op: several} for op in ("$in", "$nin") for several in ([], SCALARS, LISTS, [1, "a", [1]], [None])
    ]
    wrong = differences([{"a": spec} for spec in specs], documents)
    assert not wrong
    found = [sum(matches(parse({"a": spec}), one) for one in documents) for spec in specs]
    assert min(found[: len(SCALARS)]) >= 1


@pytest.mark.slow
def test_sql_finds_the_fields_that_matches_does() -> None:
    documents: list[Any] = [{key: 1} for key in KEYS]
    documents += [{key: {inner: 1}} for key in KEYS for inner in ("a", "b", "", '"', "\\", "$")]
    documents += [
        {"a": {"b": 1}, "a.b": 2},
        {"a": {"b": 1}, "a.b": None},
        {"a": [{"b": 1}]},
        {"a": {"b": {"a": 1}}},
    ]
    names = [*FIELDS, *(f"{key}.{inner}" for key in FIELDS for inner in ("a", "", '"', "\\", "$"))]
    wrong = differences([{name: spec} for name in names for spec in (1, {"$exists": True})], documents)
    assert not wrong
    assert all(any(matches(Exists(name), one) for one in documents) for name in names if name.count(".") < 2)


def differences(specs: list[Any], documents: list[Any]) -> list[tuple[Any, Any]]:
    """The filters and documents where the SQL says otherwise."""
    return [
        (spec, document)
        for spec, parsed in ((spec, parse(spec)) for spec in specs)
        for document, selected in zip(documents, select(parsed, documents), strict=True)
        if selected is not matches(parsed, document)
    ]


keys = st.sampled_from(KEYS) | st.text().map(lambda text: text.replace("\0", ""))
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
strings = st.sampled_from(STRINGS) | st.text()
scalars = st.none() | st.booleans() | numbers | strings
lists = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(keys, values, max_size=5).map(lambda drawn: json.loads(to_json(drawn)))


@st.composite
def conditions(draw: st.DrawFn, documents: list[Any]) -> dict[str, Any]:
    """A condition, more often than not on a field that is there and with a value of it."""
    field, value = draw(st.sampled_from(list(places(documents)) or [("a", 1)]) | st.tuples(keys, lists))
    if field.startswith("$"):
        field = "a." + field
    if "{" in json.dumps(value):
        return {field: {"$exists": draw(st.booleans())}}
    ops = ["$eq", "$ne"]
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        ops += ["$gt", "$gte", "$lt", "$lte"]
    match draw(st.sampled_from([*ops, "$in", "$nin"])):
        case "$in" | "$nin" as op:
            condition = {op: [value, *draw(st.lists(lists, max_size=2))]}
        case op:
            condition = {op: value}
    return {field: {"$not": condition} if draw(st.booleans()) else condition}


def places(documents: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each field by the (dotted) name that may find it, with its value and the value's elements."""
    for document in documents:
        for key, value in document.items():
            yield key, value
            if isinstance(value, list):
                yield from ((key, element) for element in value if "{" not in json.dumps(element))
            if isinstance(value, dict):
                yield from ((f"{key}.{name}", inner) for name, inner in places([value]))


def whole_filters(documents: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        conditions(documents),
        lambda inner: (
            st.builds(lambda one: {"$not": one}, inner)
            | st.builds(
                lambda op, several: {op: several},
                st.sampled_from(["$and", "$or"]),
                st.lists(inner, min_size=1, max_size=3),
            )
        ),
        max_leaves=4,
    )


@pytest.mark.slow
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_sql_selects_what_matches(data: st.DataObject) -> None:
    documents = data.draw(st.lists(metadata, min_size=1, max_size=3))
    spec = data.draw(whole_filters(documents))
    parsed = parse(spec)
    expected = [matches(parsed, document) for document in documents]
    assert select(parsed, documents) == expected
    assert select(parse({"$not": spec}), documents) == [not one for one in expected]


@pytest.mark.slow
def test_filters_as_long_and_as_deep_as_they_may_be() -> None:
    connection = sqlite3.connect(":memory:")
    rows: list[Any] = [{"n": n, "tags": [n % 3, str(n)]} for n in range(30)] + [{}]
    fill(connection, rows)

    def count(spec: Any) -> int:
        return sum(1 for _ in matching(connection, parse(spec), "1"))

    assert count({"n": {"$lt": 10}}) == 10
    assert count({"n": {"$not": {"$lt": 10}}}) == 21
    assert count({"tags": "7"}) == 1
    assert count({"tags": 0, "n": {"$gte": 15}}) == 5
    assert count({"n": {"$in": list(range(-10_000, 5))}}) == 5
    assert count({"n": {"$nin": [[index] for index in range(10_000)]}}) == 31
    assert count({"$or": [{"n": n} for n in range(MAX_CONDITIONS)]}) == 30
    assert count({"$and": [{"n.m.o": {"$ne": n}} for n in range(MAX_CONDITIONS)]}) == 31
    deep: Any = {"$or": [{"n": 1}, {"n": 2}]}
    for n in range(MAX_DEPTH - 2):
        deep = {"$and" if n % 2 else "$or": [deep, {"tags": {"$ne": [n]}}]}
    assert count(deep) == sum(matches(parse(deep), row) for row in rows)
    connection.close()


@pytest.mark.parametrize(
    "text", ["'); DROP TABLE d; --", '"', "?", "{0}", "{path}", "metadata", "\\", "' OR '1'='1"]
)
def test_nothing_of_a_filter_is_in_the_sql(text: str) -> None:
    for condition in ({"$eq": text}, {"$gt": text}, {"$in": [text, [text]]}, {"$exists": True}):
        plain = Verdict(parse({'a"': condition} if '"' in text else {"a": condition}))
        assert Verdict(parse({text: condition})).expression == plain.expression


def test_to_json_refuses_what_sqlite_cannot_look_up() -> None:
    for good in (
        {"a": "\0", "\\u0000": 1},
        {"a": ["\0"], "b": {"c": "x\0"}},
        {"\\\\u0000": 1},
        {"é": '\0":'},
    ):
        assert json.loads(to_json(good)) == good
    for bad in ({"\0": 1}, {"a": {"b\0": 1}}, {"\\\0": 1}, {"a": [{'\0\\"': 1}]}, {"\\\\\0x": "y"}):
        with pytest.raises(ValueError, match="NUL"):
            to_json(bad)
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})
