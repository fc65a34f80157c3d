"""`MultiVectorModel`: checkpoints that only sentence-transformers knows, of texts and images."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from sentence_transformers import MultiVectorEncoder

import late_interaction
from late_interaction import ColBERTModel, ModelError, SyncPipeline, load_model
from late_interaction.encoders.auto import model_class
from late_interaction.encoders.colpali import ColPaliModel
from late_interaction.encoders.fallback import why_sentence_transformers
from late_interaction.encoders.multi_vector import MultiVectorModel
from tests.support import checkpoints
from tests.support.visual_checkpoints import modules_checkpoint
from tests.unit.visual_encoders.models import IMAGES

TEXTS = ["the chart of rain", "a cat and a dog on the page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return modules_checkpoint(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def model(folder: Path) -> MultiVectorModel:
    made = load_model(folder, device="cpu")
    assert isinstance(made, MultiVectorModel)
    return made


def edited(folder: Path, target: Path, file: str, change: Any) -> Path:
    """Return a copy with one JSON file changed."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text())
    content = change(content) or content
    (target / file).write_text(json.dumps(content))
    return target


def test_it_is_chosen_where_our_own_classes_do_not_know_the_layout(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "late_interaction"):
        assert model_class(folder) is MultiVectorModel
    assert "its projection is a module of sentence-transformers" in caplog.text
    assert "MultiVectorModel" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("role", ["query", "document"])
def test_vectors_are_those_of_sentence_transformers(model: MultiVectorModel, folder: Path, role: str) -> None:
    reference = MultiVectorEncoder(str(folder), device="cpu")
    encode = {"query": model.encode_queries, "document": model.encode_documents}[role]
    expected = {"query": reference.encode_query, "document": reference.encode_document}[role]
    items = [TEXTS[0], IMAGES[0], TEXTS[1], IMAGES[1]]
    ours = encode(items)
    theirs = [expected([item], convert_to_numpy=True)[0] for item in items]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == np.float32
        assert mine.shape == other.shape
        assert mine.shape[1] == model.dim == 16
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_a_query_is_not_encoded_as_a_document(model: MultiVectorModel) -> None:
    assert len(model.encode_queries(TEXTS[:1])[0]) == len(model.encode_documents(TEXTS[:1])[0]) + 2


@pytest.mark.slow
def test_an_index_of_texts_and_images(model: MultiVectorModel, folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"content": text} for text in TEXTS] + [{"image": IMAGES[0]}]
    with SyncPipeline(tmp_path / "index", model) as index:
        index.index_documents(rows)
        assert index.search(IMAGES[0], k=1)[0].content_type == "image"
    with late_interaction.open(tmp_path / "index", model=folder, device="cpu") as index:
        assert isinstance(index.model, MultiVectorModel)
        assert len(index.search(TEXTS[0])) == 3


def test_the_fingerprint_tells_backend_and_versions(
    model: MultiVectorModel, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = dict(model.fingerprint)
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint["backend"].startswith("sentence-transformers 6.")
    assert ", transformers 5." in fingerprint["backend"]
    assert model.as_built(fingerprint) is model
    earlier = {**fingerprint, "backend": "sentence-transformers 6.2.0, transformers 5.9.9"}
    with caplog.at_level(logging.WARNING, "late_interaction"):
        assert dict(model.as_built(earlier).fingerprint) == earlier
    assert "transformers 5.9.9" in caplog.text
    assert model.as_built({**earlier, "content": "another"}) is model


def test_texts_that_are_cut_are_told(model: MultiVectorModel, folder: Path, tmp_path: Path) -> None:
    long = "a page " * 20
    assert model.unread_shares([TEXTS[0], long]) == [0.0, 0.0]
    assert model.count_tokens([TEXTS[0]]) == [len(model.encode_documents(TEXTS[:1])[0])]
    short = edited(
        folder, tmp_path / "short", "sentence_bert_config.json", lambda c: {**c, "document_length": 60}
    )
    cutting = MultiVectorModel(short, device="cpu")
    assert cutting.document_length == 60
    assert cutting.unread_shares([TEXTS[0], long]) == [0.0, None]
    assert cutting.count_truncated([TEXTS[0], long]) == 1
    assert cutting.count_tokens([]) == []
    assert len(cutting.encode_documents([long])[0]) == 60


def test_a_special_token_in_a_text_is_text(model: MultiVectorModel) -> None:
    (matrix,) = model.encode_documents(["<|image_pad|> and <|im_end|>"])
    assert len(matrix) > len(model.encode_documents(["and"])[0])


def test_wrong_items_are_refused(model: MultiVectorModel) -> None:
    with pytest.raises(TypeError, match="not a bare image"):
        model.encode_documents(IMAGES[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="neither a str nor a PIL image but bytes"):
        model.encode_documents([b"image"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="empty"):
        model.encode_queries(["a", " "])
    with pytest.raises(ValueError, match="batch_size"):
        MultiVectorModel(model.model_name, batch_size=0)


def test_our_own_classes_come_first(tmp_path: Path, text_model: Path, visual_model: Path) -> None:
    native = checkpoints.native_checkpoint(tmp_path / "native")
    for folder, expected in (
        (text_model, ColBERTModel),
        (native, ColBERTModel),
        (visual_model, ColPaliModel),
    ):
        assert why_sentence_transformers(folder) is None
        assert model_class(folder) is expected
        with pytest.raises(ModelError, match="load_model"):
            MultiVectorModel(folder)


@pytest.mark.slow
def test_a_router_encodes_queries_and_documents_by_modules_of_their_own(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Normalize, Router, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    parts = [
        checkpoints.plain_checkpoint(tmp_path / str(seed), sentence_transformers=False, seed=seed)
        for seed in (0, 1)
    ]
    query, document = ([Transformer(str(part))] for part in parts)
    normalize = Normalize(module_input_name="token_embeddings", module_output_name="token_embeddings")
    routed = Router.for_query_document(query_modules=query, document_modules=document)
    encoder = MultiVectorEncoder(modules=[routed, MultiVectorMask(), normalize], device="cpu")
    encoder.save_pretrained(str(tmp_path / "model"))
    model = load_model(tmp_path / "model", device="cpu")
    assert isinstance(model, MultiVectorModel)
    assert not model.supports_images
    for ours, theirs in (
        (model.encode_queries(TEXTS), encoder.encode_query(TEXTS, convert_to_numpy=True)),
        (model.encode_documents(TEXTS), encoder.encode_document(TEXTS, convert_to_numpy=True)),
    ):
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
    assert np.abs(model.encode_queries(TEXTS)[0] - model.encode_documents(TEXTS)[0]).max() > 0.1
    with pytest.raises(TypeError, match="encodes texts, not Image"):
        model.encode_documents([IMAGES[0]])
    # A change of the weights within is another fingerprint.
    from safetensors.torch import load_file, save_file

    weights = next((tmp_path / "model").rglob("*/model.safetensors"))
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert load_model(tmp_path / "model", device="cpu").fingerprint["content"] != model.fingerprint["content"]


# --- nothing is run, unpickled or random


def test_code_is_not_run_unless_asked(folder: Path, tmp_path: Path) -> None:
    def own_module(modules: list[dict[str, Any]]) -> None:
        modules.insert(3, {"idx": 3, "name": "own", "path": "3_Own", "type": "own_module.Turned"})

    coded = edited(folder, tmp_path / "coded", "modules.json", own_module)
    (coded / "3_Own").mkdir()
    (coded / "own_module.py").write_text(
        "import torch\n"
        "from sentence_transformers.base.modules import Module\n"
        "class Turned(Module):\n"
        "    def forward(self, features, **kwargs):\n"
        "        features['token_embeddings'] = -features['token_embeddings'].roll(1, -1)\n"
        "        return features\n"
        "    @classmethod\n"
        "    def load(cls, *args, **kwargs):\n"
        "        return cls()\n"
        "    def save(self, *args, **kwargs):\n"
        "        pass\n"
    )
    with pytest.raises(ModelError, match=r"own_module.Turned.*trust_remote_code=True"):
        load_model(coded, device="cpu")
    trusted = load_model(coded, device="cpu", trust_remote_code=True)
    plain = load_model(folder, device="cpu")
    (ours,), (other,) = (made.encode_documents(TEXTS[:1]) for made in (trusted, plain))
    np.testing.assert_allclose(ours, -np.roll(other, 1, axis=1), atol=1e-5)
    assert trusted.fingerprint["remote_code"].startswith("sha256:")


def test_weights_in_a_pickle_are_refused_unless_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    weights = pickled / "1_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ModelError, match=r"pytorch_model.bin.*late-interaction convert"):
        load_model(pickled, device="cpu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    (ours,) = load_model(pickled, device="cpu", allow_pickle=True).encode_documents(TEXTS[:1])
    np.testing.assert_allclose(
        ours, load_model(folder, device="cpu").encode_documents(TEXTS[:1])[0], atol=1e-6
    )


def test_missing_weights_are_an_error(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    lacking = tmp_path / "lacking"
    shutil.copytree(folder, lacking)
    weights = load_file(lacking / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    del weights[name]
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="would be random"):
        load_model(lacking, device="cpu")


def test_a_pooling_of_its_own_is_refused(folder: Path, tmp_path: Path) -> None:
    def pooling(modules: list[dict[str, Any]]) -> None:
        kind = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling"
        modules.append({"idx": 4, "name": "4", "path": "4_HierarchicalTokenPooling", "type": kind})

    pooled = edited(folder, tmp_path / "pooled", "modules.json", pooling)
    part = pooled / "4_HierarchicalTokenPooling"
    part.mkdir()
    (part / "config.json").write_text(json.dumps({"pool_factor": 2}))
    with pytest.raises(ModelError, match=r"pools tokens by a HierarchicalTokenPooling.*doc_pool_factor"):
        load_model(pooled, device="cpu")


def test_a_visual_family_of_ours_with_files_of_sentence_transformers_beside_it_stays_ours(
    visual_model: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    shutil.copytree(visual_model, beside)
    (beside / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "MultiVectorEncoder"})
    )
    kinds = ("base.modules.transformer.Transformer", "multi_vector_encoder.modules.MultiVectorMask")
    modules = [
        {"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (beside / "modules.json").write_text(json.dumps(modules))
    assert model_class(beside) is ColPaliModel


def test_a_retriever_of_transformers_that_is_no_family_of_ours(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["NeoMMEForRetrieval"], "model_type": "neomme", "vision_config": {}})
    )
    assert why_sentence_transformers(tmp_path) == "it is a NeoMMEForRetrieval of transformers"
