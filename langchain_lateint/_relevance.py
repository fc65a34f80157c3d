"""Which function makes a relevance score, from 0 to 1, of a raw score."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from late_interaction.adapting import relevance

RelevanceFn: TypeAlias = Callable[[float], float] | Callable[[float, int], float]
ScaleFn: TypeAlias = Callable[[float, int], float]


def scale_function(function: RelevanceFn | None) -> ScaleFn:
    """Return a function of a raw score and the number of query tokens.

    Args:
        function: takes both, or the raw score alone, as the functions given to other stores do; None for
            `(score / n_query_tokens + 1) / 2`.

    Raises:
        TypeError: it cannot be called with one or two numbers.
    """
    if function is None:
        return relevance
    if not callable(function):
        raise TypeError(f"relevance_score_fn must be a function, not {function!r:.60}.")
    if _takes(function, 1.0, 1):
        return cast(ScaleFn, function)
    if _takes(function, 1.0):
        of_score = cast("Callable[[float], float]", function)
        return lambda score, n_query_tokens: of_score(score)
    raise TypeError(
        "relevance_score_fn is called with a raw score, or with a raw score and the number of query tokens, and "
        f"{function!r:.60} takes neither."
    )


def _takes(function: Callable[..., Any], *arguments: float) -> bool:
    """Return whether these arguments fill a function's required parameters, by position."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        # Some functions in C have no signature: they are taken as functions of one number.
        return len(arguments) == 1
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    if len(arguments) == 1:
        return True
    # A second parameter with a default is not necessarily the number of tokens: `round` has digits there.
    second = [
        p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(second) >= len(arguments) and second[1].default is inspect.Parameter.empty
