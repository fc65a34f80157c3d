"""The pages of the documentation: every link leads somewhere, every page is found, every name in the map exists."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from late_interaction.cli import app
from tests.support.paths import ROOT

PAGES = sorted(
    page
    for folder in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/README.md")
    for page in ROOT.glob(folder)
)
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCES = ["core", "langchain_lateint", "llamaindex_lateint", "tools", "tests", "benchmarks"]


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to in this checkout, and the heading in each, or "" for none."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, heading) for path, _, heading in local]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, heading in links(page):
        assert target.exists(), f"{page.name} links to {target}"
        assert not heading or heading in anchors(target), f"{page.name} links to {target.name}#{heading}"


def test_every_page_is_found_from_the_index() -> None:
    found, new = set(), {ROOT / "docs" / "index.md"}
    while new:
        found |= new
        new = {target for page in new for target, _ in links(page) if target.suffix == ".md"} - found
    assert set(PAGES) <= found
    assert (ROOT / "docs" / "index.md") in {target for target, _ in links(ROOT / "README.md")}


@cache
def files() -> set[str]:
    """The names of the core's modules, without their folders."""
    return {file.name for file in (ROOT / "core").rglob("*.py")}


@cache
def words() -> set[str]:
    """Every name in the code and the tests."""
    sources = [file for folder in SOURCES for file in (ROOT / folder).rglob("*.py")]
    return {word for file in sources for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}


def exists(name: str) -> bool:
    first, *rest = name.split()
    if first == "late-interaction":
        return not rest or rest[0] in {
            command.name or command.callback.__name__ for command in app.registered_commands
        }
    if first == "just":
        recipes = (ROOT / "justfile").read_text(encoding="utf-8")
        return not rest or re.search(rf"^{rest[0]}( [^:]*)?:", recipes, re.MULTILINE) is not None
    if "/" in first:
        return any((ROOT / base / first).exists() for base in ("", "core/late_interaction"))
    if first.endswith(".py"):
        return first in files()
    if re.fullmatch(r"(late_interaction|langchain_lateint|llamaindex_lateint)\.[a-z_.]+", first):
        return importlib.util.find_spec(first) is not None or set(first.split(".")) <= words()
    return set(re.findall(r"[A-Za-z_]\w*", name)) <= words()


def test_every_name_in_the_map_exists() -> None:
    text = re.sub(r"```.*?```", "", MAP, flags=re.DOTALL)
    names = set(re.findall(r"`([^`]+)`", text))
    assert len(names) > 100
    assert [name for name in sorted(names) if not exists(name)] == []


def test_every_module_in_the_pictures_of_the_map_exists() -> None:
    pictures = "\n".join(re.findall(r"```mermaid\n(.*?)```", MAP, flags=re.DOTALL))
    modules = re.findall(r"[\w/]+\.py|\w+/(?!\w)", pictures)
    assert len(modules) > 5
    assert [module for module in modules if not exists(module)] == []


def test_every_module_is_on_the_map() -> None:
    commands = {file.name for file in (ROOT / "core" / "late_interaction" / "cli").glob("[a-z]*.py")}
    assert len(files()) > 50
    left = files() - commands - {"__init__.py", "__main__.py"}
    assert sorted(name for name in left if f"{name}`" not in MAP) == []


def test_every_benchmark_is_in_their_table() -> None:
    folder = ROOT / "benchmarks"
    page = (folder / "README.md").read_text(encoding="utf-8")
    scripts = [
        str(file.relative_to(folder)) for file in folder.rglob("*.py") if not file.name.startswith("with_")
    ]
    assert len(scripts) > 10
    assert [script for script in scripts if f"`{script}`" not in page] == []
