"""A text is tokenised once, whatever asks for its tokens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from late_interaction import ColBERTModel
from tests.unit.text_encoders.models import BUILDERS

WORDS = "the cat and the dog search the wing of the flow of heat"
TEXTS = [WORDS, "wing", "hello world"]


class Counted:
    """A backend tokenizer that counts the texts it is given."""

    def __init__(self, backend: Any, seen: Counter[str]) -> None:
        self._backend, self._seen = backend, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode_batch(self, texts: list[str], *args: Any, **kwargs: Any) -> Any:
        self._seen.update(texts)
        return self._backend.encode_batch(texts, *args, **kwargs)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_text_is_tokenised_once(folders: dict[str, Path], family: str) -> None:
    model, seen = ColBERTModel(folders[family], device="cpu"), Counter[str]()
    model.encode_documents(["and"])  # and the prompt's length is known
    model.encode_queries(["and"])
    model._tokenizer._tokenizer = Counted(model._tokenizer._tokenizer, seen)
    for texts, role, encode in (
        (TEXTS, "document", model.encode_documents),
        (["the flow", "cat and dog"], "query", model.encode_queries),
    ):
        seen.clear()
        encode(texts)
        model.unread_shares(texts, role)
        model.count_tokens(texts, role)
        assert seen == {model._prompts[role] + text: 1 for text in texts}


@pytest.mark.parametrize("family", ["plain", "pylate", "stanford"])
def test_windows_are_tokenised_once(folders: dict[str, Path], family: str) -> None:
    model, seen = ColBERTModel(folders[family], device="cpu", document_length=16), Counter[str]()
    model._tokenizer._tokenizer = Counted(model._tokenizer._tokenizer, seen)
    texts = [f"{WORDS}. {number} {WORDS}" for number in range(3)]
    model.encode_documents(texts)
    prompt = model._prompts["document"]
    parts = [text[window.start : window.end] for text in texts for window in model._windows(text)]
    assert len(parts) > 2 * len(texts)
    assert {prompt + text for text in (*texts, *parts)} <= set(seen)
    assert max(seen.values()) == 1
    seen.clear()
    model.unread_shares(texts)
    assert model.count_truncated(texts) == 0
    for text in texts:
        assert model.document_spans(text)
    assert not seen
    # What was looked at on the way is forgotten.
    assert set(model._tokenizer._rows) == {prompt + text for text in (*texts, *parts)}


def test_another_bound_cuts_anew(folders: dict[str, Path]) -> None:
    model = ColBERTModel(folders["plain"], device="cpu", document_length=16)
    text = f"{WORDS}. {WORDS}"
    [whole] = model.encode_documents([text])
    model.max_document_tokens = 16
    [less] = model.encode_documents([text])
    assert len(less) < len(whole)


def test_what_was_encoded_before_is_forgotten(folders: dict[str, Path]) -> None:
    model = ColBERTModel(folders["plain"], device="cpu")
    model.encode_documents(TEXTS)
    model.encode_documents(TEXTS[:1])
    assert list(model._tokenizer._rows) == TEXTS[:1]


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize("padding", [True, "max_length", False])
def test_it_gives_what_the_tokenizer_gives(
    folders: dict[str, Path], family: str, padding: bool | str
) -> None:
    import transformers

    model = ColBERTModel(folders[family], device="cpu")
    backbone = next(path for path in (folders[family] / "0_Transformer", folders[family]) if path.is_dir())
    plain = transformers.AutoTokenizer.from_pretrained(backbone)
    model._tokenizer.remember(TEXTS)
    options = {"padding": padding, "truncation": True, "max_length": 16}
    ours, theirs = model._tokenizer(TEXTS, **options), plain(TEXTS, **options)
    assert dict(ours) == dict(theirs)
