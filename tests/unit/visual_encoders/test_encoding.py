"""Every visual family: images and texts to unit vectors, batches, heat maps."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    ColPaliModel,
    LateInteractionPipeline,
    ModelError,
)
from late_interaction.explain import draw_heat_map, image_heat_maps

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from PIL import Image

from tests.support.visual_checkpoints import POSITIONS
from tests.unit.visual_encoders.models import DIMS, IMAGES, NAMES, PREFIXES, TEXTS, largest_difference, noise

pytestmark = pytest.mark.slow

# --- every family


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_opened_as_what_its_config_says(
    name: str, models: Callable[[str], ColPaliModel]
) -> None:
    model = models(name)
    assert (model.family, model.dim, model.supports_images, model.device) == (name, DIMS[name], True, "cpu")
    assert model.query_prefix == PREFIXES.get(name, "")
    assert repr(model).startswith(f"ColPaliModel('{model.model_name}', family='{name}', dim=")


@pytest.mark.parametrize("name", NAMES)
def test_unit_rows_that_do_not_depend_on_the_batch(name: str, models: Callable[[str], ColPaliModel]) -> None:
    model = models(name)
    items = [IMAGES[0], TEXTS[0], *IMAGES[1:], *TEXTS[1:]]
    for encode in (model.encode_documents, model.encode_queries):
        together = encode(items)
        assert largest_difference(together, [encode([item])[0] for item in items]) < 1e-5
        for matrix in together:
            assert matrix.dtype == np.float32
            assert matrix.shape[1] == model.dim
            assert np.abs(np.linalg.norm(matrix, axis=1) - 1).max() < 1e-5
    assert model.encode_documents([]) == []
    # The images are seen, and not only the prompt around them.
    one, other = model.encode_documents([noise(56, 56, 5), noise(56, 56, 6)])
    assert one.shape == other.shape
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
async def test_from_image_to_image(name: str, models: Callable[[str], ColPaliModel], tmp_path: Path) -> None:
    model = models(name)
    exact: dict[str, Any] = {"doc_pool_factor": 1, "query_pool_distance": 0, "packing": "float32"}
    async with LateInteractionPipeline(tmp_path / "db", model, **exact) as pipeline:
        files = []
        for i, image in enumerate(IMAGES):
            files.append(tmp_path / f"{i}.png")
            image.save(files[-1])
        rows = [{"doc_id": f"image {i}", "image": file} for i, file in enumerate(files)]
        rows += [{"doc_id": f"text {i}", "content": text} for i, text in enumerate(TEXTS)]
        await pipeline.index_documents(rows)
        for i, image in enumerate(IMAGES):
            found = await pipeline.search(image, k=1)
            assert (found[0].doc_id, found[0].content) == (f"image {i}", str(files[i]))
        queries = [*TEXTS, IMAGES[1]]
        found = await pipeline.search_many(queries, k=len(rows))
        documents = model.encode_documents([*IMAGES, *TEXTS])
        for query, results in zip(model.encode_queries(queries), found, strict=True):
            assert len(results) == len(rows)
            scores = {
                row["doc_id"]: (query @ d.T).max(axis=1).sum() for row, d in zip(rows, documents, strict=True)
            }
            for result in results:
                assert result.score == pytest.approx(scores[result.doc_id], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_encoded_is_what_the_family_encodes(name: str, models: Callable[[str], ColPaliModel]) -> None:
    """Our images and queries are those of the family's own processor and forward pass, one at a time."""
    import torch

    model = models(name)
    processor, network = model._processor, model._model

    def own(inputs: Any) -> np.ndarray:
        inputs.pop("labels", None)
        if name == "colpali" and "pixel_values" not in inputs:
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        with torch.no_grad():
            output = network(**inputs)
        return np.asarray(getattr(output, "embeddings", output)[0])

    processor.query_prefix = model.query_prefix
    theirs = [own(processor.process_queries([text])) for text in TEXTS]
    library = model.as_built({"model": "of an earlier release", "query_prefix": model.query_prefix})
    assert largest_difference(library.encode_queries(TEXTS), theirs) < 1e-5
    images = [own(processor.process_images([image])) for image in IMAGES]
    assert largest_difference(model.encode_documents(IMAGES), images) < 1e-5


# --- texts


@pytest.mark.parametrize("name", NAMES)
def test_a_prefix_goes_before_queries_only(
    name: str, folders: Callable[[str], Path], models: Callable[[str], ColPaliModel]
) -> None:
    model, prefixed = models(name), ColPaliModel(folders(name), device="cpu", query_prefix="Question : ")
    assert largest_difference(model.encode_documents(TEXTS), prefixed.encode_documents(TEXTS)) == 0
    bare = ColPaliModel(folders(name), device="cpu", query_prefix="")
    queries = [f"Question : {text}" for text in TEXTS]
    assert largest_difference(prefixed.encode_queries(TEXTS), bare.encode_queries(queries)) < 1e-6
    assert prefixed.fingerprint["query_prefix"] == "Question : "
    assert {key for key in model.fingerprint if model.fingerprint[key] != prefixed.fingerprint[key]} == {
        "query_prefix"
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_text_too_long_for_the_model_loses_its_end(
    name: str, models: Callable[[str], ColPaliModel]
) -> None:
    model = models(name)
    texts = ["cat" * POSITIONS, "cat" * 9]  # a token for each letter
    assert model.count_truncated(texts) == 1
    long, short = model.encode_documents(texts)
    assert POSITIONS - 2 <= len(long) <= POSITIONS
    assert 27 <= len(short) < 40


@pytest.mark.parametrize("name", ["colpali", "colqwen2", "colidefics3", "colgemma3", "colqwen2-native"])
def test_the_name_of_an_image_token_in_a_text_is_no_image(
    name: str, models: Callable[[str], ColPaliModel]
) -> None:
    model = models(name)
    texts = ["a cat <image> and <|image_pad|> <image_soft_token> <start_of_image> <pad> a dog", "the rain"]
    assert largest_difference(model.encode_documents(texts)[1:], model.encode_documents(texts[1:])) < 1e-5


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ("a text", TypeError, r"list of documents, not a bare str"),
        (IMAGES[0], TypeError, "list of images"),
        (["a", 3], TypeError, "position 1 is neither a str nor a PIL image but int"),
        ([IMAGES[0], " "], ValueError, "position 1 is empty"),
        ([noise(500, 2)], ValueError, "aspect ratio"),
        (["a", Image.new("RGB", (0, 5))], ValueError, r"position 1 is an image without pixels, \(0, 5\)"),
    ],
)
def test_what_cannot_be_encoded_says_why(
    items: Any, error: type[Exception], message: str, models: Callable[[str], ColPaliModel]
) -> None:
    with pytest.raises(error, match=message):
        models("colqwen2").encode_documents(items)


def test_a_text_without_any_token_is_refused(
    models: Callable[[str], ColPaliModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models("colqwen2")
    ends = model._token_ends
    monkeypatch.setattr(model, "_token_ends", lambda text: [] if text == "\u200b" else ends(text))
    with pytest.raises(ValueError, match=r"position 1.*has no token"):
        model.encode_documents([IMAGES[0], "\u200b"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_vectors_that_are_not_finite_are_refused(dtype: str, folders: Callable[[str], Path]) -> None:
    model = ColPaliModel(folders("colqwen2"), device="cpu", dtype=dtype)
    model._model.custom_text_proj.weight.data.fill_(float("inf"))
    with pytest.raises(ModelError, match=f"not finite in {dtype}: load it with dtype='float32'"):
        model.encode_documents(["a cat"])


# --- batches


@pytest.mark.parametrize("name", ["colpali", "colqwen2", "colidefics3", "colgemma3"])
def test_a_batch_stays_within_the_budget_of_pixels(
    name: str, models: Callable[[str], ColPaliModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models(name)
    images, sizes = IMAGES * 4, []
    costs = [model._pixels(image) for image in images]
    forward = model._forward

    def counting(network: Any, inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        # What we reckon is what the model is given, within the rounding to whole patches.
        if name == "colqwen2":
            given = int(inputs["image_grid_thw"].prod(dim=1).max()) * 14**2
        else:
            given = inputs["pixel_values"][0].numel() // 3
        assert given <= 1.5 * max(costs)
        return forward(network, inputs)

    monkeypatch.setattr(model, "_forward", counting)
    monkeypatch.setattr(model, "batch_pixels", 3 * max(costs))
    few = model.encode_documents(images)
    assert sum(sizes) == len(images)
    assert len(sizes) > 2
    assert all(size * min(costs) <= model.batch_pixels for size in sizes)
    monkeypatch.setattr(model, "batch_pixels", 1)
    sizes.clear()
    assert largest_difference(few, model.encode_documents(images)) < 1e-5
    assert set(sizes) == {1}


def test_one_thread_at_a_time(models: Callable[[str], ColPaliModel]) -> None:
    model = models("colqwen2")
    alone = model.encode_queries([*TEXTS, IMAGES[0]])
    found: list[list[np.ndarray]] = []
    threads = [
        threading.Thread(target=lambda: found.append(model.encode_queries([*TEXTS, IMAGES[0]])))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(largest_difference(alone, matrices) < 1e-5 for matrices in found)


def test_bfloat16_and_a_device_map(
    folders: Callable[[str], Path], models: Callable[[str], ColPaliModel]
) -> None:
    half = ColPaliModel(folders("colqwen2"), device="cpu", dtype="bfloat16")
    spread = ColPaliModel(folders("colqwen2"), device_map={"": "cpu"}, dtype="float32")
    exact = models("colqwen2").encode_documents(IMAGES)
    assert largest_difference(exact, spread.encode_documents(IMAGES)) < 1e-6
    rounded = half.encode_documents(IMAGES)
    assert all(np.abs(np.linalg.norm(matrix, axis=1) - 1).max() < 1e-5 for matrix in rounded)
    assert 0 < largest_difference(exact, rounded) < 0.3
    assert half.fingerprint == models("colqwen2").fingerprint == spread.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_what_is_projected_on_another_device_comes_to_where_the_mask_is(
    name: str, folders: Callable[[str], Path]
) -> None:
    from torch import empty
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = ColPaliModel(folders(name), device_map={"": "cpu"})
    *_, projection = model._model.children()
    assert projection.out_features == model.dim
    with FakeTensorMode():  # A tensor that says it is on a GPU, where there is none.
        projection.forward = lambda hidden: empty(1, 2, model.dim, device="cuda:1")
        assert projection(None).device.type == "cpu"


# --- heat maps


@pytest.mark.parametrize("name", NAMES)
def test_the_patches_of_an_image_lie_where_they_are(name: str, folders: Callable[[str], Path]) -> None:
    """A change in a corner of an image changes the patches of that corner most."""
    model = ColPaliModel(folders(name), device="cpu")
    for weights, tensor in model._model.state_dict().items():
        if re.search(r"attn.*(proj|Wo)\.weight$", weights):
            tensor *= 0.01  # Attention with random weights would mix everything with everything.
    image = noise(128, 96)
    patches = model.encode_patches(image)
    rows, columns, dim = patches.shape
    assert dim == model.dim
    assert min(rows, columns) >= 3
    assert rows == columns or name.startswith("colqwen")
    if name.startswith(("colidefics3", "colmodernvbert")):  # which see tiles of 2 by 2 patches here
        assert model.encode_patches(noise(64, 20)).shape[:2] == (2, 4)
        assert model.encode_patches(noise(20, 64)).shape[:2] == (4, 2)
    everything = model.encode_documents([image])[0]
    assert all((np.abs(everything - patch).max(axis=1) < 1e-5).any() for patch in patches.reshape(-1, dim))
    for x, y in ((0, 0), (64, 0), (0, 48), (64, 48)):
        changed = image.copy()
        changed.paste(noise(64, 48, 9), (x, y))
        moved = np.linalg.norm(model.encode_patches(changed) - patches, axis=2)
        quarter = (
            slice(y * rows // 96, (y + 48) * rows // 96),
            slice(x * columns // 128, (x + 64) * columns // 128),
        )
        inside = moved[quarter].mean()
        moved[quarter] = 0
        assert inside > 2 * moved.mean()


@pytest.mark.parametrize("name", ["colpali", "colqwen2", "colidefics3"])
def test_a_heat_map_holds_what_maxsim_takes(name: str, models: Callable[[str], ColPaliModel]) -> None:
    model = models(name)
    for query in (TEXTS[0], IMAGES[1]):
        maps = image_heat_maps(model, query, IMAGES[0])
        (vectors,) = model.encode_queries([query])
        (matrix,) = model.encode_documents([IMAGES[0]])
        assert maps.shape == (len(vectors), *model.encode_patches(IMAGES[0]).shape[:2])
        assert (maps.max(axis=(1, 2)) <= (vectors @ matrix.T).max(axis=1) + 1e-5).all()


def test_a_heat_map_is_drawn_over_its_image() -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 200))
    drawn = draw_heat_map(image, np.array([[0, 1], [0, 1]], np.float32))
    assert drawn.size == image.size
    left, right = drawn.getpixel((0, 10)), drawn.getpixel((39, 10))
    assert left[0] == left[1] == left[2]
    assert right[0] > 50
    assert draw_heat_map(image, np.ones((2, 2), np.float32)).size == image.size
