import datetime as dt
import decimal
import enum
import json
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import re2
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
from late_interaction.metadata import loads, plain_value
from late_interaction.stores.local import filters as local
from late_interaction.stores.local.filters import Verdict, matching, to_json
from late_interaction.stores.local.terms import Terms, create_terms, find_matching


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
    assert parse({"a": "2024-05-01"}) == parse({"a": {"$eq": "2024-05-01T02:00+02:00"}})
    for op in ("$gt", "$lte", "$contains", "$icontains", "$startswith", "$regex", "$like"):
        assert parse({"a": {op: "2024-05-01"}}) != parse({"a": {op: "2024-05-01T00:00Z"}}), op
    assert parse({"a": {"$between": [1, "2024-05-01"]}}) != parse({"a": {"$between": [1, "2024-05-01T00Z"]}})


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
        ({"a": {"$nin": {"b": 1}}}, "takes a list"),
        ({"a": {"$in": 3}}, "takes a list"),
        ({"a": {"$in": b"ab"}}, "bytes, which has no plain form"),
        ({"a": {"$gt": True}}, "takes a number, a string or a datetime, not bool True"),
        ({"a": {"$lt": None}}, "not None"),
        ({"a": {"$gte": [1]}}, "not list"),
        ({"a": {"$lte": float("nan")}}, "not float nan"),
        ({"a": {"$between": [1]}}, "the least and the greatest"),
        ({"a": {"$between": "ab"}}, "the least and the greatest"),
        ({"a": {"$between": [1, None]}}, "takes a number"),
        ({"a": {"$contains": ["x"]}}, "takes a text or a number"),
        ({"a": {"$contains": None}}, "takes a text or a number"),
        ({"a": {"$icontains": 3}}, "takes a text"),
        ({"a": {"$startswith": None}}, "takes a text"),
        ({"a": {"$startsWith": "x"}}, r"Did you mean '\$startswith'\?"),
        ({"a": {"$regex": "("}}, "is not a pattern"),
        ({"a": {"$regex": r"(a)\1"}}, "backreferences"),
        ({"a": {"$regex": "(?=a)"}}, "lookaround"),
        ({"a": {"$regex": "((a{1000}){1000}){1000}"}}, "repetition"),
        ({"a": {"$regex": "(?:a*){1000}" * 70}}, "too large"),
        ({"a": {"$regex": "a" * 1001}}, "at most 1,000"),
        ({"a": {"$regex": "\ud800"}}, "surrogate"),
        ({"a": {"$like": "\ud800"}}, "surrogate"),
        ({"$content": "x", "$contents": "x"}, r"Did you mean '\$content'\?"),
        ({"$not": []}, "empty"),
        ({"a": {"$in": [1, float("inf")]}}, r"\['\$in'\]\[1\]: is inf, which has no plain form"),
        ({"a": b"x"}, "bytes, which has no plain form"),
        ({"a": {"$in": [object()]}}, "object, which has no plain form"),
        ({"a": dt.timedelta(1)}, r"timedelta, which has no plain form: write its total_seconds\(\)"),
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

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
DOCUMENT: dict[str, Any] = {
    "at": NOON,
    "day": "2024-05-01",
    "written": "2024-05-01T09:00:00-01:00",
    "naive": dt.datetime(2024, 5, 1, 10),
    "times": [NOON, "2025-01-01"],
    "title": "Straße nach Rom.\nII",
    "price": [5, 25],
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
        ({"year": {"$between": [2005, 2005.5]}}, True),
        ({"year": {"$between": [2006, 2007]}}, False),
        ({"price": {"$between": [10, 20]}}, False),
        ({"price": {"$gte": 10, "$lte": 20}}, True),
        ({"lang": {"$between": ["e", "f"]}}, True),
        ({"at": {"$between": ["2024-05-01", NOON]}}, True),
        ({"title": {"$contains": "nach"}}, True),
        ({"title": {"$contains": "NACH"}}, False),
        ({"title": {"$icontains": "STRASSE"}}, True),
        ({"title": {"$startswith": "Str"}}, True),
        ({"title": {"$startswith": "nach"}}, False),
        ({"title": {"$regex": "nach +R.m"}}, True),
        ({"title": {"$regex": "^nach"}}, False),
        ({"title": {"$regex": "(?i)ROM"}}, True),
        ({"title": {"$like": "Str%"}}, True),
        ({"title": {"$like": "Stra_e%II"}}, True),
        ({"title": {"$like": "Str"}}, False),
        ({"title": {"$like": r"Str\%"}}, False),
        ({"title": {"$ilike": "%ROM.%"}}, True),
        ({"title": {"$like": "%ROM.%"}}, False),
        ({"title": {"$like": "%Rom_II"}}, False),
        ({"title": {"$not": {"$contains": "x"}}}, True),
        ({"missing": {"$contains": ""}}, False),
        ({"year": {"$contains": "2"}}, False),
        ({"at": {"$contains": "2024"}}, False),
        ({"tags": {"$contains": "a"}}, True),
        ({"lang": {"$contains": ""}}, True),
        ({"people": {"$contains": "x"}}, False),
        ({"author": {"$contains": "name"}}, True),
        ({"author": {"$contains": "na"}}, False),
        ({"author": {"$icontains": "NAME"}}, True),
        ({"author": {"$startswith": "name"}}, False),
        ({"at": {"$contains": "$datetime"}}, False),
        ({"price": {"$contains": 5}}, True),
        ({"price": {"$contains": 2}}, False),
        ({"tags": {"$icontains": "B"}}, True),
        ({"tags": {"$startswith": "b"}}, True),
        ({"tags": {"$regex": "^[bc]$"}}, True),
        ({"$content": {"$contains": "pump"}}, True),
        ({"$content": {"$icontains": "e42"}}, True),
        ({"$content": {"$regex": r"E\d+\b"}}, True),
        ({"$content": {"$startswith": "the"}}, False),
        ({"$content": {"$exists": True}}, True),
        ({"$content": {"$ne": "x"}}, True),
        ({"$content": "Error E42 in the pump"}, True),
        ({"$not": [{"year": 1}, {"lang": "de"}]}, True),
        ({"$not": [{"year": 1}, {"lang": "en"}]}, False),
        ({"at": NOON}, True),
        ({"at": NOON.astimezone(dt.UTC)}, True),
        ({"at": NOON.replace(tzinfo=None)}, False),
        ({"at": "2024-05-01T10:00:00Z"}, True),
        ({"at": "2024-05-01 10:00"}, True),
        ({"at": {"$gt": "2024-05-01"}}, True),
        ({"at": {"$gt": "2024-05-0"}}, False),
        ({"at": {"$gt": dt.datetime(2024, 5, 1, 10)}}, False),
        ({"at": {"$gte": dt.datetime(2024, 5, 1, 10)}}, True),
        ({"at": {"$lt": dt.date(2024, 5, 2)}}, True),
        ({"at": {"$gt": 5}}, False),
        ({"at": {"$ne": None}}, True),
        ({"at.$datetime": {"$exists": True}}, False),
        ({"naive": "2024-05-01T12:00:00+02:00"}, True),
        ({"written": NOON}, True),
        ({"written": "2024-05-01T10:00:00Z"}, True),
        ({"written": {"$gt": "2024-05-01T09:30:00Z"}}, True),
        ({"written": {"$lt": "2024-05-01T09:30:00Z"}}, False),
        ({"day": dt.date(2024, 5, 1)}, True),
        ({"day": {"$in": [dt.datetime(2024, 5, 1)]}}, True),
        ({"day": {"$lt": "2024-05-01T00:00:00.000001"}}, True),
        ({"day": {"$gte": "2024"}}, True),
        ({"lang": {"$gt": NOON}}, False),
        ({"times": "2024-05-01T10:00Z"}, True),
        ({"times": {"$gt": dt.datetime(2024, 12, 31)}}, True),
        ({"$or": [{"year": 1}, {"lang": "en"}]}, True),
        ({"$not": {"year": 2005, "lang": "de"}}, True),
        ({"$and": [{"year": 2005}, {"lang": "de"}]}, False),
    ],
)
def test_meaning(spec: Any, expected: bool) -> None:
    parsed = parse(spec)
    assert matches(parsed, DOCUMENT, CONTENT) is expected
    assert select(parsed, [DOCUMENT], [CONTENT]) == [expected]


CONTENT = "Error E42 in the pump"


class Tongue(str, enum.Enum):  # noqa: UP042 - as older code has it
    EN = "en"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (decimal.Decimal("1.50"), 1.5),
        (decimal.Decimal(5), 5),
        (Tongue.EN, "en"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (float("nan"), None),
        (np.array([1, 2]), [1, 2]),
        ({"b", "a"}, ["a", "b"]),
        (dt.date(2024, 5, 1), "2024-05-01"),
    ],
)
def test_values_take_their_plain_form(value: Any, plain: Any) -> None:
    assert parse({"a": value}) == parse({"a": plain})
    assert matches(parse({"a": value}), {"a": plain})
    assert parse({"a": {"$in": [value, 7]}}) == parse({"a": {"$in": (plain, 7)}})


def test_what_holds_several_values() -> None:
    for several in (
        [1, 2],
        (1, 2),
        {1, 2},
        frozenset([1, 2]),
        range(1, 3),
        np.arange(1, 3),
        {1: 0, 2: 0}.keys(),
    ):
        assert parse({"a": {"$in": several}}) == parse({"a": {"$in": [1, 2]}})


def test_a_pattern_takes_time_by_the_text_alone() -> None:
    started = time.thread_time()
    for pattern in ("(a+)+$", "(a|a)*b", "(?:a+a+)+b", "(.*a){20}b", "(?s).*.*.*.*b"):
        assert not matches(parse({"t": {"$regex": pattern}}), {"t": "a" * 20_000 + "!"})
    assert time.thread_time() - started < 2


# --- SQL says the same ----------------------------------------------------------------------------------------


def select(parsed: Filter, documents: list[Any], contents: Sequence[str] = ()) -> list[bool]:
    """Which documents are found in SQLite; what SQL says for sure is so, and so is what the index of metadata says."""
    contents = contents or [""] * len(documents)
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, documents, contents)
        found = {row_id for (row_id,) in matching(connection, parsed, "rid")}
        judged = verdicts(connection, parsed)
        for document, content, verdict in zip(documents, contents, judged, strict=True):
            assert verdict in (None, matches(parsed, document, content))
        by_terms = find_matching(connection, 0, parsed, np.arange(1, len(documents) + 1))
        assert by_terms is None or (np.flatnonzero(by_terms) + 1).tolist() == sorted(found)
    return [row_id in found for row_id in range(1, len(documents) + 1)]


def fill(connection: sqlite3.Connection, documents: list[Any], contents: Sequence[str] = ()) -> None:
    connection.execute(
        "CREATE TABLE documents (rid INTEGER PRIMARY KEY, content TEXT NOT NULL, metadata TEXT NOT NULL)"
    )
    connection.executemany(
        "INSERT INTO documents (content, metadata) VALUES (?, ?)",
        zip(contents or [""] * len(documents), map(to_json, documents), strict=True),
    )
    connection.execute("CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.execute("INSERT INTO properties VALUES ('index_id', ''), ('generation', '0')")
    create_terms(connection)
    Terms(0).change(connection, ((rid, None, to_json(one)) for rid, one in enumerate(documents, start=1)))


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
        {"year": {"$between": [2, 5]}},
        {"author.name": {"$contains": "a 3"}},
        {"author.name": {"$startswith": "Ada"}},
        {"tags": {"$not": {"$startswith": "x"}}, "lang": "xx"},
        {"$content": {"$contains": "text 4"}},
        {"at": {"$gte": dt.datetime(2016, 1, 1)}},
        {"at": {"$lt": "2016-01-01T00:00:00+02:00"}},
        {"day": {"$lt": "2016-01-01"}},
        {"day": {"$in": ["2016-01-01", "2011-01-01T01:00"]}},
        {"at": dt.datetime(2016, 1, 1)},
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
            "at": dt.datetime(2010 + i, 6, 1, tzinfo=dt.UTC),
            "day": f"{2010 + i}-06-01",
        }
        for i in range(10)
    ]
    contents = [f"a text {i}" for i in range(10)]
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, documents, contents)
        wanted = [matches(parse(spec), *both) for both in zip(documents, contents, strict=True)]
        assert verdicts(connection, parse(spec)) == wanted


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
DATES: list[Any] = [
    NOON,
    NOON.astimezone(dt.UTC),
    NOON.replace(tzinfo=None),
    dt.datetime(2024, 4, 30, 23, 59, 59, 999999),
    dt.datetime(2024, 5, 3),
    dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))),
    dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14))),
    dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=1172))),
]
TIMES = [
    "2024-05-01",
    "2024-05-01T10:00:00Z",
    "2024-05-01 10:00",
    "2024-05-01T12:00:00.000+0200",
    "2024-05-01T10:00:00.0000009Z",
    "2024-05-01T25:00",
    "2024-02-31",
    "2024-05-01 and more",
    "2024-05-09",
    "0000-01-01",
    "0001-01-01T00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "9999-99-99",
    "2024",
    "2024-05-0",
]
STRINGS += TIMES
STRINGS += ["\1\2", "\\u0000", "\\\\u0000", "\\u0001", '\\"', "1.0", "null", "true", "[]", "{}", "array of 1"]
NUMBERS: list[float] = [0, -0.0, 1, 1.0, -1, 0.1, 0.3, 0.1 + 0.2, 5e-324, 1e16, 10**16, 2.0**53, 2**53 + 1]
NUMBERS += [n for power in (63, 64) for n in (2**power - 1, 2**power, 2.0**power, 2**power + 1)]
NUMBERS += [
    n for large in (1e300, sys.float_info.max) for n in (large, int(large) - 1, int(large), int(large) + 1)
]
NUMBERS += [10**400, 10**400 + 1]
NUMBERS += [-number for number in NUMBERS]
SCALARS: list[Any] = [None, True, False, *NUMBERS, *STRINGS, *DATES]
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
    ["2024-05-01T10:00Z"],
    DATES[:3],
]


@pytest.mark.slow
def test_sql_compares_as_matches_does() -> None:
    values = [*SCALARS, *LISTS, *([value] for value in SCALARS[::3]), {}, {"a": 1}, [{"a": 1}], [{}, 1]]
    documents = [{}, *({"a": value} for value in values)]
    specs = [{op: value} for op in ("$eq", "$ne") for value in [*SCALARS, *LISTS]]
    bounds = [*NUMBERS, *STRINGS, *DATES]
    specs += [{op: bound} for op in ("$gt", "$gte", "$lt", "$lte") for bound in bounds]
    specs += [{"$between": pair} for pair in zip(bounds[::3], bounds[1::3], strict=False)]
    specs += [{op: text} for op in ("$contains", "$icontains", "$startswith") for text in STRINGS]
    specs += [{"$contains": value} for value in [*NUMBERS[::5], *DATES]]
    specs += [{"$regex": pattern} for pattern in ("", "a$", "^\\W", "(?s)a.b", "\\d{4}")] + [{"$like": "a_"}]
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
dates = st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.timezones()).map(plain_value)
near_dates = st.tuples(st.sampled_from(DATES[:5]), st.integers(-5 * 86_400, 5 * 86_400)).map(
    lambda drawn: drawn[0] + dt.timedelta(seconds=drawn[1])
)
texts_of_dates = near_dates.map(lambda date: date.isoformat(sep=" ")) | near_dates.map(
    lambda d: str(d.date())
)
scalars |= dates | near_dates | texts_of_dates
lists = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
metadata = st.dictionaries(keys, values, max_size=5).map(lambda drawn: loads(to_json(drawn)))


bounds = numbers | strings | dates | near_dates


@st.composite
def conditions(draw: st.DrawFn, documents: list[Any]) -> dict[str, Any]:
    """A condition, more often than not on a field that is there and with a value of it."""
    field, value = draw(st.sampled_from(list(places(documents)) or [("a", 1)]) | st.tuples(keys, lists))
    if field.startswith("$") and field != "$content":
        field = "a." + field
    if isinstance(value, dict) and value and draw(st.booleans()):
        return {
            field: {draw(st.sampled_from(["$contains", "$icontains"])): draw(st.sampled_from(list(value)))}
        }
    if has_dict(value):
        return {field: {"$exists": draw(st.booleans())}}
    ops = ["$eq", "$ne"]
    if isinstance(value, int | float | str | dt.datetime) and not isinstance(value, bool):
        ops += ["$gt", "$gte", "$lt", "$lte", "$between", "$contains"]
    if isinstance(value, str):
        ops += ["$contains", "$icontains", "$startswith", "$like", "$ilike", "$regex"]
    match draw(st.sampled_from([*ops, "$in", "$nin"])):
        case "$in" | "$nin" as op:
            condition = {op: [value, *draw(st.lists(lists, max_size=2))]}
        case "$between":
            condition = {"$between": draw(st.permutations([value, draw(bounds)]))}
        case "$contains" | "$icontains" | "$startswith" as op if isinstance(value, str):
            first, last = sorted(draw(st.tuples(*[st.integers(0, len(value))] * 2)))
            condition = {op: draw(st.sampled_from([value, value[first:last], value[:last], value.upper()]))}
        case "$like" | "$ilike" as op:
            condition = {op: draw(st.sampled_from(["%", "_"])) + encodable(value)[1:50]}
        case "$regex":
            escaped = re2.escape(encodable(value)[:50])
            condition = {"$regex": escaped + draw(st.sampled_from(["", "$", *"?+" * bool(value)]))}
        case op:
            condition = {op: value}
    return {field: {"$not": condition} if draw(st.booleans()) else condition}


def has_dict(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(has_dict, value)))


def encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def places(documents: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each field by the (dotted) name that may find it, with its value and the value's elements."""
    for document in documents:
        for key, value in document.items():
            yield key, value
            if isinstance(value, list):
                yield from ((key, element) for element in value if not has_dict(element))
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
    contents = [encodable(data.draw(strings)) for _ in documents]
    spec = data.draw(whole_filters([*documents, *({"$content": content} for content in contents)]))
    parsed = parse(spec)
    expected = [matches(parsed, *both) for both in zip(documents, contents, strict=True)]
    assert select(parsed, documents, contents) == expected
    assert select(parse({"$not": spec}), documents, contents) == [not one for one in expected]


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
