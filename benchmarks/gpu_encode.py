"""Measure encoding on a GPU: texts and pages, by batch, dtype and workers. Under five minutes.

    python benchmarks/gpu_encode.py [--documents 4000] [--pages 240] [--model vidore/colqwen2-v1.0]
    python benchmarks/gpu_encode.py --device cpu --documents 32 --pages 6    # a smoke test; the times mean little

Texts: all-MiniLM-L6-v2 (the demo extra) on docstrings of the standard library; speed, memory, agreement with the CPU.
Pages: a PDF of text pages, A4 at 150 dpi, from the file into an index: pages per second, and the share of the time in
which the device computes. Without --model the visual model is a ColQwen2 with random weights, on a GPU with the widths
and layers of Qwen2-VL-2B, else a tiny one. Without CUDA the script says so and exits with code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from late_interaction import ColBERTModel, ColPaliModel, LateInteractionPipeline, pdf_pages
from late_interaction.demo import model_folder, stdlib_rows
from late_interaction.types import FloatMatrix
from tests.support import pdfs
from tests.support.visual_checkpoints import visual_checkpoint

BUDGETS = (4_096, 16_384, 65_536, 262_144)
DTYPES = ("float32", "float16", "bfloat16")
PASSES = (4_000_000, 16_000_000)
WORKERS = (1, 4, 8)
COMPARED = 64
SECONDS = 240
out = Console(width=100)


def table(title: str, *headings: str) -> Table:
    made = Table(title=title, title_justify="left")
    for heading in headings:
        made.add_column(heading, justify="right")
    return made


def peak(device: str) -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if device.startswith("cuda") else "–"


def reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


# --- texts


def measure(model: ColBERTModel, texts: list[str], budget: int) -> tuple[float, float]:
    """Return documents and tokens per second."""
    model.batch_tokens = budget
    model.encode_documents(texts[:COMPARED])  # the first pass makes kernels and buffers
    reset_peak(model.device)
    started = time.perf_counter()
    tokens = sum(map(len, model.encode_documents(texts)))
    seconds = time.perf_counter() - started
    return len(texts) / seconds, tokens / seconds


def agreement(model: ColBERTModel, texts: list[str], expected: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest difference of a number from the CPU's, and the smallest cosine of a vector with the CPU's."""
    pairs = list(zip(model.encode_documents(texts), expected, strict=True))
    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    return difference, min(float((ours * theirs).sum(axis=1).min()) for ours, theirs in pairs)


def texts_table(device: str, n: int, deadline: float) -> list[str]:
    """Print the speed of texts; return what there was no time for."""
    texts = [row["content"] for row in stdlib_rows(n)]
    expected = ColBERTModel(model_folder(), device="cpu", dtype="float32").encode_documents(texts[:COMPARED])
    shown = table(
        f"{len(texts):,} documents",
        *("dtype", "tokens a pass", "documents/s", "tokens/s", "peak MiB"),
        *("|Δ| to CPU", "cosine"),
    )
    left_out = []
    for dtype in DTYPES:
        model = ColBERTModel(model_folder(), device=device, dtype=dtype)
        difference, cosine = agreement(model, texts[:COMPARED], expected)
        for budget in BUDGETS:
            if time.perf_counter() > deadline:
                left_out.append(f"texts in {dtype} at {budget:,}")
                continue
            documents, tokens = measure(model, texts, budget)
            speed = f"{documents:,.0f}", f"{tokens:,.0f}", peak(device)
            shown.add_row(dtype, f"{budget:,}", *speed, f"{difference:.1e}", f"{cosine:.6f}")
        del model
    out.print(shown)
    return left_out


# --- pages


class Watched(ColPaliModel):
    """A visual model that notes when its device computes."""

    spans: list[tuple[float, float]]

    def _forward(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> list[FloatMatrix]:
        started = time.perf_counter()
        rows = super()._forward(
            model, inputs
        )  # which ends with a copy to the CPU, and so waits for the device
        self.spans.append((started, time.perf_counter()))
        return rows


def random_colqwen2(folder: Path, device: str) -> Path:
    """Write a ColQwen2 with random weights: on a GPU Qwen2-VL-2B's size but for the vocabulary, else a tiny one."""
    from colpali_engine.models import ColQwen2, ColQwen2Processor
    from transformers import AutoConfig

    tiny = visual_checkpoint(folder / "tiny", "colqwen2")
    if device == "cpu":
        return tiny
    config = AutoConfig.from_pretrained(tiny)
    for name, value in {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "layer_types": ["full_attention"] * 28,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [16, 24, 24],
        },
    }.items():
        setattr(config.text_config, name, value)
    for name, value in {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16}.items():
        setattr(config.vision_config, name, value)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = ColQwen2(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder / "model")
    processor = ColQwen2Processor.from_pretrained(tiny)
    processor.image_processor.size = {"shortest_edge": 4 * 28**2, "longest_edge": 768 * 28**2}
    processor.save_pretrained(folder / "model")
    return folder / "model"


def write_pdf(path: Path, n: int) -> None:
    lines = [f"{line:02d} The quick brown fox jumps over the lazy dog" for line in range(24)]
    path.write_bytes(pdfs.pdf(*(pdfs.text(f"Page {page}", *lines) for page in range(n))))


async def index_pages(model: Watched, path: Path, num_workers: int) -> tuple[float, float]:
    """Return pages per second, and the share of the time from the first pass to the last in which a pass ran."""
    model.spans = []
    with tempfile.TemporaryDirectory() as folder:
        async with LateInteractionPipeline(folder, model) as pipeline:
            started = time.perf_counter()
            ids = await pipeline.index_documents(pdf_pages(path), num_workers=num_workers)
            seconds = time.perf_counter() - started
    busy = sum(end - begin for begin, end in model.spans)
    return len(ids) / seconds, busy / (model.spans[-1][1] - model.spans[0][0])


def pages_table(device: str, name: str | None, n: int, deadline: float) -> list[str]:
    """Print the speed of pages; return what there was no time for."""
    left_out = []
    with tempfile.TemporaryDirectory() as folder:
        model = Watched(name or random_colqwen2(Path(folder), device), device=device)
        model.spans = []
        few, many = Path(folder) / "few.pdf", Path(folder) / "many.pdf"
        write_pdf(few, 4)
        write_pdf(many, n)
        asyncio.run(index_pages(model, few, 4))  # the first pass makes kernels and buffers
        (page,) = model.encode_documents([next(pdf_pages(few))["image"].render()])
        shown = table(
            f"{n:,} pages of {len(page)} vectors, {model.family}, {name or 'random weights'}",
            *("workers", "pixels a pass", "pages/s", "device busy", "peak MiB"),
        )
        for pixels in PASSES:
            for workers in WORKERS:
                if time.perf_counter() > deadline:
                    left_out.append(f"pages with {workers} workers at {pixels:,}")
                    continue
                model.batch_pixels, model.num_workers = pixels, workers
                reset_peak(device)
                speed, busy = asyncio.run(index_pages(model, many, workers))
                shown.add_row(f"{workers}", f"{pixels:,}", f"{speed:.1f}", f"{busy:.0%}", peak(device))
    out.print(shown)
    return left_out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--documents", type=int, default=4000, help="texts; 0 for none")
    parser.add_argument("--pages", type=int, default=240, help="pages; 0 for none")
    parser.add_argument("--model", help="a visual checkpoint; by default one with random weights")
    arguments = parser.parse_args()
    device = arguments.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA here; --device cpu is a smoke test.", file=sys.stderr)
        sys.exit(2)

    started = time.perf_counter()
    out.print(
        f"{torch.cuda.get_device_name() if device.startswith('cuda') else device}, torch {torch.__version__}"
    )
    left_out = []
    if arguments.documents:
        left_out += texts_table(device, arguments.documents, started + SECONDS / 2)
    if arguments.pages:
        left_out += pages_table(device, arguments.model, arguments.pages, started + SECONDS)
    if left_out:
        out.print(f"Left out after {SECONDS} s: {', '.join(left_out)}.")


if __name__ == "__main__":
    main()
