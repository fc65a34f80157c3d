"""What griffe, which reads code without running it, has to be told of this library."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe


class MadeMethods(griffe.Extension):
    """Show the methods that `SyncPipeline` makes of the async ones as methods: with signature, text and example."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Put a method in the place of each attribute that was made of an async method."""
        if pkg.path != "late_interaction":
            return
        from late_interaction import SyncPipeline

        shown, source = pkg["sync.SyncPipeline"], pkg["pipeline.LateInteractionPipeline"]
        for name, made in vars(SyncPipeline).items():
            if name.startswith("_") or not hasattr(made, "__wrapped__") or name not in source.members:
                continue
            original = source.members[name]
            method = griffe.Function(
                name,
                parameters=original.parameters,
                returns=original.returns,
                lineno=shown.members[name].lineno,
                parent=shown,
            )
            text = fenced(inspect.getdoc(made) or "")
            parser, options = original.docstring.parser, original.docstring.parser_options
            method.docstring = griffe.Docstring(text, parent=method, parser=parser, parser_options=options)
            method.overloads = original.overloads
            shown.set_member(name, method)


class Doctests(griffe.Extension):
    """Show examples that stand in the text of a docstring as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the doctests of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    r"""Put a fence around each doctest.

    >>> fenced("Add.\n\n>>> 1 + 1\n2\n\nSo it is.").splitlines()
    ['Add.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'So it is.']
    """
    return re.sub(
        r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*",
        lambda match: f"{match['indent']}```pycon\n{match[0]}\n{match['indent']}```",
        text,
        flags=re.MULTILINE,
    )
