"""`ColPaliModel`: every family from a tiny checkpoint on disk, and what is no such checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    ColBERTModel,
    ColPaliModel,
    LateInteractionPipeline,
    MissingExtraError,
    ModelError,
)
from late_interaction.encoders import load_model
from late_interaction.encoders.checkpoint import content_hash
from late_interaction.encoders.colpali_families import FAMILIES
from late_interaction.explain import draw_heat_map, image_heat_maps
from tests.support import checkpoints

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.visual_checkpoints import CLASSES, POSITIONS, adapter_checkpoint, visual_checkpoint

pytestmark = pytest.mark.slow

NAMES = [family.name for family in FAMILIES]
DIMS = {name: 16 if name.endswith("-native") else 320 if name == "colqwen3" else 128 for name in NAMES}
# What the library that is installed puts before a query; a checkpoint of another time needs query_prefix=.
PREFIXES = {"colpali-native": "Question: ", "colqwen2-native": "Query: ", "colgemma3": "Query: "}
TEXTS = ["the cat", "a chart of the rain on a page .", "dog"]


def noise(width: int, height: int, seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Several shapes, so that batches have padding: of tokens, patches and tiles.
IMAGES = [noise(50, 40), noise(30, 90, 1), noise(64, 20, 2), noise(64, 64, 3)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = visual_checkpoint(tmp_path_factory.mktemp(name), name)
        return made[name]

    return folder


@pytest.fixture(scope="module")
def models(folders: Callable[[str], Path]) -> Callable[[str], ColPaliModel]:
    made: dict[str, ColPaliModel] = {}

    def model(name: str) -> ColPaliModel:
        if name not in made:
            made[name] = ColPaliModel(folders(name), device="cpu")
        return made[name]

    return model


def largest_difference(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    assert [matrix.shape for matrix in some] == [matrix.shape for matrix in others]
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


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
    assert (
        largest_difference(model.encode_queries(TEXTS), [own(processor.process_queries([t])) for t in TEXTS])
        < 1e-5
    )
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
    with pytest.raises(ModelError, match=f"not finite in torch.{dtype}: load it with dtype='float32'"):
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

    def counting(inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        # What we reckon is what the model is given, within the rounding to whole patches.
        if name == "colqwen2":
            given = int(inputs["image_grid_thw"].prod(dim=1).max()) * 14**2
        else:
            given = inputs["pixel_values"][0].numel() // 3
        assert given <= 1.5 * max(costs)
        return forward(inputs)

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


# --- fingerprints


def test_a_fingerprint_is_json_and_tells_checkpoints_apart(
    folders: Callable[[str], Path], models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    prints = [json.dumps(dict(models(name).fingerprint)) for name in NAMES]
    assert len(set(prints)) == len(NAMES)
    moved = shutil.copytree(folders("colqwen2"), tmp_path / folders("colqwen2").name)
    assert ColPaliModel(moved, device="cpu").fingerprint == models("colqwen2").fingerprint
    change(moved / "model.safetensors", lambda name, weight: weight * 1.001 if "custom" in name else weight)
    assert ColPaliModel(moved, device="cpu").fingerprint != models("colqwen2").fingerprint


def test_a_checkpoint_in_the_hubs_cache_is_the_one_in_a_folder(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache links to large files named by their SHA-256, which need not be read again to know it."""
    folder = shutil.copytree(folders("colqwen2"), tmp_path / "snapshots" / "1")
    weights = folder / "model.safetensors"
    blob = tmp_path / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    read: list[str] = []
    digest = hashlib.file_digest

    def noting(stream: Any, name: str) -> Any:
        read.append(Path(stream.name).name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", noting)
    assert content_hash(folder) == content_hash(folders("colqwen2"))
    assert read.count("model.safetensors") == 1  # that in the folder
    assert read.count("config.json") == 2


# --- adapters

LINEAR = r"(q_proj|o_proj|Wqkv|Wo)"
TEXT_LAYERS = rf".*(language_model|text_model).*{LINEAR}$"


def projection_of(name: str) -> str:
    return "linear" if name == "colidefics3" else "custom_text_proj"


@pytest.mark.parametrize("name", CLASSES)
def test_an_adapter_is_opened_as_what_its_base_is(
    name: str, folders: Callable[[str], Path], models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    targets = f"{TEXT_LAYERS}|.*{projection_of(name)}$"
    folder = adapter_checkpoint(tmp_path / "no-name-of-a-model", folders(name), name, target_modules=targets)
    adapted, base = ColPaliModel(folder, device="cpu"), models(name)
    assert (adapted.family, adapted.dim) == (name, DIMS[name])
    assert adapted.fingerprint["base_content"] == base.fingerprint["content"]
    for items in (TEXTS, IMAGES):
        ours, plain = adapted.encode_documents(items), base.encode_documents(items)
        assert [matrix.shape for matrix in ours] == [matrix.shape for matrix in plain]
        assert min(np.abs(a - b).max() for a, b in zip(ours, plain, strict=True)) > 0.01
    assert isinstance(load_model(folder, device="cpu"), ColPaliModel)


@pytest.mark.parametrize(
    ("name", "base_key", "adapter_key"),
    [
        ("colqwen2", ("language_model.", "model."), ("model.language_model.", "model.model.")),
        ("colqwen2.5", ("language_model.", "model."), ("model.language_model.", "model.model.")),
        (
            "colpali",
            ("no such key", ""),
            ("model.model.model.language_model.", "model.model.language_model.model."),
        ),
    ],
)
def test_an_adapter_of_before_transformers_5_gives_the_same(
    name: str,
    base_key: tuple[str, str],
    adapter_key: tuple[str, str],
    folders: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Most published adapters name the weights as the models of their time did."""
    base = shutil.copytree(folders(name), tmp_path / "base")
    targets = f"{TEXT_LAYERS}|.*{projection_of(name)}$"
    folder = adapter_checkpoint(tmp_path / "adapter", base, name, target_modules=targets)
    new = ColPaliModel(folder, device="cpu").encode_documents([*TEXTS, *IMAGES])
    renamed = 0
    for file, (now, then) in (
        (base / "model.safetensors", base_key),
        (folder / "adapter_model.safetensors", adapter_key),
    ):
        weights = {key.replace(now, then, 1): weight for key, weight in load_file(file).items()}
        renamed += len(weights.keys() - load_file(file).keys())
        save_file(weights, file, metadata={"format": "pt"})
    assert renamed > 4
    old = ColPaliModel(folder, device="cpu").encode_documents([*TEXTS, *IMAGES])
    assert largest_difference(new, old) < 1e-6


@pytest.mark.parametrize("name", ["colqwen2", "colidefics3"])
def test_a_projection_may_be_whole_in_the_adapter(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """The base is then a plain vision-language model; without the adapter's it would be random."""
    projection = projection_of(name)
    settings: dict[str, Any] = {"target_modules": TEXT_LAYERS, "modules_to_save": [projection]}
    whole = adapter_checkpoint(tmp_path / "whole", folders(name), name, **settings)
    before = ColPaliModel(whole, device="cpu").encode_queries(TEXTS)
    bare = shutil.copytree(folders(name), tmp_path / "bare")
    change(bare / "model.safetensors", lambda key, weight: None if key.startswith(projection) else weight)
    edit(whole / "adapter_config.json", base_model_name_or_path=str(bare))
    assert largest_difference(before, ColPaliModel(whole, device="cpu").encode_queries(TEXTS)) < 1e-6
    targets = f"{TEXT_LAYERS}|.*{projection}$"
    part = adapter_checkpoint(tmp_path / "part", folders(name), name, target_modules=targets)
    edit(part / "adapter_config.json", base_model_name_or_path=str(bare))
    with pytest.raises(ModelError, match=rf"lacks weights of .*{projection}"):
        ColPaliModel(part, device="cpu")


def test_an_adapter_whose_weights_have_no_place_is_refused(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = adapter_checkpoint(
        tmp_path / "adapter", folders("colqwen2"), "colqwen2", target_modules=["q_proj"]
    )
    file = folder / "adapter_model.safetensors"
    save_file({name.replace("q_proj", "x_proj"): w for name, w in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"lacks weights of ColQwen2|have no place in ColQwen2"):
        ColPaliModel(folder, device="cpu")


# --- what is no such checkpoint


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change(file: Path, how: Callable[[str, Any], Any]) -> None:
    weights = {name: how(name, weight) for name, weight in load_file(file).items()}
    save_file({k: w for k, w in weights.items() if w is not None}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("name", NAMES)
def test_a_projection_is_never_made_up(name: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders(name), tmp_path / "model")
    # Some families save it behind "model." or "base_model.model.".
    projection = re.compile(r"(^|\.)(custom_text_proj|embedding_proj_layer)\.|^linear\.")

    def drop(key: str, weight: Any) -> Any:
        return None if projection.search(key) else weight

    change(folder / "model.safetensors", drop)
    with pytest.raises(ModelError, match=r"lacks weights of .* would be random"):
        ColPaliModel(folder, device="cpu")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_family(folder: Path) -> None:
    edit(folder / "config.json", architectures=["ColLlava"], model_type="llava")


def text_model(folder: Path) -> None:
    shutil.rmtree(folder)
    checkpoints.stanford_checkpoint(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_weights, "no weights in safetensors"),
        (
            other_family,
            r"unknown family.*ColLlava.*'llava'.*Known are ColPali \(paligemma\), ColQwen2",
        ),
        (text_model, "is not a model of images: open it with ColBERTModel"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "could not be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "could not be loaded"),
    ],
)
def test_what_is_no_such_checkpoint_says_so(
    spoil: Callable[[Path], Any], message: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders("colqwen2"), tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        ColPaliModel(folder, device="cpu")


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int8"}, {"device": "cpu", "device_map": "auto"}, {"batch_pixels": 0}],
)
def test_a_wrong_argument_is_a_value_error(options: dict[str, Any], folders: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"dtype|device|batch_pixels"):
        ColPaliModel(folders("colqwen2"), **options)


def test_without_the_engine_the_extra_is_named(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "colpali_engine", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'late-interaction\[colpali\]'"):
        ColPaliModel(folders("colqwen2"), device="cpu")
    assert ColPaliModel(folders("colqwen2-native"), device="cpu").family == "colqwen2-native"


# --- the right class


def test_load_model_goes_by_the_config(folders: Callable[[str], Path], tmp_path: Path) -> None:
    text = checkpoints.pylate_checkpoint(tmp_path / "colqwen2-in-name-only")
    assert isinstance(load_model(text, device="cpu"), ColBERTModel)
    assert isinstance(load_model(folders("colpali-native"), device="cpu", query_prefix="x"), ColPaliModel)
    with pytest.raises(TypeError, match="query_prefix"):
        load_model(text, query_prefix="x")
    with pytest.raises(ModelError, match="open it with ColPaliModel"):
        ColBERTModel(folders("colqwen2"))


def test_loading_says_nothing(
    folders: Callable[[str], Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ColPaliModel(folders("colqwen2"), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
