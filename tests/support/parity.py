"""What is compared with PyLate and colbert-ai: checkpoints and texts.

`benchmarks/parity/make_golden.py` has those libraries encode them, and keeps what they gave in `golden/parity.npz`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.support import checkpoints

GOLDEN = Path(__file__).parent / "golden" / "parity.npz"

QUERIES = [
    "cat",
    "The flow of heat, and the wing?",
    "state-of-the-art search; don't index (x) 42",
    "hello world " * 70,
    "Ω dog",
]
DOCUMENTS = [
    "Hello world.",
    "The cat, the dog: heat & flow -- 3.14!",
    "the flow of heat and the wing and the cat and the dog " * 12,
    "...",
    "token\tindex\nsearch  Query",
    "wing",
]


@dataclass(frozen=True)
class Case:
    """A checkpoint, and the libraries that read it as its authors meant.

    Attributes:
        build: writes the checkpoint to a folder.
        references: "pylate" and "colbert-ai".
    """

    build: Callable[[Path], Path]
    references: tuple[str, ...]


_stanford = partial(partial, checkpoints.stanford_checkpoint)
_pylate = partial(partial, checkpoints.pylate_checkpoint)
_decoder = partial(partial, checkpoints.decoder_checkpoint)
BOTH = ("pylate", "colbert-ai")

CASES = {
    "stanford": Case(_stanford(query_maxlen=32, doc_maxlen=40), BOTH),
    "stanford, 48, attended masks": Case(
        _stanford(query_maxlen=48, doc_maxlen=64, attend_to_mask_tokens=True), BOTH
    ),
    # PyLate does not look at mask_punctuation.
    "stanford, 128, with punctuation": Case(
        _stanford(query_maxlen=128, doc_maxlen=150, mask_punctuation=False, positions=150), ("colbert-ai",)
    ),
    "pylate": Case(_pylate(query_length=32, document_length=40), ("pylate",)),
    "pylate, no expansion": Case(_pylate(do_query_expansion=False), ("pylate",)),
    "pylate, attended masks": Case(_pylate(query_length=48, attend_to_expansion_tokens=True), ("pylate",)),
    "pylate, two Dense": Case(_pylate(dense=2), ("pylate",)),
    "pylate, other prefixes": Case(_pylate(prefixes=("<query>", "<document>")), ("pylate",)),
    "pylate, no prefixes": Case(_pylate(prefixes=("", "")), ("pylate",)),
    "pylate, other skiplist": Case(_pylate(skiplist_words=["the", "of", "."]), ("pylate",)),
    "pylate, lowercased by the module": Case(_pylate(lowercase="module"), ("pylate",)),
    "pylate, no BOS": Case(_decoder(), ("pylate",)),
    "pylate, no BOS, but an end": Case(_decoder(ends=True), ("pylate",)),
    "pylate, no BOS, no expansion": Case(_decoder(do_query_expansion=False), ("pylate",)),
    "pylate, no BOS, padded on the left": Case(_decoder(ends=True, padding_side="left"), ("pylate",)),
    "pylate, a BOS, first words apart": Case(_decoder(begins=True), ("pylate",)),
    "jina": Case(checkpoints.jina_checkpoint, BOTH),
}


def weights_hash(folder: Path) -> str:
    """A hash of all weights of a checkpoint, whatever wrote the files."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        for name, array in sorted(load_file(file).items()):
            digest.update(f"{file.relative_to(folder).as_posix()} {name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()
