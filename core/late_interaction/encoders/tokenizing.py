"""Tokenizers that read a text once, however often they are asked, and that threads may share."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

_SPANS = "offset_mapping"
_Row: TypeAlias = Mapping[str, NDArray[np.int32]]
"""What a tokenizer gives for one text, untruncated: `input_ids`, masks, and (n_tokens, 2) `offset_mapping`."""


def with_memory(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return a copy of a tokenizer that keeps the tokens of the texts that it was last told to remember.

    It has two more methods: `remember(texts)` and `rows(texts)`. Called as sentence-transformers calls it, it gives
    what the tokenizer gives.
    """

    class RememberingTokenizer(type(tokenizer)):  # type: ignore[misc]
        _rows: dict[str, _Row]

        def remember(self, texts: Sequence[str]) -> None:
            """Tokenize these texts, those that are remembered already excepted, and forget all others."""
            self._rows = dict(zip(texts, self.rows(texts), strict=True))

        def rows(self, texts: Sequence[str], *, keep: bool = False) -> list[_Row]:
            """Return the tokens of each text; with `keep`, remember them beside the others."""
            new = [text for text in dict.fromkeys(texts) if text not in self._rows]
            read = dict(zip(new, self._read(new), strict=True))
            if keep:
                self._rows.update(read)
            return [read[text] if text in read else self._rows[text] for text in texts]

        def _read(self, texts: list[str]) -> list[_Row]:
            if not texts:
                return []
            plain = super().__call__
            read = plain(
                texts, truncation=False, padding=False, verbose=False, return_offsets_mapping=self.is_fast
            )
            return [
                {name: np.array(values[i], np.int32) for name, values in read.items()}
                for i in range(len(texts))
            ]

        def __call__(
            self,
            text: str | list[str],
            padding: bool | str = False,
            truncation: bool | str = False,
            max_length: int | None = None,
            return_tensors: str | None = None,
            return_attention_mask: bool | None = None,
            **options: Any,
        ) -> BatchEncoding:
            plain = super().__call__
            # A query that is filled up on the left has its marker elsewhere: see `markers`.
            filled_left = padding == "max_length" and self.padding_side == "left"
            if options or isinstance(text, str) or filled_left:
                return plain(
                    text,
                    padding=padding,
                    truncation=truncation,
                    max_length=max_length,
                    return_tensors=return_tensors,
                    return_attention_mask=return_attention_mask,
                    **options,
                )
            longest = self.model_max_length if max_length is None else max_length
            rows = []
            for one, row in zip(text, self.rows(text), strict=True):
                if truncation and len(row["input_ids"]) > longest:
                    row = plain(one, truncation=truncation, max_length=max_length)
                rows.append(
                    {name: np.asarray(values).tolist() for name, values in row.items() if name != _SPANS}
                )
            joined = {name: [row[name] for row in rows] for name in rows[0]}
            width = max_length if padding == "max_length" else None
            return self.pad(
                joined,
                padding=padding,
                max_length=width,
                return_tensors=return_tensors,
                return_attention_mask=return_attention_mask,
            )

    remembering = copy.deepcopy(tokenizer)
    remembering.__class__ = RememberingTokenizer
    remembering._rows = {}  # noqa: SLF001 - of the class above
    return remembering


def shared(tokenizer: PreTrainedTokenizerBase, lock: AbstractContextManager[object] | None = None) -> None:
    """Let several threads call a tokenizer, one after the other; a fast one would fail ("Already borrowed").

    Args:
        tokenizer: the tokenizer, which is changed.
        lock: what a thread holds meanwhile, a `threading.RLock`; None for a new one.
    """
    lock, kind = lock or threading.RLock(), type(tokenizer)

    def call(self: Any, *args: Any, **options: Any) -> BatchEncoding:
        with lock:
            return kind.__call__(self, *args, **options)

    tokenizer.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
