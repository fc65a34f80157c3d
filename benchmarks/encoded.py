"""Load judged collections with their token matrices, which are encoded once and kept for the next benchmark."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from late_interaction import ColBERTModel, RaggedTokens
from late_interaction.demo import model_folder
from late_interaction.evaluation import JudgedCollection, load_beir
from late_interaction.types import FloatMatrix

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def collection(name: str) -> JudgedCollection:
    folder = DATA / name
    if not folder.is_dir():
        sys.exit(f"There is no {folder}.")
    return load_beir(folder)


def token_matrices(path: Path, n: int | None = None) -> tuple[list[FloatMatrix], FloatMatrix]:
    """Return the first `n` documents' matrices in a file of token_matrices.py, all by default, and its queries."""
    data = np.load(path)
    tokens = data["codes"] * data["scales"][:, None].astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    starts = data["offsets"][: None if n is None else n + 1].astype(int)
    return [tokens[first:last] for first, last in itertools.pairwise(starts)], data["queries"]


def demo_model(**options: object) -> ColBERTModel:
    """Load all-MiniLM-L6-v2, a plain encoder of 384 dimensions, from the demo extra."""
    return ColBERTModel(model_folder(), device="cpu", **options)


def encoded(
    judged: JudgedCollection, model: ColBERTModel, cache: Path
) -> tuple[RaggedTokens, dict[str, FloatMatrix]]:
    """Return the documents' matrices in their order, and the queries' by id; from the cache if they are in it."""
    fingerprint = json.dumps(dict(model.fingerprint), sort_keys=True)
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:12]
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{judged.name}-torch-{digest}.npz"
    if not file.exists():
        texts, documents = list(judged.documents.values()), []
        for first in tqdm(range(0, len(texts), 256), desc=f"Encoding {judged.name}", unit="batch"):
            documents += model.encode_documents(texts[first : first + 256])
        queries = model.encode_queries(list(judged.queries.values()))
        arrays = {}
        for name, ragged in (
            ("documents", RaggedTokens.from_matrices(documents)),
            ("queries", RaggedTokens.from_matrices(queries)),
        ):
            arrays |= {f"{name}_tokens": ragged.tokens, f"{name}_offsets": ragged.offsets}
        np.savez(file, **arrays)
    with np.load(file) as arrays:
        documents, queries = (
            RaggedTokens(arrays[f"{name}_tokens"], arrays[f"{name}_offsets"])
            for name in ("documents", "queries")
        )
    return documents, {query_id: queries.matrix(i) for i, query_id in enumerate(judged.queries)}
