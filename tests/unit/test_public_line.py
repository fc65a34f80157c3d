"""The public line: which names are public, and that the adapters keep to them."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import late_interaction
from late_interaction import adapting
from tests.support.paths import ROOT

PUBLIC_MODULES = {
    f"late_interaction.{name}"
    for name in ("adapting", "evaluation", "explain", "filters", "lazy", "metadata")
}
ADAPTERS = sorted(
    path.relative_to(ROOT)
    for folder in ("langchain_lateint", "llamaindex_lateint")
    for path in (ROOT / folder).glob("*.py")
)


def imports(path: Path) -> list[tuple[str, str]]:
    """The modules and names of ours that a file imports, at its top and in its functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "late_interaction"
        ):
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [
                (alias.name, "") for alias in node.names if alias.name.split(".")[0] == "late_interaction"
            ]
    return found


@pytest.mark.parametrize("path", ADAPTERS, ids=str)
def test_adapters_import_public_names_only(path: Path) -> None:
    for module, name in imports(ROOT / path):
        if module == "late_interaction":
            assert name in late_interaction.__all__ or f"{module}.{name}" in PUBLIC_MODULES, (module, name)
        else:
            assert module in PUBLIC_MODULES, (module, name)
            public = getattr(importlib.import_module(module), "__all__", None)
            assert name in public if public is not None else not name.startswith("_"), (module, name)
            assert (module == "late_interaction.lazy") <= (path.name == "__init__.py")


def test_adapters_import_something() -> None:
    assert len({name for path in ADAPTERS for _, name in imports(ROOT / path)}) > 20


def test_what_adapters_may_import_is_all_that_the_module_has() -> None:
    tree = ast.parse(Path(adapting.__file__).read_text())
    imported = {a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert imported == set(adapting.__all__)
    assert not imported & set(late_interaction.__all__)


def test_the_public_line_is_written_down() -> None:
    assert late_interaction.__doc__ is not None
    for module in PUBLIC_MODULES - {"late_interaction.lazy"}:
        assert f"`{module}`" in late_interaction.__doc__
        importlib.import_module(module)
