"""Texts to passages that a model reads whole."""

import random
import re
import textwrap

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from late_interaction import ModelError, Passage, passages
from late_interaction.reading.pdf_texts import join_lines
from tests.support.models import HashModel


class WordPieces(HashModel):
    """Counts pieces of four letters and single other signs, and adds two to every text."""

    document_length = 20

    def count_tokens(self, texts, role="document"):
        return [2 + len(re.findall(r"\w{1,4}|[^\w\s]", text)) for text in texts]


MODEL = WordPieces()


def cut(text: str, **options) -> list[Passage]:
    return list(passages(text, **options))


def texts(text: str, **options) -> list[str]:
    return [passage.text for passage in cut(text, **options)]


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    "word ",
                    "end. ",
                    "\n",
                    "\n\n",
                    "\n# heading\n",
                    "\n```\n",
                    "  ",
                    "- item\n",
                    "| a | b |\n",
                ),
                *("x" * 50, "港口。", "กำ", "\n[a]: b\n"),
            ]
        ),
        max_size=60,
    ).map("".join),
    st.integers(4, 20),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
)
@example("\n# heading\n\n# heading\n\n# heading\n", 4, True, False, 0)
@example("# heading\n\n# heading\n\n- item\n", 4, True, False, 0)
def test_no_passage_is_too_long_and_no_sign_is_lost(
    text: str, max_tokens: int, markdown: bool, headings: bool, overlap: int
) -> None:
    options = {"markdown": markdown, "headings": headings, "overlap": overlap}
    found = cut(text, model=MODEL, max_tokens=max_tokens, **options)
    assert all(count <= max_tokens for count in MODEL.count_tokens([passage.text for passage in found]))
    assert all(passage.text.strip() for passage in found)
    together = iter(re.sub(r"\s", "", "".join(passage.text for passage in found)))
    assert all(sign in together for sign in re.sub(r"\s", "", text))  # A subsequence: some may come twice.
    if not markdown and not overlap:
        assert "".join(text.split()) == "".join("".join(passage.text.split()) for passage in found)
    lines = text.split("\n")
    assert [passage.line for passage in found] == sorted(passage.line for passage in found)
    assert all(1 <= passage.line <= len(lines) for passage in found)


def test_paragraphs_stay_whole_where_they_fit_and_else_sentences() -> None:
    text = "One two. Three.\n\nFour five six.\n\n" + "A long one goes on. " * 6
    assert texts(text, max_tokens=16) == [
        "One two. Three.\n\nFour five six.",
        *["A long one goes on. A long one goes on."] * 3,
    ]
    assert [passage.line for passage in cut(text, max_tokens=16)] == [1, 5, 5, 5]


def test_no_sentence_is_torn_where_it_fits_whatever_the_line_ends() -> None:
    rng = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "rain", "wing", "plate"]
    sentences = [" ".join(rng.choices(words, k=rng.randint(9, 30))).capitalize() + "." for _ in range(120)]
    text = "\n".join(textwrap.wrap(" ".join(sentences), 70))
    found = texts(text)
    assert len(found) > 5
    assert all(passage.endswith(".") and passage[0].isupper() for passage in found)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("港口在黎明时分开放，渔民们把网收上来。", "。"),
        ("港は夜明けに開き、漁師たちは網を引き上げる。", "。"),
        ("बंदरगाह भोर में खुलता है। ", "।"),
        ("ท่าเรือเปิดตอนรุ่งสางและชาวประมงดึงอวนขึ้นมา", ""),
        ("ທ່າເຮືອເປີດຕອນຮຸ່ງເຊົ້າ", ""),
        ("function(a){return a.b(c)};", ""),
        ("QUJDREVGR0g=", ""),
    ],
)
def test_any_script_is_cut_and_bounded(text: str, end: str) -> None:
    found = texts(text * 200)
    assert len(found) >= 4
    assert max(map(len, found)) <= 1000
    assert all(passage.endswith(end) for passage in found)
    assert "".join("".join(found).split()) == "".join((text * 200).split())


def test_a_long_thai_text_without_spaces_is_cut_between_words() -> None:
    words = ["ท่าเรือ", "เปิด", "ตอน", "รุ่งสาง", "และ", "ชาว", "ประมง", "ดึง", "อวน", "ขึ้น", "มา"]
    ends = {sum(map(len, (words * 200)[:n])) for n in range(len(words) * 200 + 1)}
    found, at = texts("".join(words) * 200, max_tokens=60), 0
    assert len(found) > 100
    for passage in found:
        at += len(passage)
        assert at in ends


def test_a_word_that_one_token_stands_for_is_bounded_by_its_length() -> None:
    class OneToken(HashModel):
        document_length = 50

        def count_tokens(self, texts, role="document"):
            return [1 + len(text.split()) for text in texts]

    found = texts("QUJD" * 20_000, model=OneToken())
    assert max(map(len, found)) <= 50 * 16
    assert "".join(found) == "QUJD" * 20_000


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("# One\n\n```pip install x```\n\nText one.\n\n# Two\n\nText two.\n", ["One", "Two"]),
        ("# One\n\n````md\n```sh\n# comment\n````\n\n# Two\n\n~~~\n```\n# no heading\n~~~\n", ["One", "Two"]),
        ("Title\n=====\n\nText one.\n\nSecond\n------\n\nText two.\n", ["Title", "Title > Second"]),
        (
            "# Manual\n\nAbout it.\n\n## Install\n\n### Linux\n\nRun it.\n",
            ["Manual", "Manual > Install > Linux"],
        ),
        ("---\ntitle: x\n---\n# One\n\nText.", ["", "One"]),
        ("## A\n## B\ntext\n# C", ["A", "B", "C"]),
        ("Before.\n\n# A #\n\ntext", ["", "A"]),
    ],
)
def test_headings_of_every_form(text: str, headings: list[str]) -> None:
    assert [passage.heading for passage in cut(text, markdown=True)] == headings


def test_headings_are_part_of_the_text_or_stand_where_they_stood() -> None:
    text = "# Manual\n\n## Install\n\n" + "Get it and run it. " * 9 + "\n\n## Nothing\n\n## Use\n\nCall it."
    within = cut(text, markdown=True, max_tokens=30)
    assert [passage.heading for passage in within] == ["Manual > Install"] * 3 + [
        "Manual > Nothing",
        "Manual > Use",
    ]
    assert all(passage.text.startswith("# Manual\n## ") for passage in within)
    without = texts(text, markdown=True, max_tokens=30, headings=False)
    assert without[0].startswith("# Manual\n## Install\n\nGet it")
    assert without[1].startswith("Get it")
    assert without[-1] == "## Nothing\n## Use\n\nCall it."


def test_long_headings_leave_room_for_the_text() -> None:
    text = f"# {'Long ' * 20}\n\n## Short\n\n" + "Get it and run it. " * 9
    found = texts(text, markdown=True, max_tokens=30)
    assert "".join(found).count("Long") == 20
    assert sum(passage.startswith("## Short\n\nGet it") for passage in found) == 3


def test_tables_are_cut_between_rows_below_their_header() -> None:
    rows = [f"| {n} | part number {n} | keep it dry. Ask for {n} |" for n in range(60)]
    header = "| id | name | remark |\n|---|---|---|"
    found = cut("# T\n\n" + header + "\n" + "\n".join(rows), markdown=True, max_tokens=100)
    assert len(found) > 5
    bodies = [passage.text.removeprefix(f"# T\n\n{header}\n").split("\n") for passage in found]
    assert [row for body in bodies for row in body] == rows
    assert [passage.line for passage in found][:2] == [1, 5 + len(bodies[0])]


def test_lists_are_cut_between_items_and_code_between_lines() -> None:
    items = [f"- item {n} is here. It has two sentences\n  and two lines" for n in range(30)]
    found = texts("\n".join(items), markdown=True, max_tokens=60)
    assert all(re.match(r"- item \d+ is", passage) and passage.endswith("two lines") for passage in found)
    code = [f"call(number={n})  # and. go on" for n in range(60)]
    found = texts("```python\n" + "\n".join(code) + "\n```", markdown=True, max_tokens=60)
    assert len(found) > 5
    lines = [line for passage in found for line in passage.split("\n")]
    assert lines == ["```python", *code, "```"]


def test_sentences_overlap_but_not_over_a_heading() -> None:
    text = "One is here. Two is here. Three is here. Four is here. Five is here."
    assert texts(text, max_tokens=12, overlap=1) == [
        "One is here. Two is here.",
        "Two is here. Three is here.",
        "Three is here. Four is here.",
        "Four is here. Five is here.",
    ]
    found = texts("# A\n\nOne. Two.\n\n# B\n\nThree.", markdown=True, overlap=1)
    assert found == ["# A\n\nOne. Two.", "# B\n\nThree."]


def test_the_lines_of_a_page_are_joined() -> None:
    page = (
        "A line of the paragraph that is full\nand goes on, as such lines do, here\nto an end.\n\n"
        "• one item is in this line and full\n• two"
    )
    assert join_lines(page) == (
        "A line of the paragraph that is full and goes on, as such lines do, here to an end.\n\n"
        "• one item is in this line and full\n• two"
    )
    assert join_lines("港口在黎明时分开放，\n渔民们把网收上来。") == "港口在黎明时分开放，渔民们把网收上来。"


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens is 21, and hash reads 20 at once"):
        cut("text", model=MODEL, max_tokens=21)
    with pytest.raises(ValueError, match="2 are added to every text: nothing is left"):
        cut("text", model=MODEL, max_tokens=2)
    with pytest.raises(ValueError, match="overlap must not be negative"):
        cut("text", overlap=-1)
    with pytest.raises(ModelError, match="does not count tokens"):
        cut("text", model=HashModel())
    assert cut("") == cut(" \n") == []
