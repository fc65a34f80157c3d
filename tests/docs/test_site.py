"""The documentation site: every page is in its nav, every public name on a page of the API, and it builds strictly."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import late_interaction
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
MODULES = [
    "late_interaction",
    "late_interaction.adapting",
    "late_interaction.evaluation",
    "late_interaction.explain",
    "late_interaction.filters",
    "late_interaction.metadata",
    "langchain_lateint",
    "langchain_lateint.graph",
    "llamaindex_lateint",
]


class _Tolerant(yaml.SafeLoader):
    """Reads MkDocs' settings, tags of Python's names apart."""


_Tolerant.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Tolerant)


def pages(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages(part)]  # type: ignore[union-attr]


def public_names(module: str) -> set[str]:
    """The names of `__all__`; of a module that has none, what it defines without an underscore."""
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return set(loaded.__all__)
    body = ast.parse(Path(str(loaded.__file__)).read_text(encoding="utf-8")).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {
        target.id
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return {name for name in defined | assigned if not name.startswith("_")}


def public() -> set[str]:
    return {"late_interaction.open"} | {
        f"{module}.{name}" for module in MODULES for name in public_names(module)
    }


def test_every_page_is_in_the_nav() -> None:
    named = set(pages(SETTINGS["nav"]))  # MkDocs itself tells of those that are not there.
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    there |= {f"checkout/notebooks/{notebook.stem}.md" for notebook in ROOT.glob("notebooks/*.ipynb")}
    assert sorted(there - named) == [], "add these pages to nav: in mkdocs.yml"


def test_every_public_name_is_on_a_page_of_the_api() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    shown = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(shown) > 100
    assert sorted(public() - set(shown)) == [], "add `::: NAME` to a page of docs/api"
    assert sorted(set(shown) - public()) == [], "these names are not public"
    assert len(shown) == len(set(shown))


def test_the_modules_whose_names_are_looked_up_are_the_public_ones() -> None:
    named = set(re.findall(r"`(late_interaction\.\w+)`", str(late_interaction.__doc__)))
    assert named <= set(MODULES)


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    html = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    for name, text in html.items():
        assert re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*|@import', text) == [], name
        assert re.findall(r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]*//[^>]*', text) == [], name
    api = "\n".join(text for name, text in html.items() if name.startswith("api/"))
    assert sorted(name for name in public() if f'id="{name}"' not in api) == []
    assert html["api/pipelines.html"].count('id="late_interaction.SyncPipeline.search"') == 1
    assert html["architecture.html"].count('<div class="diagram"><img') == 3
    assert html["checkout/notebooks/explain.html"].count('<div class="output">') > 5
    assert 'href="checkout/notebooks/quickstart.html"' in html["index.html"]
    assert "&gt;&gt;&gt;" in re.sub(r"<[^>]+>", "", html["api/pipelines.html"])
    assert "<blockquote>" not in api
