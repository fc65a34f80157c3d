"""Projected models: the map, its file, and the index that keeps it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA
from typer.testing import CliRunner

from late_interaction import (
    ColBERTModel,
    IndexMismatchError,
    LateInteractionPipeline,
    ModelError,
    PrecomputedEmbeddings,
    ProjectedModel,
    fit_projection,
)
from late_interaction.cli import app
from late_interaction.encoders.projection import Moments
from tests.support import checkpoints
from tools.data_api import DataApiServer

TEXTS = [
    "the flow of heat and the wing",
    "the cat and the dog",
    "hello world, token index search",
    "a query of the index",
    "wing heat flow dog cat world",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ColBERTModel:
    return ColBERTModel(
        checkpoints.plain_checkpoint(tmp_path_factory.mktemp("plain") / "plain"), device="cpu"
    )


@pytest.fixture(scope="module")
def projected(encoder: ColBERTModel) -> ProjectedModel:
    return fit_projection(encoder, TEXTS, dim=8)


def test_vectors_are_projected_and_unit_again(encoder: ColBERTModel, projected: ProjectedModel) -> None:
    assert (projected.dim, projected.model_name) == (8, encoder.model_name)
    for wide, narrow in (
        (encoder.encode_documents(TEXTS), projected.encode_documents(TEXTS)),
        (encoder.encode_queries(TEXTS), projected.encode_queries(TEXTS)),
    ):
        for before, after in zip(wide, narrow, strict=True):
            expected = before @ projected.projection[:-1] + projected.projection[-1]
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
            assert after.dtype == np.float32
            np.testing.assert_allclose(after, expected, atol=1e-6)


@pytest.mark.slow
@given(
    rows=arrays(np.float32, (30, 6), elements=st.floats(-1, 1, width=16), unique=True),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    dim=st.integers(1, 5),
)
def test_the_map_is_that_of_scikit_learns_pca(rows: np.ndarray, cuts: list[int], dim: int) -> None:
    pca = PCA(svd_solver="full").fit(rows.astype(np.float64))
    variances = pca.explained_variance_
    assume(variances[dim - 1] > 1e-3)
    moments = Moments(6)
    for part in np.split(rows, sorted(cuts)):
        moments.add(part)
    projection = moments.projection(dim)
    ours, theirs = rows @ projection[:-1] + projection[-1], pca.transform(rows)[:, :dim]
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(ours.var(axis=0), theirs.var(axis=0), atol=1e-5)
    # Components of like variance may be turned into each other, and signs are free: the dot products are not.
    assume(variances[dim - 1] - variances[dim] > 1e-2)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-3)


def test_fitting_again_gives_the_same_map_however_texts_come(
    encoder: ColBERTModel, projected: ProjectedModel
) -> None:
    again = fit_projection(encoder, iter(TEXTS), dim=8)
    np.testing.assert_allclose(again.projection, projected.projection, atol=1e-6)
    assert json.loads(json.dumps(projected.fingerprint)) == projected.fingerprint


@pytest.mark.parametrize("dim", [0, 32, 33])
def test_a_dim_that_does_not_narrow_is_refused(encoder: ColBERTModel, dim: int) -> None:
    with pytest.raises(ValueError, match=f"dim must be at least 1 and below 32, not {dim}"):
        fit_projection(encoder, TEXTS, dim=dim)


def test_too_few_tokens_are_refused(encoder: ColBERTModel) -> None:
    with pytest.raises(ValueError, match="8 tokens do not span 8 dimensions: give more texts"):
        fit_projection(encoder, ["the cat and the dog of the world"], dim=8)
    with pytest.raises(ValueError, match="0 tokens do not span 8 dimensions"):
        fit_projection(encoder, [], dim=8)
    with pytest.raises(TypeError, match="not a bare str"):
        fit_projection(encoder, "cats", dim=8)


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (np.eye(32, 8), r"shape \(32, 8\); vectors of .* need \(33, dim\)"),
        (np.ones(33), r"shape \(33,\)"),
        (np.eye(33, 32), "below 32, not 32"),
        (np.full((33, 8), np.nan), "not finite"),
        (np.full((33, 8), 1e6), "not finite"),
    ],
)
def test_a_map_of_another_shape_is_refused(
    encoder: ColBERTModel, projection: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ProjectedModel(encoder, projection)


def test_what_is_not_the_maps_is_the_encoders(tmp_path: Path) -> None:
    encoder = ColBERTModel(
        checkpoints.stanford_checkpoint(tmp_path / "model"), device="cpu", long_documents="truncate"
    )
    projected = fit_projection(encoder, TEXTS, dim=4)
    assert projected.protected_tokens == 2
    assert projected.count_truncated(["cat " * 50, "cat"]) == 1
    assert projected.unread_shares(["cat " * 50, "cat"]) == encoder.unread_shares(["cat " * 50, "cat"])
    assert projected.count_tokens(["cat"]) == encoder.count_tokens(["cat"]) == [4]
    assert projected.document_length == encoder.document_length == 24
    with pytest.raises(ValueError, match="position 0 is empty"):
        projected.encode_documents([""])


# --- the file ---------------------------------------------------------------------------------------------


def test_a_saved_map_is_the_same(encoder: ColBERTModel, projected: ProjectedModel, tmp_path: Path) -> None:
    projected.save(tmp_path / "map.safetensors")
    loaded = ProjectedModel.load(tmp_path / "map.safetensors", encoder)
    assert loaded.fingerprint == projected.fingerprint
    np.testing.assert_array_equal(loaded.projection, projected.projection)


def test_a_map_of_another_encoder_is_refused(projected: ProjectedModel, tmp_path: Path) -> None:
    projected.save(tmp_path / "map.safetensors")
    other = ColBERTModel(checkpoints.plain_checkpoint(tmp_path / "plain", seed=1), device="cpu")
    with pytest.raises(ModelError, match=r"was fitted for another encoder than .*: content differ"):
        ProjectedModel.load(tmp_path / "map.safetensors", other)


@pytest.mark.parametrize("content", [None, b"", b"not a map"])
def test_a_file_that_is_no_map(encoder: ColBERTModel, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "map.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="holds no projection that can be read"):
        ProjectedModel.load(tmp_path / "map.safetensors", encoder)


# --- the index --------------------------------------------------------------------------------------------

ROWS = [{"doc_id": str(i), "content": text} for i, text in enumerate(TEXTS)]


async def test_an_index_keeps_the_map_for_the_encoder_alone(
    encoder: ColBERTModel, projected: ProjectedModel, tmp_path: Path
) -> None:
    async with LateInteractionPipeline(tmp_path / "db", projected) as pipeline:
        await pipeline.index_documents(ROWS)
        expected = await pipeline.search("the cat", k=3)
        assert (await pipeline.get_matrices(["0"]))["0"].shape[1] == 8
    async with LateInteractionPipeline(tmp_path / "db", encoder) as reopened:
        assert isinstance(reopened.model, ProjectedModel)
        assert reopened.model.fingerprint == projected.fingerprint
        assert list(await reopened.search("the cat", k=3)) == list(expected)
        await reopened.index_document({"content": "another dog", "doc_id": "new"})
        assert await reopened.copy_to(tmp_path / "copy") == len(ROWS) + 1
    async with LateInteractionPipeline(tmp_path / "copy", encoder, reopened.store.name) as copied:
        assert isinstance(copied.model, ProjectedModel)


async def test_a_database_keeps_a_map_of_real_size() -> None:
    encoder = PrecomputedEmbeddings(384, "elsewhere")
    projected = ProjectedModel(encoder, np.linalg.qr(np.random.default_rng(0).normal(size=(385, 128)))[0])
    async with DataApiServer() as server:
        database = server.async_database()
        async with LateInteractionPipeline(database, projected, "things"):
            pass
        async with LateInteractionPipeline(database, encoder, "things") as reopened:
            assert reopened.model.fingerprint == projected.fingerprint
            assert reopened.spec.dim == 128


async def test_another_map_or_encoder_is_refused_and_named(
    encoder: ColBERTModel, projected: ProjectedModel, tmp_path: Path
) -> None:
    async with LateInteractionPipeline(tmp_path / "db", projected):
        pass
    other_map = fit_projection(encoder, TEXTS[:3], dim=8)
    with pytest.raises(IndexMismatchError, match=r"encoder\.projection\.sha256") as caught:
        await LateInteractionPipeline(tmp_path / "db", other_map).initialize()
    assert len(str(caught.value)) < 2000
    (tmp_path / "other").mkdir()
    other = ColBERTModel(checkpoints.plain_checkpoint(tmp_path / "other" / "plain", seed=1), device="cpu")
    pipeline = LateInteractionPipeline(tmp_path / "db", other)
    with pytest.raises(IndexMismatchError) as caught:
        await pipeline.initialize()
    assert caught.value.differences.keys() >= {"encoder.content", "encoder.projection.sha256"}
    assert pipeline.model is other
    elsewhere = PrecomputedEmbeddings(8, "elsewhere")
    with pytest.raises(IndexMismatchError, match=r"encoder\.family"):
        await LateInteractionPipeline(tmp_path / "db", elsewhere).initialize()
    async with LateInteractionPipeline(tmp_path / "plain", encoder):
        pass
    with pytest.raises(IndexMismatchError, match=r"dim: the index has 32, this pipeline has 8"):
        await LateInteractionPipeline(tmp_path / "plain", projected).initialize()


async def test_the_command_line_searches_a_projected_index(
    encoder: ColBERTModel, projected: ProjectedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    async with LateInteractionPipeline(tmp_path / "db", projected) as pipeline:
        await pipeline.index_documents(ROWS)
        expected = [result.doc_id for result in await pipeline.search("the cat")]

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments), "--db", str(tmp_path / "db")])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    found = await asyncio.to_thread(run, "search", "the cat", "--model", encoder.model_name, "--json")
    assert [result["doc_id"] for result in json.loads(found)["results"]] == expected
    info = await asyncio.to_thread(run, "info")
    assert "projection.sha256" in info
    assert len(info) < 20_000
