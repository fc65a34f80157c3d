import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import http
import ipaddress
import json
import math
import pathlib
import types
import uuid
import zoneinfo
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from late_interaction import LateInteractionPipeline, LocalStore
from late_interaction.metadata import check_metadata, dumps, instant, loads
from tests.support.models import HashModel


class Tongue(str, enum.Enum):  # noqa: UP042 - as older code has it
    EN = "en"


class Colour(enum.Enum):
    RED = ("red", 1)


class Scraped(str):
    """Such as bs4's NavigableString."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Point(NamedTuple):
    x: int
    y: int


class NAType:
    """What pandas calls its missing value; it has no truth."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class NaT(dt.datetime):
    """pandas' missing datetime is one, and not equal to itself."""

    __hash__ = dt.datetime.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True


class Timestamp(dt.datetime):
    """pandas' datetime writes nanoseconds."""

    def isoformat(self, *_: Any) -> str:
        return "2024-05-01T12:00:00.123456789"


class Series:
    """What has an array and a list, as columns of pandas and tensors have."""

    def __array__(self) -> Any:
        return np.array([1, 2])

    def tolist(self) -> list[Any]:
        return [np.int64(1), NAType()]


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
SUMMER = dt.timezone(dt.timedelta(hours=2))
NOON = dt.datetime(2024, 5, 1, 12)
ID = uuid.UUID(int=2**127 + 7)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (np.True_, True),
        (np.int64(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (http.HTTPStatus.OK, 200),
        pytest.param(2**5000, 2**5000, id="long"),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.25), 0.25),
        (float("nan"), None),
        (np.float16("nan"), None),
        (decimal.Decimal("1.50"), 1.5),
        (decimal.Decimal("12345678901234567890"), 12345678901234567890),
        (decimal.Decimal("2E+2"), 200),
        (decimal.Decimal("NaN"), None),
        (fractions.Fraction(1, 4), 0.25),
        (fractions.Fraction(4, 2), 2),
        ("x", "x"),
        (np.str_("x"), "x"),
        (Scraped("page title"), "page title"),
        (Tongue.EN, "en"),
        (enum.IntEnum("Level", "LOW").LOW, 1),  # type: ignore[attr-defined]
        (Colour.RED, ["red", 1]),
        (ID, str(ID)),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (NOON, NOON),
        (NOON.replace(tzinfo=dt.UTC), NOON.replace(tzinfo=dt.UTC)),
        (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=SUMMER)),
        (Timestamp(2024, 5, 1, 12), NOON),
        (NaT(2024, 5, 1), None),
        (NAType(), None),
        (np.datetime64("2024-05-01T12"), NOON),
        (np.datetime64("2024-05-01T12:00:00.000000000"), NOON),
        (np.datetime64("2024-05-01"), dt.datetime(2024, 5, 1)),
        (np.datetime64("NaT"), None),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.time(9, 30), "09:30:00"),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        (collections.deque([1]), [1]),
        (array.array("i", [1, 2]), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset(["b", "a"]), ["a", "b"]),
        ({"b", None, 1}, ["b", 1, None]),
        ({"a": 0, "b": 1}.keys(), ["a", "b"]),
        (np.arange(3), [0, 1, 2]),
        (np.array([[0.5, math.nan]]), [[0.5, None]]),
        (np.array(7), 7),
        (np.array(["2024-05-01T12"], "datetime64[ns]"), [NOON]),
        (np.array("2024-05-01T12", "datetime64[s]"), NOON),
        (np.array([ID, NOON], object), [str(ID), NOON]),
        (np.ma.masked_array([1, 2], [False, True]), [1, None]),
        (torch.ones(2, requires_grad=True), [1.0, 1.0]),
        (torch.tensor(3), 3),
        (Series(), [1, None]),
        ({"a": [{"b": NOON, Scraped("c"): ID}]}, {"a": [{"b": NOON, "c": str(ID)}]}),
        (types.MappingProxyType({"a": ()}), {"a": []}),
        ({"a.b": 1, "$date": 2, "": 3}, {"a.b": 1, "$date": 2, "": 3}),
    ],
)
def test_each_value_has_one_plain_form(value: object, plain: object) -> None:
    [made] = check_metadata({"v": value}).values()
    assert made == plain
    assert kinds(made) == kinds(plain)
    assert loads(dumps({"v": made})) == {"v": made}
    assert kinds(loads(dumps({"v": made}))["v"]) == kinds(plain)


def kinds(value: Any) -> Any:
    """The types in a value; of a datetime its offset too."""
    if isinstance(value, Mapping):
        return {key: (type(key), kinds(inner)) for key, inner in value.items()}
    if isinstance(value, list):
        return [list, *map(kinds, value)]
    return (type(value), value.utcoffset()) if isinstance(value, dt.datetime) else type(value)


HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


@dataclasses.dataclass
class Record:
    x: int = 0


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b"ab", "bytes, which has no plain form: decode it"),
        (bytearray(b"ab"), "bytearray, .*decode it"),
        (np.bytes_(b"ab"), "bytes_, .*decode it"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (math.inf, "inf, which has no plain form"),
        (np.float32("-inf"), "inf"),
        (decimal.Decimal("Infinity"), "Infinity"),
        (decimal.Decimal("1e999999999"), "too large"),
        pytest.param(10**5000, "16,610 bits", id="too long"),
        (dt.timedelta(1), "timedelta.*total_seconds"),
        (np.timedelta64(1, "s"), "timedelta64.*total_seconds"),
        (np.array([1], "timedelta64[s]"), "timedelta64.*total_seconds"),
        (np.datetime64("-0044-03-15"), "years 1 to 9999"),
        (np.zeros(1, [("x", int)]), "void"),
        (Record(), "Record.*asdict"),
        (Record, "type"),
        (ipaddress.ip_address("::1"), "IPv6Address"),
        (object(), "object"),
        (len, "builtin_function"),
        ((one for one in [1]), "generator"),
        (HOLDS_ITSELF, "holds itself"),
        ([{"x": {1, b"a"}}], r"\[0\]\.x\[…\]' is a bytes"),
    ],
)
def test_what_has_no_plain_form_is_refused_by_name(value: object, named: str) -> None:
    with pytest.raises(ValueError, match=rf"metadata 'v.*{named}"):
        check_metadata({"v": value})


@pytest.mark.parametrize("key", [1, None, ID, ("a",), True])
def test_keys_are_texts(key: object) -> None:
    for metadata in ({key: 1}, {"a": [{key: 1}]}):
        with pytest.raises(TypeError, match=f"keys are str, not {type(key).__name__}"):
            check_metadata(metadata)  # type: ignore[arg-type]


def test_equal_sets_have_one_form() -> None:
    grown, shrunk = {8, 0}, set(range(9)) - set(range(1, 8))
    assert list(grown) != list(shrunk)
    assert check_metadata({"v": grown}) == check_metadata({"v": shrunk}) == {"v": [0, 8]}


# --- instants


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2024-05-01", "2024-05-01T00:00:00Z"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01 10:00"),
        ("2024-05-01T12:00:00+0200", "2024-05-01T12:00+02"),
        ("2024-05-01T10:00:00.5Z", "2024-05-01T10:00:00.500000"),
        ("2024-05-01T10:00:00.1234569Z", "2024-05-01T10:00:00.123456"),
    ],
)
def test_instants_of_texts(text: str, same: str) -> None:
    assert instant(text) == instant(same) == instant(dt.datetime.fromisoformat(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024",
        "2024-05",
        "20240501",
        "2024-13-01",
        "2024-02-30",
        "2024-05-01T",
        "2024-05-01T25:00",
        "2024-05-01x",
        "2024-05-01T10:00:00+25:00",
        " 2024-05-01",
        "2024-05-01\n",
        "٢٠٢٤-05-01",
        "2024-W18-3",
        20240501,
        None,
        dt.date(1, 1, 1),
    ],
)
def test_what_is_no_instant(text: object) -> None:
    assert instant(text) is None


def test_instants_at_the_ends_of_the_calendar_and_of_folded_hours() -> None:
    first = dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))
    last = dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14)))
    assert instant(first) == instant(dt.datetime(1, 1, 1)) - 14 * 3_600_000_000  # type: ignore[operator]
    assert instant(last) == instant(dt.datetime.max.replace(tzinfo=dt.UTC)) + 14 * 3_600_000_000  # type: ignore[operator]
    twice = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
    both = check_metadata({"first": twice, "second": twice.replace(fold=1)})
    assert both["second"] - both["first"] == dt.timedelta(hours=1)


# --- JSON

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.datetimes(timezones=st.none() | st.timezones()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$datetime", "$literal", "é"]) | st.text(max_size=3), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["a", "$datetime", "$literal"]), plain))
def test_json_text_gives_back_what_was_written(metadata: dict[str, Any]) -> None:
    try:
        made = check_metadata(metadata)
    except ValueError:  # a NUL in a key
        return
    back = loads(dumps(made))
    assert back == made
    assert kinds(back) == kinds(made)
    assert dumps(made).isascii()
    assert check_metadata(back) == made


@pytest.mark.parametrize(
    "text",
    [
        '{"$datetime":"2024-05-01T12:00:00"}',
        '{"a":{"$date":"2024-05-01T12:00:00Z"}}',
        '{"a":{"$datetime":"2024-05-01"}}',
        '{"a":{"$datetime":"yesterday"}}',
        '{"a":{"$datetime":1}}',
        '{"a":{"$datetime":"2024-05-01T12:00:00","b":1}}',
        '{"a":{"$literal":{"b":"$datetime"}}}',
        '{"a":"$datetime"}',
    ],
)
def test_what_only_looks_like_a_datetime_is_read_as_before(text: str) -> None:
    assert loads(text) == json.loads(text)
    assert loads(dumps(json.loads(text))) == json.loads(text)


# --- in an index


async def test_an_index_of_an_earlier_release_is_read_as_it_was(tmp_path: pathlib.Path) -> None:
    store = LocalStore(tmp_path)
    async with LateInteractionPipeline(store, HashModel()) as pipeline:
        await pipeline.index_documents([{"doc_id": "a", "content": "x"}])
        earlier = {
            "a": {"$date": 1},
            "when": "2024-05-01T12:00:00Z",
            "$k": [None, 1.0],
            "x": {"$literal": {}},
        }
        with store._file.writing() as connection:
            connection.execute("UPDATE documents SET metadata = ?", (json.dumps(earlier),))
        [document] = await pipeline.get_documents(["a"])
        assert document.metadata == earlier
        assert await pipeline.count({"when": {"$gt": dt.date(2024, 5, 1)}, "a.$date": 1}) == 1


async def test_filters_of_equal_dates_and_other_texts_are_not_one_to_what_is_remembered(
    tmp_path: pathlib.Path,
) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        days = ["2024-05-01", "2024-05-01T00:00:00Z", "2024-05-01 and more"]
        await pipeline.index_documents([{"doc_id": day, "content": "x", "day": day} for day in days])
        for text, wanted in (("2024-05-01T00:00:00Z", days[1:2]), ("2024-05-01", days)):
            found = await pipeline.search("x", filter={"day": {"$startswith": text}})
            assert sorted(result.doc_id for result in found) == sorted(wanted)


async def test_ids_are_texts_numbers_or_uuids(tmp_path: pathlib.Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        given: list[Any] = [7, np.int64(8), ID, Tongue.EN, Scraped("s"), enum.IntEnum("Level", "LOW").LOW]  # type: ignore[attr-defined]
        rows = [{"doc_id": doc_id, "content": "x"} for doc_id in given]
        wanted = ["7", "8", str(ID), "en", "s", "1"]
        assert await pipeline.index_documents(rows) == wanted
        assert [document.doc_id for document in await pipeline.get_documents(given)] == wanted
        assert {result.doc_id for result in await pipeline.search("x", ids=[7, ID])} == {"7", str(ID)}
        assert await pipeline.update_metadata(7, {"a": 1})
        assert await pipeline.delete_document(np.int64(8))
        assert await pipeline.delete_documents([7, ID]) == 2
        for wrong in (True, 1.0, b"x", None, np.True_, dt.date(2024, 5, 1)):
            with pytest.raises(TypeError, match="a doc_id is"):
                await pipeline.get_documents([wrong])  # type: ignore[list-item]
