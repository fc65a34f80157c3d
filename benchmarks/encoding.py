"""Measure encoding on a CPU, with all-MiniLM-L6-v2 (the demo extra) on Cranfield.

    python benchmarks/encoding.py padding
    python benchmarks/encoding.py speed [--documents 96] [--rounds 5]
    python benchmarks/encoding.py overlap [--documents 512]     # writes docs/figures/overlap.svg
    python benchmarks/encoding.py backends --cache FOLDER       # needs sentence-transformers[openvino]

`padding` counts the padding tokens. `speed` runs its contenders in turn, in one process, and compares medians:
MultiVectorEncoder.encode_document with its own batches of 32 texts, ours at several budgets of tokens, and pooling.
`overlap` shows when the pipeline encodes and when it pools and writes. `backends` encodes the collection with
each backend.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.encoded import collection, demo_model, encoded
from late_interaction import ColBERTModel, LateInteractionPipeline
from late_interaction.encoders.batching import token_batches
from late_interaction.encoders.colbert import BATCH_TOKENS_CPU
from late_interaction.evaluation import evaluate, exact_run
from late_interaction.pooling import pool_document
from late_interaction.types import FloatMatrix

DTYPES = ("float16", "bfloat16")
ROWS = 32
BUDGETS = (1024, 2048, 4096, 8192, 16384)
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "overlap.svg"
out = Console(width=110)


def table(title: str, *headings: str) -> Table:
    made = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="right" if i else "left")
    return made


def sample(n: int) -> list[str]:
    texts = list(collection("cranfield").documents.values())
    chosen = np.random.default_rng(0).choice(len(texts), min(n, len(texts)), replace=False)
    return [texts[i] for i in chosen]


def padding(model: ColBERTModel) -> None:
    """Print which share of the tokens that go through the model is padding."""
    texts = list(collection("cranfield").documents.values())
    lengths = model._lengths(texts, "document")  # noqa: SLF001
    by_characters = np.argsort([-len(text) for text in texts], kind="stable").tolist()
    batches = {
        "32 texts, unsorted": [list(range(len(texts)))[i : i + 32] for i in range(0, len(texts), 32)],
        "32 texts, sorted by characters": [by_characters[i : i + 32] for i in range(0, len(texts), 32)],
        **{f"{budget:,} tokens": list(token_batches(lengths, budget)) for budget in BUDGETS},
    }
    shown = table(f"Padding, {len(texts):,} documents", "batches of", "passes", "largest pass", "padding")
    for name, made in batches.items():
        sizes = [len(batch) * max(lengths[i] for i in batch) for batch in made]
        waste = 1 - sum(lengths) / sum(sizes)
        shown.add_row(name, f"{len(made)}", f"{max(sizes):,} tokens", f"{waste:.1%}")
    out.print(shown)


def speed(model: ColBERTModel, n: int, rounds: int) -> None:
    """Print the documents per second of each contender."""
    texts = sample(n)
    encoder = model._encoder  # noqa: SLF001
    matrices = model.encode_documents(texts)

    def ours(budget: int) -> Callable[[], object]:
        def run() -> object:
            model.batch_tokens = budget
            return model.encode_documents(texts)

        return run

    ways: dict[str, Callable[[], object]] = {
        "MultiVectorEncoder, 32 texts": lambda: encoder.encode_document(
            texts, batch_size=32, show_progress_bar=False, convert_to_numpy=True
        ),
        **{f"ColBERTModel, {budget:,} tokens": ours(budget) for budget in BUDGETS},
        "pooling by 2": lambda: [pool_document(matrix, 2) for matrix in matrices],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    direct = medians[names[0]]
    shown = table(
        f"{n} documents, medians of {rounds} rounds", "", "s", "documents/s", "against the first", "spread"
    )
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f}–{max(seconds[name]):.2f}"
        against = f"{direct / median:.2f}"
        if name.startswith("pooling"):
            against = (
                f"takes {median / medians[f'ColBERTModel, {BATCH_TOKENS_CPU:,} tokens']:.1%} of encoding"
            )
        shown.add_row(name, f"{median:.2f}", f"{n / median:.1f}", against, spread)
    out.print(shown)


class Timed(LateInteractionPipeline):
    """A pipeline that notes when it writes."""

    spans: list[tuple[float, float]]

    async def _write(self, *arguments: Any) -> None:
        started = time.perf_counter()
        await super()._write(*arguments)
        self.spans.append((started, time.perf_counter()))


async def timeline(model: ColBERTModel, texts: Sequence[str]) -> tuple[list[tuple[float, float]], ...]:
    """Return when batches were encoded, and when they were pooled and written, in seconds from the start."""
    encoding: list[tuple[float, float]] = []
    encode = model.encode_documents

    def timed(documents: Sequence[str]) -> list[FloatMatrix]:
        started = time.perf_counter()
        matrices = encode(documents)
        encoding.append((started, time.perf_counter()))
        return matrices

    model.encode_documents = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        async with Timed(folder, model) as pipeline:
            pipeline.spans = []
            start = time.perf_counter()
            await pipeline.index_documents([{"content": text} for text in texts], batch_size=ROWS)
            whole = [(start, time.perf_counter())]
    return tuple(
        [(begin - start, end - start) for begin, end in spans] for spans in (encoding, pipeline.spans, whole)
    )


def overlap(model: ColBERTModel, n: int) -> None:
    """Draw the timeline of indexing, and print it."""
    encoding, writing, ((_, total),) = asyncio.run(timeline(model, sample(n)))
    spent = [sum(end - begin for begin, end in spans) for spans in (encoding, writing)]
    hidden = sum(
        max(0.0, min(end, end2) - max(begin, begin2)) for begin, end in encoding for begin2, end2 in writing
    )
    out.print(
        f"{n} documents in {total:.2f} s: encoding {spent[0]:.2f} s, pooling and writing {spent[1]:.2f} s, of which "
        f"{hidden:.2f} s ({hidden / spent[1]:.0%}) while the next batch was encoded."
    )
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "overlap", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 1.6), layout="constrained")
    for row, (spans, colour) in enumerate(((writing, "tab:orange"), (encoding, "tab:blue"))):
        bars = [(begin, end - begin) for begin, end in spans]
        # With an edge, or a short one would not be seen.
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=colour, edgecolor=colour, alpha=0.8)
    axes.set_yticks([0, 1], ["pool and write", "encode"])
    axes.set_xlabel(f"seconds, {n} documents of Cranfield in batches of {ROWS}")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})
    out.print(f"{FIGURE}: {FIGURE.stat().st_size / 1024:.0f} KB")


def backends(names: Sequence[str], cache: Path, n: int, rounds: int) -> None:
    """Print the speed of each backend or dtype, and nDCG@10 of the whole collection encoded with it."""
    judged, texts = collection("cranfield"), sample(n)
    models = {name: demo_model(dtype=name) if name in DTYPES else demo_model(backend=name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for model in models.values():
        model.encode_documents(texts[:8])
    for turn in range(rounds):
        for name in list(names)[turn % len(names) :] + list(names)[: turn % len(names)]:
            started = time.perf_counter()
            models[name].encode_documents(texts)
            seconds[name].append(time.perf_counter() - started)
    shown = table(
        f"Backends, {n} documents, medians of {rounds}", "", "documents/s", "nDCG@10", "recall@100", "Δ"
    )
    reference = None
    for name, model in models.items():
        documents, queries = encoded(judged, model, cache, name)
        reference = documents if reference is None else reference
        metrics = evaluate(exact_run(queries, list(judged.documents), documents), judged.qrels)
        shown.add_row(
            name,
            f"{n / np.median(seconds[name]):.1f}",
            f"{metrics['ndcg@10']:.4f}",
            f"{metrics['recall@100']:.4f}",
            f"{np.abs(documents.tokens - reference.tokens).max():.1e}",
        )
    shown.caption = "Δ: largest difference of a number of a document vector from the first backend's"
    out.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["padding", "speed", "overlap", "backends"])
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["torch", "bfloat16", "openvino"],
        help="backends, and dtypes of torch",
    )
    parser.add_argument("--cache", type=Path, help="where encoded collections are kept")
    arguments = parser.parse_args()
    if arguments.what == "padding":
        padding(demo_model())
    elif arguments.what == "speed":
        speed(demo_model(), arguments.documents, arguments.rounds)
    elif arguments.what == "overlap":
        overlap(demo_model(), arguments.documents)
    elif arguments.cache is None:
        parser.error("backends needs --cache")
    else:
        backends(arguments.backends, arguments.cache, arguments.documents, arguments.rounds)


if __name__ == "__main__":
    main()
