"""Measure encoding on a GPU: speed by batch and dtype, memory, agreement with the CPU. Under five minutes.

    python benchmarks/gpu_encode.py [--documents 4000]
    python benchmarks/gpu_encode.py --device cpu --documents 32    # a smoke test; the times mean little

all-MiniLM-L6-v2 (the demo extra) on docstrings of the standard library. Without CUDA it says so and exits with code 2.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from late_interaction import ColBERTModel
from late_interaction.demo import model_folder, stdlib_rows

BUDGETS = (4_096, 16_384, 65_536, 262_144)
DTYPES = ("float32", "float16", "bfloat16")
COMPARED = 64
SECONDS = 240
out = Console(width=100)


def measure(model: ColBERTModel, texts: list[str], budget: int) -> tuple[float, float, float | None]:
    """Return documents and tokens per second, and the peak of the GPU's memory in MiB."""
    on_gpu = model.device.startswith("cuda")
    model.batch_tokens = budget
    model.encode_documents(texts[:COMPARED])  # the first pass makes kernels and buffers
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    tokens = sum(map(len, model.encode_documents(texts)))
    seconds = time.perf_counter() - started
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    return len(texts) / seconds, tokens / seconds, memory


def agreement(model: ColBERTModel, texts: list[str], expected: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest difference of a number from the CPU's, and the smallest cosine of a vector with the CPU's."""
    pairs = list(zip(model.encode_documents(texts), expected, strict=True))
    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    return difference, min(float((ours * theirs).sum(axis=1).min()) for ours, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--documents", type=int, default=4000)
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA here; --device cpu is a smoke test.", file=sys.stderr)
        sys.exit(2)

    deadline = time.perf_counter() + SECONDS
    texts = [row["content"] for row in stdlib_rows(arguments.documents)]
    expected = ColBERTModel(model_folder(), device="cpu").encode_documents(texts[:COMPARED])
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    table = Table(title=f"{name}, torch {torch.__version__}, {len(texts):,} documents", title_justify="left")
    for heading in ("dtype", "tokens a pass", "documents/s", "tokens/s", "peak MiB", "|Δ| to CPU", "cosine"):
        table.add_column(heading, justify="right")
    left_out = []
    for dtype in DTYPES:
        model = ColBERTModel(model_folder(), device=arguments.device, dtype=dtype)
        difference, cosine = agreement(model, texts[:COMPARED], expected)
        for budget in BUDGETS:
            if time.perf_counter() > deadline:
                left_out.append(f"{dtype} at {budget:,}")
                continue
            documents, tokens, memory = measure(model, texts, budget)
            table.add_row(
                dtype,
                f"{budget:,}",
                f"{documents:,.0f}",
                f"{tokens:,.0f}",
                "–" if memory is None else f"{memory:,.0f}",
                f"{difference:.1e}",
                f"{cosine:.6f}",
            )
        del model
    out.print(table)
    if left_out:
        out.print(f"Left out after {SECONDS} s: {', '.join(left_out)}.")


if __name__ == "__main__":
    main()
