"""The ways to search a collection as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from late_interaction.errors import LateInteractionError, MissingExtraError
from late_interaction.evaluation.measuring import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRIC = "ndcg@10"


def check_figure(path: str | Path) -> None:
    """Check that a figure can be drawn into this file, before minutes of encoding.

    Raises:
        MissingExtraError: the `plots` extra is not installed.
        LateInteractionError: the file's name does not end in that of a format, or its folder does not exist.
    """
    formats = _figure().canvas.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in formats:
        raise LateInteractionError(f"{path} must end in the name of a format: {', '.join(sorted(formats))}.")
    if not Path(path).absolute().parent.is_dir():
        raise LateInteractionError(f"{path} cannot be written: its folder does not exist.")


def draw(path: str | Path, title: str, evaluations: Sequence[Evaluation]) -> None:
    """Draw nDCG@10 by way to search, and beside it by the room that the vectors take.

    Raises:
        MissingExtraError: the `plots` extra is not installed.
        LateInteractionError: the file cannot be written.
    """
    figure = _figure(figsize=(11, 1.2 + 0.28 * max(8, len(evaluations))), layout="constrained")
    bars, room = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(title)
    _draw_bars(bars, evaluations)
    _draw_room(room, evaluations)
    try:
        figure.savefig(path)
    except OSError as error:
        raise LateInteractionError(f"{path} cannot be written: {error}") from error


def _draw_bars(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    values = [evaluation.metrics[_METRIC] for evaluation in evaluations]
    bars = axes.barh([evaluation.label for evaluation in evaluations], values)
    axes.bar_label(bars, [f" {value:.4f}" for value in values])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(*values, 0.01))
    axes.set_xlabel("nDCG@10")


def _draw_room(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    for method in dict.fromkeys(one.method for one in evaluations if one.packed_bytes is not None):
        line = [one for one in evaluations if one.method == method]
        megabytes = [(one.packed_bytes or 0) / 1e6 for one in line]
        axes.plot(megabytes, [one.metrics[_METRIC] for one in line], marker="o", label=method)
        for one, x in zip(line, megabytes, strict=True):
            axes.annotate(
                f"{one.pool_factor:g}", (x, one.metrics[_METRIC]), textcoords="offset points", xytext=(4, 4)
            )
    for baseline in (one for one in evaluations if one.method == "BM25"):
        axes.axhline(baseline.metrics[_METRIC], linestyle="--", color="grey", label="BM25")
    axes.set_xlabel("MB of packed vectors, by pool factor")
    axes.set_ylabel("nDCG@10")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _figure(**options: Any) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("A figure", "plots", "matplotlib") from error
    return Figure(**options)
