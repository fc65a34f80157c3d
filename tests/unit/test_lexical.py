"""Words: what is taken for one in every script, what of a query is asked for, and how two scores become one."""

from __future__ import annotations

import sqlite3

import pytest

from late_interaction.fusion import fused
from late_interaction.lexical import query_words, searchable
from late_interaction.stems import CREATE_WORDS
from late_interaction.stores.local.words import bm25


def finds(document: str, query: str) -> bool:
    connection = sqlite3.connect(":memory:")
    connection.execute(CREATE_WORDS)
    connection.execute("INSERT INTO words (rowid, text) VALUES (7, ?)", (searchable(document),))
    row_ids, scores = bm25(connection, query_words(query))
    assert all(score > 0 for score in scores)
    return row_ids.tolist() == [7]


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("He was running", "runs"),
        ("Straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ("café", "cafe"),
        ("Ｐｙｔｈｏｎ", "python"),
        ("東京都に住む", "東京"),
        ("東京都に住む", "京都"),
        ("関東", "東"),
        ("関東", "関"),
        ("Python入門と実践", "入門"),
        ("Python入門と実践", "python"),
        ("ﾃﾞｰﾀﾍﾞｰｽ", "データベース"),
        ("자연어처리를 공부", "처리"),
        ("ภาษาไทยง่าย", "ไทย"),
        ("हिन्दी किताबें", "किताबें"),
        ("كِتَاب", "كتاب"),
        ("می\u200cخواهم", "میخواهم"),
        ("inter\u00adnational", "international"),
        ("the part AB-1234 of it", "AB-1234"),
        ("parse_json(text)", "json"),
        ("a\0b nul", "nul"),
        ("To be or not to be", "to be or not to be"),
        ("Η Αθήνα", "ΑΘΗΝΑ"),
        ("ΑΘΗΝΑ", "Αθήνα"),
        ("ἄνθρωπος", "ανθρωπος"),
        ("Ещё", "еще"),
        ("Все", "всё"),
        ("Łódź", "lodz"),
        ("Ørsted", "orsted"),
        ("Đorđe", "dorde"),
        ("ısı", "ISI"),
        ("Œuvre", "oeuvre"),
        ("أحمد", "احمد"),
        ("مدرسة", "مدرسه"),
        ("فارسی", "فارسي"),
    ],
)
def test_a_word_is_found_in_every_script(document: str, query: str) -> None:
    assert finds(document, query)


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ("東京都", "京東"),
        ("ไทย", "ลาว"),
        ("हिन्दी", "हिन्द"),
        ("run", "ruin"),
        ("which", "what of apples"),
        ("мой", "мои"),
        ("її", "іі"),
    ],
)
def test_another_word_is_not(document: str, query: str) -> None:
    assert not finds(document, query)


@pytest.mark.parametrize(
    "query",
    ['"', '" OR "', "a NEAR/2 b", "text: x", "x*", "^x", "-x", "(", "NOT", "AND OR", "{a b}: c", "\0", "a\0b", "'; --",
     "😀", "\u0301", "+", "\ue000", "x" * 10_000, "\U0001fae8"],
)  # fmt: skip
def test_nothing_in_a_query_is_syntax(query: str) -> None:
    assert finds("a text", query) is not {"a", "text"}.isdisjoint(query_words(query))


def test_stop_words_are_left_out_unless_there_is_nothing_else() -> None:
    assert query_words("What is the AB-1234 used for?") == ["ab", "1234", "used"]
    assert query_words("The Who") == ["the", "who"]
    assert query_words("don't") == ["don"]
    assert query_words("cats and cats") == ["cats", "cats"]
    assert query_words("?! 😀") == []


def test_a_word_that_comes_twice_weighs_twice() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(CREATE_WORDS)
    texts = ["apple", "pear", "plum", "fig"]
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(texts))
    once, twice = (bm25(connection, words)[1][0] for words in (["apple"], ["apple", "apple"]))
    assert twice == pytest.approx(2 * once)


def test_fused_scores() -> None:
    assert fused({}, {}, 0.3) == {}
    assert fused({"a": 5.0}, {}, 0.3) == {"a": pytest.approx(0.7)}
    assert fused({"a": 5.0}, {"a": 2.0}, 0.3) == {"a": pytest.approx(1)}
    assert fused({"a": 5.0, "b": 5.0}, {"b": 2.0}, 0.3) == {"a": pytest.approx(0.7), "b": pytest.approx(1)}
    assert fused({"a": 4.0, "b": 2.0, "c": 0.0}, {"b": 8.0, "c": 2.0, "gone": 9.0}, 0.5) == {
        "a": pytest.approx(0.5), "b": pytest.approx(0.75), "c": pytest.approx(0.125)
    }  # fmt: skip
