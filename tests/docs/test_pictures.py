"""The pictures of the README and of docs/concepts.md: they load nothing, show what is so, and can be made again."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest

from late_interaction import ColBERTModel
from tests.support.paths import ROOT
from tools.site import pictures

FIGURES = ROOT / "docs" / "figures"


def text_of(svg: str) -> str:
    """The text in a picture, without styles."""
    plain = re.sub(r"<style>.*?</style>", "", svg, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", plain)).replace("\xa0", " ")


def check_recording(svg: str, *, marks: int, marked_tables: int) -> None:
    text = text_of(svg)
    assert "$ late-interaction demo" in text
    assert all(question in text for question in pictures.QUESTIONS)
    assert text.count("Text, matching words marked") == marked_tables
    assert len(re.findall(r"documents scored exactly", text)) == len(pictures.QUESTIONS)
    [marked] = re.findall(r"\.(search-r\d+) { fill: #fd971f;font-weight: bold }", svg)
    assert svg.count(f'class="{marked}"') >= marks


@pytest.mark.parametrize("name", ["search.svg", "two-stages.svg"])
def test_a_picture_loads_nothing_from_elsewhere(name: str) -> None:
    svg = (FIGURES / name).read_text(encoding="utf-8")
    assert re.findall(r"@font-face|@import|<script|<image|href=|url\((?!#)", svg) == []
    assert set(re.findall(r"https?://[\w./]+", svg)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",  # a comment
    }


def test_the_readme_has_one_picture_and_is_short() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[[^\]]{20,}\]\((.*?)\)", readme) == ["docs/figures/search.svg"]
    assert len(readme.splitlines()) < 150
    for word in re.findall(r'^"(\w+)" answered .*, and "(\w+)" answered', readme, re.MULTILINE)[0]:
        assert word in text_of((FIGURES / "search.svg").read_text(encoding="utf-8"))
    check_recording((FIGURES / "search.svg").read_text(encoding="utf-8"), marks=8, marked_tables=2)


@pytest.mark.slow
def test_the_script_makes_the_recording_again(tmp_path: Path, minilm: ColBERTModel) -> None:
    check_recording(pictures.drawn(pictures.record(tmp_path, "--limit", "20")), marks=1, marked_tables=1)


@pytest.mark.slow
def test_the_picture_of_the_two_stages_shows_real_similarities(minilm: ColBERTModel) -> None:
    svg = (FIGURES / "two-stages.svg").read_text(encoding="utf-8")
    query = minilm.encode_queries(["boat ticket price"])[0]
    document = minilm.encode_documents(["Tickets for the ferry cost four euros."])[0]
    similarity = query @ document.T
    shown = re.findall(r">(-?\d\.\d\d)</text>", svg.split("</style>")[1])
    assert np.allclose(np.array(shown, float).reshape(similarity.shape), similarity, atol=0.006)
    parts = re.findall(r">(\d\.\d\d\d)</text>", svg)
    assert np.allclose(
        np.array(parts, float), [*similarity.max(axis=1), similarity.max(axis=1).sum()], atol=0.002
    )
