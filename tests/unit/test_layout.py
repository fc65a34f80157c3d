"""The plan of the modules: no module imports itself through others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = (ROOT / "core" / "late_interaction", ROOT / "langchain_lateint", ROOT / "llamaindex_lateint")


def module_name(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file, package): file for package in PACKAGES for file in sorted(package.rglob("*.py"))}


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run, in functions too; not those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from statements(child)


def imports(file: Path) -> set[str]:
    """The modules of ours that a file imports."""
    names: set[str] = set()
    for statement in statements(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{file}: a relative import"
            inner = {f"{statement.module}.{alias.name}" for alias in statement.names}
            submodules = inner & FILES.keys()
            names |= submodules or {statement.module or ""}
    return names & FILES.keys()


def test_no_module_imports_itself_through_others() -> None:
    left = {name: imports(file) - {name} for name, file in FILES.items()}
    assert len(left) > 50
    assert any(left.values())
    # What imports nothing of the rest is in no circle, and neither is what nothing of the rest imports.
    while free := {
        name
        for name, needed in left.items()
        if not needed & left.keys() or not any(name in others for others in left.values())
    }:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert left == {}, f"a circle is among {sorted(left)}"
