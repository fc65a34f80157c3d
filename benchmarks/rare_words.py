"""Questions whose answer rests on one rare code in a real text: does a search find what exact search finds?

Each text is a docstring of 46 words and more, cut after 60, with a product code in its middle that no other text has.
`local.py --rare` asks for the codes in three forms; here the texts are encoded by the demo's model, once, and kept.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from encoded import demo_model
from tqdm import tqdm

from late_interaction import RaggedTokens
from late_interaction.types import FloatMatrix

FORMS = ("{}", "part number {}", "what is {} used for?")
ASKED = 150
_LETTERS = "ABCDEFGHKLMNPRSTWXZ"


@dataclass(frozen=True)
class RareWords:
    """Documents; and for each form its questions, as texts with their matrices, whose answers are `answers`."""

    texts: list[str]
    documents: RaggedTokens
    questions: dict[str, list[tuple[str, FloatMatrix]]]
    answers: list[int]


def docstrings(files: list[Path]) -> Iterator[str]:
    for file in files:
        try:
            tree = ast.parse(file.read_text("utf-8", errors="replace"))
        except (SyntaxError, ValueError, OSError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                words = (ast.get_docstring(node) or "").split()
                if len(words) > 45:
                    yield " ".join(words[:60])


def made_texts(n: int) -> tuple[list[str], list[str]]:
    """Return texts and the code in each: from the standard library's top modules, or from all packages for more."""
    rng, paths = random.Random(1), sysconfig.get_paths()
    files = sorted(Path(paths["stdlib"]).glob("*.py"))
    texts = list(dict.fromkeys(docstrings(files)))
    if n > len(texts):
        more = sorted([*Path(paths["stdlib"]).rglob("*.py"), *Path(paths["purelib"]).rglob("*.py")])
        texts = list(dict.fromkeys([*texts, *docstrings(more)]))
    rng.shuffle(texts)
    texts = texts[:n]
    codes = [f"{rng.choice(_LETTERS)}{rng.choice(_LETTERS)}-{rng.randrange(1000, 9999)}" for _ in texts]
    middle = [len(text) // 2 for text in texts]
    return [f"{t[:m]} part number {c} {t[m:]}" for t, c, m in zip(texts, codes, middle, strict=True)], codes


def rare_words(n: int, cache: Path) -> RareWords:
    """Return about `n` documents and the questions, encoded or from the cache."""
    texts, codes = made_texts(n)
    asked = random.Random(2).sample(range(len(texts)), ASKED)
    answers = [i for i in asked if codes.count(codes[i]) == 1]
    file = cache / f"rare-{len(texts)}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        model, matrices = demo_model(), []
        for first in tqdm(range(0, len(texts), 256), desc="Encoding", unit="batch"):
            matrices += [m.astype(np.float16) for m in model.encode_documents(texts[first : first + 256])]
        arrays = {"documents": np.concatenate(matrices), "offsets": np.cumsum([0, *map(len, matrices)])}
        for i, form in enumerate(FORMS):
            questions = model.encode_queries([form.format(codes[j]) for j in answers])
            arrays |= {
                f"questions{i}": np.concatenate(questions),
                f"ends{i}": np.cumsum([*map(len, questions)]),
            }
        np.savez(file, **arrays)
    with np.load(file) as arrays:
        documents = RaggedTokens(arrays["documents"].astype(np.float32), arrays["offsets"])
        questions = {
            form: list(
                zip(
                    [form.format(codes[j]) for j in answers],
                    np.split(arrays[f"questions{i}"], arrays[f"ends{i}"][:-1]),
                    strict=True,
                )
            )
            for i, form in enumerate(FORMS)
        }
    return RareWords(texts, documents, questions, answers)
