"""Which words of a document answer a query."""

from collections.abc import Callable
from pathlib import Path

import pytest

from late_interaction import ColBERTModel
from late_interaction.explain import matched_words
from tests.support import checkpoints

BUILDERS = [
    checkpoints.stanford_checkpoint,
    checkpoints.pylate_checkpoint,
    checkpoints.native_checkpoint,
    checkpoints.plain_checkpoint,
]


@pytest.mark.parametrize("build", BUILDERS)
def test_every_row_of_a_document_has_its_span(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    model = ColBERTModel(build(tmp_path / "model"), device="cpu")
    for text in ("The wing, hello heat-layer; of UNKNOWNWORD a wing? !!", "wing", "!!", "wing layer " * 50):
        assert len(model.document_spans(text)) == len(model.encode_documents([text])[0])
    text = "The  wing\nhello"
    words = [text[start:end] for start, end in model.document_spans(text) if start < end]
    assert words == ["The", "wing", "hello"]


def test_the_words_that_answer_are_found_whole(minilm: ColBERTModel) -> None:
    documents = ["Recursively copy an entire directory tree.", "Return the arc cosine of x."]
    found = matched_words(minilm, "copy a directory recursively", documents)
    words = [[document[a:b] for a, b in spans] for document, spans in zip(documents, found, strict=True)]
    assert words[0][:2] == ["Recursively", "copy"]
    assert "directory" in words[0]
    assert words[1] == []
    assert matched_words(minilm, "copy", documents, min_similarity=1.1) == [[], []]
