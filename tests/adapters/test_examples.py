"""Every public class of the adapters has an example in its docstring; pytest's doctests run them."""

from __future__ import annotations

import langchain_lateint
import llamaindex_lateint


def test_every_public_class_has_an_example() -> None:
    without = [
        f"{package.__name__}.{name}"
        for package in (langchain_lateint, llamaindex_lateint)
        for name in package.__all__
        if ">>>" not in (getattr(package, name).__doc__ or "")
    ]
    assert without == []
