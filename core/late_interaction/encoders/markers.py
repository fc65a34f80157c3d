"""Markers where PyLate puts them: behind the first token of a text, whatever that token is."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from late_interaction.encoders.checkpoint import read_json

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from transformers import BatchEncoding, PreTrainedTokenizerBase

_PROBES = ("hello", " hello", "Hello, World!", "1 2", "中文")


def pylate_markers(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a PyLate checkpoint's markers that are tokens of their own; others are text, as everywhere."""
    settings = read_json(folder / "config_sentence_transformers.json")
    markers = [settings.get("query_prefix"), settings.get("document_prefix")]
    vocabulary = tokenizer.get_vocab()
    return [marker for marker in dict.fromkeys(markers) if marker and marker in vocabulary]


def with_markers(
    encoder: MultiVectorEncoder, plain: PreTrainedTokenizerBase, markers: Collection[str]
) -> MultiVectorEncoder:
    """Return an encoder that puts the markers where PyLate does; the encoder itself where it does so already.

    sentence-transformers puts a marker before the text and has both tokenised together. That is the same where the
    tokenizer begins each text with a token of its own ([CLS], a BOS), and does not look at what stands before a word.

    Args:
        encoder: the encoder.
        plain: its tokenizer.
        markers: those that are tokens of their own.
    """
    if not markers:
        return encoder
    marked = _marked(plain, markers)
    texts = [marker + probe for marker in markers for probe in _PROBES]
    if plain(texts)["input_ids"] == marked(texts)["input_ids"]:
        return encoder
    changed = copy.copy(encoder)
    vars(changed)["_modules"] = dict(
        vars(encoder)["_modules"]
    )  # A torch module's copy shares its parts' table.
    changed[0] = copy.copy(encoder[0])
    vars(changed[0]).update(processor=marked, _prompt_length_mapping={})
    return changed


def _marked(tokenizer: PreTrainedTokenizerBase, markers: Collection[str]) -> PreTrainedTokenizerBase:
    class MarkedTokenizer(type(tokenizer)):  # type: ignore[misc]
        """Takes a text that begins with a marker, tokenises what is behind it, and puts the marker's token in."""

        def __call__(
            self,
            text: str | list[str],
            padding: bool | str = False,
            truncation: bool | str = False,
            max_length: int | None = None,
            return_tensors: str | None = None,
            **options: Any,
        ) -> BatchEncoding:
            texts = [text] if isinstance(text, str) else list(text)
            found = [next((marker for marker in markers if t.startswith(marker)), "") for t in texts]
            longest = self.model_max_length if max_length is None else max_length
            rows = [
                super(MarkedTokenizer, self).__call__(
                    t.removeprefix(marker),
                    truncation=truncation,
                    max_length=longest - bool(marker) if truncation else None,
                    **options,
                )
                for t, marker in zip(texts, found, strict=True)
            ]
            # A query that is filled up has its marker behind the first place, also where the filling is on the left.
            filled = padding == "max_length" and self.padding_side == "left"
            for row, marker in zip(rows, found, strict=True):
                if filled:
                    self._fill(row, longest - bool(marker))
                if marker:
                    self._insert(row, marker)
            if isinstance(text, str) and return_tensors is None:
                return rows[0]
            joined = {name: [row[name] for row in rows] for name in rows[0]}
            longest = longest if padding == "max_length" else None
            return self.pad(joined, padding=padding, max_length=longest, return_tensors=return_tensors)

        def _fill(self, row: BatchEncoding, length: int) -> None:
            row.update(self.pad(dict(row), padding="max_length", max_length=length))

        def _insert(self, row: BatchEncoding, marker: str) -> None:
            values = {
                "input_ids": self.convert_tokens_to_ids(marker),
                "attention_mask": 1,
                "token_type_ids": 0,
            }
            for name in values.keys() & row.keys():
                row[name].insert(1, values[name])
            if "offset_mapping" in row:
                length = len(marker)
                spans = [(start + length, end + length) for start, end in row["offset_mapping"]]
                row["offset_mapping"] = [*spans[:1], (0, 0), *spans[1:]]

    marked = copy.deepcopy(tokenizer)
    marked.__class__ = MarkedTokenizer
    return marked
