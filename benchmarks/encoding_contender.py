"""Encode with one library, as `encoding.py compare` asks for: `encoding_contender.py NAME MODEL JOB`.

It runs in a process, and where need be in an environment, of its own. Each line of stdin is a task, and each is
answered by a line of JSON: "speed" encodes the sample and gives the CPU seconds of this process; any other line is a
file, to which the vectors of the whole collection are written.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import numpy as np

Encode = Callable[[Sequence[str], str], list[Any]]
DOCUMENT_TOKENS = 256  # what all-MiniLM-L6-v2 reads
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, float32": {"dtype": "float32"},
    "ours, bfloat16": {"dtype": "bfloat16"},
    "ours, onnx": {"backend": "onnx"},
    "ours, openvino": {"backend": "openvino"},
    "ours, windows": {"long_documents": "windows"},
}


def load(name: str, folder: str) -> tuple[Encode, str]:
    """Return what encodes texts of a role, and what it computes in."""
    if name == "PyLate":
        return _pylate(folder), "float32"
    if name == "sentence-transformers":
        return _sentence_transformers(folder), "float32"
    from late_interaction import ColBERTModel

    model = ColBERTModel(folder, device="cpu", **{"long_documents": "truncate"} | OURS[name])
    ways = {"document": model.encode_documents, "query": model.encode_queries}
    return lambda texts, role: ways[role](texts), model.dtype


def _sentence_transformers(folder: str) -> Encode:
    """Return its own encoding, of the modules that we put together for a model without a late-interaction head."""
    from pathlib import Path

    from late_interaction.encoders.colbert_loading import load_text_encoder

    # Padded, as it does by itself; `load_text_encoder` leaves padding out else.
    encoder = load_text_encoder(
        Path(folder), "plain", device="cpu", dtype="float32", attn_implementation="sdpa"
    )
    ways = {"document": encoder.encode_document, "query": encoder.encode_query}
    return lambda texts, role: ways[role](
        list(texts), batch_size=32, show_progress_bar=False, convert_to_numpy=True
    )


def _pylate(folder: str) -> Encode:
    """Return PyLate's encoding, without prefixes, expansion and skiplist; its projection does nothing."""
    import torch
    from pylate import models

    model = models.ColBERT(
        folder,
        device="cpu",
        embedding_size=384,
        query_prefix="",
        document_prefix="",
        query_length=DOCUMENT_TOKENS,
        document_length=DOCUMENT_TOKENS,
        do_query_expansion=False,
        skiplist_words=[],
    )
    with torch.no_grad():
        model[1].linear.weight.copy_(torch.eye(384))
    return lambda texts, role: model.encode(
        list(texts), batch_size=32, is_query=role == "query", show_progress_bar=False
    )


def main(name: str, folder: str, job: str, tasks: TextIO, answers: TextIO) -> None:
    with open(job) as file:  # noqa: PTH123
        work = json.load(file)
    encode, dtype = load(name, folder)
    sample = [work["documents"][i] for i in work["sample"]]
    encode(sample[:8], "document")
    print(json.dumps({"dtype": dtype}), file=answers, flush=True)
    for task in map(str.strip, tasks):
        started = time.process_time()
        if task == "speed":
            encode(sample, "document")
        else:
            arrays = {}
            for role, texts in (("document", work["documents"]), ("query", work["queries"])):
                matrices = [np.asarray(matrix, np.float32) for matrix in encode(texts, role)]
                arrays[f"{role}_tokens"] = np.concatenate(matrices)
                arrays[f"{role}_offsets"] = np.cumsum([0, *map(len, matrices)])
            np.savez(task, **arrays)
        print(json.dumps({"seconds": time.process_time() - started}), file=answers, flush=True)


if __name__ == "__main__":
    answering, sys.stdout = sys.stdout, sys.stderr  # A library may print.
    main(*sys.argv[1:], tasks=sys.stdin, answers=answering)
