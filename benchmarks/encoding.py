"""Measure encoding on a CPU, with all-MiniLM-L6-v2 (the demo extra) on Cranfield.

    python benchmarks/encoding.py padding
    python benchmarks/encoding.py speed [--documents 96] [--rounds 5]
    python benchmarks/encoding.py overlap [--documents 512]     # writes docs/figures/overlap.svg
    python benchmarks/encoding.py compare --cache FOLDER [--peers] [--quick]

`padding` counts the padding tokens. `speed` runs its contenders in turn, in one process, and compares medians:
MultiVectorEncoder.encode_document with its own batches of 32 texts, ours at several budgets of tokens, and pooling.
`overlap` shows when the pipeline encodes and when it pools and writes. `compare` has sentence-transformers, and ours by
default and in each dtype and backend, encode the same documents in turn, each in a process of its own; --peers adds
PyLate and OpenVINO, in environments of their own that uv makes. All read the first 256 tokens of a document, but "ours,
windows", which reads all of it. The vectors of the whole collection are kept in FOLDER, empty it to have them anew;
--quick makes none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.encoded import collection, demo_model
from benchmarks.encoding_contender import OURS
from late_interaction import ColBERTModel, LateInteractionPipeline, RaggedTokens
from late_interaction.demo import model_folder
from late_interaction.encoders.batching import token_batches
from late_interaction.encoders.colbert import BATCH_TOKENS_CPU
from late_interaction.evaluation import evaluate, exact_run
from late_interaction.pooling import pool_document
from late_interaction.types import FloatMatrix

HERE = Path(__file__).resolve().parent
PEERS = {
    "PyLate": ["pylate==1.6.0"],
    "ours, openvino": [f"late-interaction[demo] @ {HERE.parent.as_uri()}", "sentence-transformers[openvino]"],
}
"""What is in the environments of those that ours cannot have."""
ROWS = 32
BUDGETS = (1024, 2048, 4096, 8192, 16384)
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "overlap.svg"
out = Console(width=110)


def table(title: str, *headings: str) -> Table:
    made = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="right" if i else "left")
    return made


def sampled(n_texts: int, n: int) -> list[int]:
    """Return the positions of the `n` texts that are measured, of so many."""
    return np.random.default_rng(0).choice(n_texts, min(n, n_texts), replace=False).tolist()


def sample(n: int) -> list[str]:
    texts = list(collection("cranfield").documents.values())
    return [texts[i] for i in sampled(len(texts), n)]


def padding(model: ColBERTModel) -> None:
    """Print which share of the tokens would be padding, were a batch padded, as it is on a GPU."""
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
    padded = demo_model(dtype="float32", attn_implementation="sdpa")
    encoder = padded._encoder  # noqa: SLF001 - sentence-transformers' own
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


class Contender:
    """A library that encodes in a process of its own: see encoding_contender.py."""

    def __init__(self, name: str, needs: Sequence[str] | None, job: Path) -> None:
        start = [sys.executable]
        if needs is not None:
            packages = [part for one in needs for part in ("--with", one)]
            start = ["uv", "run", "-q", "--isolated", "--no-project", "--python", "3.11", *packages, "python"]
        command = [*start, str(HERE / "encoding_contender.py"), name, str(model_folder()), str(job)]
        self.name, self.dtype, self.seconds = name, "", list[float]()
        self._messages = (job.parent / f"{name}.txt").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages, text=True
        )

    def answer(self) -> dict[str, Any]:
        """Return the next line that it writes.

        Raises:
            RuntimeError: it ended; the message is the last that it said.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._messages.seek(0)
            raise RuntimeError((self._messages.read().strip().splitlines() or ["it ended"])[-1])
        return dict(json.loads(line))

    def ask(self, task: str) -> dict[str, Any]:
        """Give it a task, and return its answer."""
        assert self._process.stdin is not None
        print(task, file=self._process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def compare(cache: Path, n: int, rounds: int, peers: bool, quick: bool) -> None:
    """Print the documents per CPU second of each library, dtype and backend, and nDCG@10 of all that it encodes."""
    judged = collection("cranfield")
    texts = list(judged.documents.values())
    chosen = sampled(len(texts), n)
    cache.mkdir(parents=True, exist_ok=True)
    job = cache.resolve() / "job.json"
    work = {"documents": texts, "queries": list(judged.queries.values()), "sample": chosen}
    job.write_text(json.dumps(work))
    left_out = {} if peers else dict.fromkeys(PEERS, "needs --peers")
    running = []
    for name in ("sentence-transformers", *OURS, "PyLate"):
        if name in left_out:
            continue
        contender = Contender(name, PEERS.get(name), job)
        try:
            contender.dtype = contender.answer()["dtype"]
        except RuntimeError as error:
            left_out[name] = str(error)
        else:
            running.append(contender)
    for turn in range(rounds):
        for contender in running[turn % len(running) :] + running[: turn % len(running)]:
            contender.seconds.append(contender.ask("speed")["seconds"])
    shown = table(
        f"{len(chosen)} documents, medians of {rounds} rounds",
        "",
        "computes in",
        "documents per CPU second",
        "against the first",
        "nDCG@10",
        "least cosine",
    )
    exact: RaggedTokens | None = None
    for contender in running:
        file = cache.resolve() / f"{contender.name}.npz"
        against = np.median(np.array(running[0].seconds) / np.array(contender.seconds))
        speed = [f"{len(chosen) / np.median(contender.seconds):.1f}", f"{against:.2f}"]
        if not (file.exists() or quick):
            contender.ask(str(file))
        if not file.exists():
            shown.add_row(contender.name, contender.dtype, *speed, "–", "–")
            continue
        with np.load(file) as arrays:
            documents, queries = (
                RaggedTokens(arrays[f"{role}_tokens"], arrays[f"{role}_offsets"])
                for role in ("document", "query")
            )
        exact = exact or documents  # sentence-transformers' own
        alike = np.array_equal(documents.offsets, exact.offsets)
        cosine = f"{(documents.tokens * exact.tokens).sum(axis=1).min():.5f}" if alike else "–"
        run = exact_run(
            {query_id: queries.matrix(i) for i, query_id in enumerate(judged.queries)},
            list(judged.documents),
            documents,
        )
        ndcg = f"{evaluate(run, judged.qrels)['ndcg@10']:.4f}"
        shown.add_row(contender.name, contender.dtype, *speed, ndcg, cosine)
    for contender in running:
        contender.close()
    out.print(shown)
    for name, reason in left_out.items():
        out.print(f"{name} is left out: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["padding", "speed", "overlap", "compare"])
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="PyLate and OpenVINO too; they are downloaded")
    parser.add_argument("--quick", action="store_true", help="nDCG@10 only of what is in the cache")
    parser.add_argument("--cache", type=Path, help="where encoded collections are kept")
    arguments = parser.parse_args()
    if arguments.what == "padding":
        padding(demo_model())
    elif arguments.what == "speed":
        speed(demo_model(), arguments.documents, arguments.rounds)
    elif arguments.what == "overlap":
        overlap(demo_model(), arguments.documents)
    elif arguments.cache is None:
        parser.error("compare needs --cache")
    else:
        compare(arguments.cache, arguments.documents, arguments.rounds, arguments.peers, arguments.quick)


if __name__ == "__main__":
    main()
