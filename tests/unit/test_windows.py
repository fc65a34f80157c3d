"""Documents longer than the model reads: where they are cut into windows, and how many vectors are pooled."""

import itertools
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.encoders.windows import Window, cut_windows
from late_interaction.pooling import pool_document
from late_interaction.sentences import last_boundary, sentence_ends

ADDED = 2


def words_and_marks(text: str) -> list[tuple[int, int]]:
    """A tokenizer: words in pieces of four letters, other signs alone, one special token before and one behind."""
    pieces = [match.span() for match in re.finditer(r"[a-z]{1,4}|[^a-z\s]", text)]
    return [(0, 0), *pieces, (0, 0)]


def kept(text: str, windows: list[Window]) -> list[tuple[int, int]]:
    return [
        (window.start + start, window.start + end)
        for window in windows
        for start, end in words_and_marks(text[window.start : window.end])
        if start < end and window.keeps((start, end))
    ]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["a", "bcdef", " ", " ", ". ", "\n", "。", "é", "กำ", "🇫🇷", "x" * 30]), max_size=150
    ).map("".join),
    st.integers(ADDED + 1, 40),
)
def test_every_token_is_kept_once_and_no_window_is_too_long(text: str, limit: int) -> None:
    windows = cut_windows(text, words_and_marks, limit, 10**9)
    assert kept(text, windows) == [span for span in words_and_marks(text) if span[0] < span[1]]
    assert all(len(words_and_marks(text[window.start : window.end])) <= limit for window in windows)
    assert all(b.start <= a.end for a, b in itertools.pairwise(windows))
    if len(words_and_marks(text)) <= limit:
        assert windows == [Window(0, len(text), 0, len(text))]


def test_windows_end_at_sentences_overlap_and_keep_the_token_with_more_around_it() -> None:
    text = " ".join(f"word of the sentence {'ab' * (n % 3)}." for n in range(60))
    windows = cut_windows(text, words_and_marks, 42)
    assert len(windows) > 8
    assert all(text[: window.end].rstrip().endswith(".") for window in windows)
    assert all(text[: window.start].rstrip().endswith(".") for window in windows[1:])
    for before, after in itertools.pairwise(windows):
        assert after.start < before.keep_to == after.keep_from < before.end
        shared = len(words_and_marks(text[after.start : before.end])) - ADDED
        from_before = len(words_and_marks(text[after.start : before.keep_to])) - ADDED
        assert abs(shared - 2 * from_before) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "港口在黎明时分开放，渔民们把网收上来。",
        "บ้านนี้สวยมาก",
        "यह एक वाक्य है। ",
        "a" * 3000,
        "ab" + "\u0301" * 2000,
    ],
)
def test_windows_of_any_script_go_on_to_the_end(text: str) -> None:
    text *= 40
    windows = cut_windows(text, lambda part: [(place, place + 1) for place in range(len(part))], 50, 10**9)
    assert windows[-1].end == len(text)
    assert all(window.end - window.start <= 50 for window in windows)
    if "。" in text:
        assert all(text[window.end - 1] in "。" for window in windows)


def test_a_long_text_is_not_tokenized_as_a_whole() -> None:
    seen = []

    def tokenize(text: str) -> list[tuple[int, int]]:
        seen.append(len(text))
        return words_and_marks(text)

    text = "word of a book. " * 500_000
    windows = cut_windows(text, tokenize, 100, 1000)
    assert max(seen) < 10_000
    assert sum(seen) < 30_000
    assert len(kept(text, windows)) == 1000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It costs 3.14. Is it? Yes!) No", ["It costs 3.14. ", "Is it? ", "Yes!) ", "No"]),
        ("一。二！三", ["一。", "二！", "三"]),
        ("एक। दो", ["एक। ", "दो"]),
        ("no end\n\nbut a blank line", ["no end\n\n", "but a blank line"]),
    ],
)
def test_sentences_of_any_script(text: str, parts: list[str]) -> None:
    ends = [0, *sentence_ends(text), len(text)]
    assert [text[a:b] for a, b in itertools.pairwise(ends)] == parts


def test_a_text_is_cut_at_the_best_boundary() -> None:
    text = "One two. Three\nfour five"
    assert [text[: last_boundary(text, start, len(text) - 1)] for start in (1, 9, 15)] == [
        "One two. ",
        "One two. Three\n",
        "One two. Three\nfour ",
    ]
    assert last_boundary("abc" + "e\u0301" * 5, 1, 6) == 5
    assert last_boundary("🇫🇷🇩🇪", 1, 3) == 2


# --- pooling ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_thousands_of_vectors_are_pooled_in_blocks() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8194, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    started = time.process_time()
    pooled = pool_document(rows, 2.5, protected_tokens=2)
    assert time.process_time() - started < 5  # 0.4 s alone; as one clustering it takes more than 8
    assert len(pooled) == 2 + int(8192 // 2.5)
    np.testing.assert_array_equal(pooled[:2], rows[:2])
    assert len(pool_document(rows[2:], 4000)) == 2
