"""A checkpoint is never silently used as another model than its authors mean."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from late_interaction import ColBERTModel, ModelError, SyncPipeline
from tests.support import checkpoints

TEXT = "the cat and the dog search the wing of the flow of heat"


def with_code(path: Path) -> Path:
    """A checkpoint whose own code turns the hidden states round."""
    folder = checkpoints.stanford_checkpoint(path)
    names = {"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel"}
    checkpoints._merge_json(folder / "config.json", {"auto_map": names})
    (folder / "configuration_x.py").write_text(
        "from transformers import BertConfig\nclass XConfig(BertConfig):\n    model_type = 'bert'\n"
    )
    (folder / "modeling_x.py").write_text(
        "from transformers import BertModel\nfrom .configuration_x import XConfig\n"
        "class XModel(BertModel):\n    config_class = XConfig\n    def forward(self, *a, **k):\n"
        "        o = super().forward(*a, **k)\n        o.last_hidden_state = -o.last_hidden_state.roll(1, -1)\n"
        "        return o\n"
    )
    return folder


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_code(tmp_path_factory.mktemp("coded") / "coded")


def test_code_that_is_left_out_is_told(coded: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "late_interaction"):
        stock = ColBERTModel(coded, device="cpu")
        [record] = caplog.records
        assert "trust_remote_code=True" in record.getMessage()
        caplog.clear()
        own = ColBERTModel(coded, device="cpu", trust_remote_code=True)
        assert not caplog.records
    assert np.abs(stock.encode_documents([TEXT])[0] - own.encode_documents([TEXT])[0]).max() > 0.01
    assert stock.fingerprint["remote_code"] == "not run"
    assert own.fingerprint["remote_code"].startswith("sha256:")


def test_changed_code_is_another_fingerprint(coded: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(coded, tmp_path / "coded"))
    before = ColBERTModel(changed, device="cpu", trust_remote_code=True).fingerprint
    assert before == ColBERTModel(coded, device="cpu", trust_remote_code=True).fingerprint
    (changed / "modeling_x.py").write_text((changed / "modeling_x.py").read_text() + "\n# changed\n")
    assert ColBERTModel(changed, device="cpu", trust_remote_code=True).fingerprint != before


def test_an_index_of_an_earlier_release_still_opens(coded: Path) -> None:
    model = ColBERTModel(coded, device="cpu")
    earlier = {k: v for k, v in model.fingerprint.items() if k not in ("remote_code", "long_documents")}
    assert dict(model.as_built(earlier).fingerprint) == earlier
    assert model.as_built(model.fingerprint).fingerprint == model.fingerprint


def test_a_checkpoint_without_code_has_the_fingerprint_it_always_had(tmp_path: Path) -> None:
    model = ColBERTModel(checkpoints.stanford_checkpoint(tmp_path), device="cpu", trust_remote_code=True)
    assert "remote_code" not in model.fingerprint


def test_an_error_about_missing_weights_names_the_code(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = with_code(tmp_path / "jina")
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace(".attention.self.query", ".mixer.Wqkv"): w for name, w in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"would be random: .*trust_remote_code=True"):
        ColBERTModel(folder, device="cpu")


def test_a_trained_head_that_would_not_be_used_is_an_error(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "head")
    checkpoints._merge_json(folder / "config.json", {"architectures": ["ColBERT"]})
    (folder / "artifact.metadata").unlink()
    with pytest.raises(ModelError, match=r"head .*linear\.weight"):
        ColBERTModel(folder, device="cpu")


def test_files_of_a_head_beside_a_plain_encoder_are_an_error(tmp_path: Path) -> None:
    folder = checkpoints.plain_checkpoint(tmp_path / "bge", sentence_transformers=False)
    ColBERTModel(folder, device="cpu")
    checkpoints._dense(folder / "1_Dense", 0)
    with pytest.raises(ModelError, match=r"head .*1_Dense"):
        ColBERTModel(folder, device="cpu")


def test_a_token_pooling_of_a_checkpoint_is_taken_off_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    folder = checkpoints.native_checkpoint(tmp_path / "native")
    encoder = MultiVectorEncoder(str(folder), device="cpu")
    encoder.append(HierarchicalTokenPooling(pool_factor=2))
    encoder.save_pretrained(str(tmp_path / "pooling"), create_model_card=False)
    with caplog.at_level(logging.WARNING, "late_interaction"):
        model = ColBERTModel(tmp_path / "pooling", device="cpu")
    assert any("HierarchicalTokenPooling" in record.getMessage() for record in caplog.records)
    (matrix,) = model.encode_documents([TEXT])
    assert len(matrix) == len(model.document_spans(TEXT))
    np.testing.assert_allclose(
        matrix, ColBERTModel(folder, device="cpu").encode_documents([TEXT])[0], atol=1e-6
    )


def test_a_checkpoint_without_its_mask_is_an_error(tmp_path: Path) -> None:
    """HF_ColBERT in config.json beside PyLate's modules, and no model_type: sentence-transformers adds no mask."""
    folder = checkpoints.pylate_checkpoint(tmp_path / "both", model_type=None)
    checkpoints._merge_json(folder / "config.json", {"architectures": ["HF_ColBERT"]})
    with pytest.raises(ModelError, match="without its query expansion and skiplist"):
        ColBERTModel(folder, device="cpu")


def test_code_is_part_of_what_an_index_was_built_with(coded: Path, tmp_path: Path) -> None:
    from late_interaction import IndexMismatchError

    with SyncPipeline(tmp_path, ColBERTModel(coded, device="cpu", trust_remote_code=True)) as pipeline:
        pipeline.index_documents([{"content": TEXT}])
    with (
        pytest.raises(IndexMismatchError, match="remote_code"),
        SyncPipeline(tmp_path, ColBERTModel(coded, device="cpu")) as pipeline,
    ):
        pipeline.search("cat")


def test_a_pylate_marker_stands_behind_the_first_token(tmp_path: Path) -> None:
    model = ColBERTModel(checkpoints.decoder_checkpoint(tmp_path / "decoder"), device="cpu")
    for role, marker in (("query", "[Q] "), ("document", "[D] ")):
        features = model._encoder.preprocess(["hello"], prompt=model._encoder.prompts[role], task=role)
        tokens = model._tokenizer.convert_ids_to_tokens(features["input_ids"][0].tolist())
        assert tokens[:6] == ["h", marker, "e", "l", "l", "o"]
    assert model.fingerprint["markers"] == "behind the first token"
    assert model.document_spans("héy") == [(0, 1), (0, 0), (1, 2), (1, 2), (2, 3)]
    assert model.count_tokens(["hello"]) == [6]


@pytest.mark.parametrize("begins", [False, True])
def test_an_index_with_its_markers_first_still_opens(tmp_path: Path, begins: bool) -> None:
    """Earlier releases put each marker before the text, as sentence-transformers does."""
    from sentence_transformers import MultiVectorEncoder

    folder = checkpoints.decoder_checkpoint(tmp_path / "decoder", begins=begins)
    model = ColBERTModel(folder, device="cpu", document_length=30)
    kept = {name: value for name, value in model.fingerprint.items() if name != "markers"}
    earlier = model.as_built(kept)
    assert dict(earlier.fingerprint) == kept
    theirs = MultiVectorEncoder(str(folder), device="cpu").encode_document([TEXT[:20]], convert_to_numpy=True)
    np.testing.assert_allclose(earlier.encode_documents([TEXT[:20]])[0], theirs[0], atol=1e-6)
    assert np.abs(model.encode_documents([TEXT[:20]])[0] - theirs[0]).max() > 0.01
    assert model.as_built(model.fingerprint) is model


def test_where_it_makes_no_difference_nothing_is_told(tmp_path: Path) -> None:
    model = ColBERTModel(checkpoints.pylate_checkpoint(tmp_path / "pylate"), device="cpu")
    assert "markers" not in model.fingerprint
    assert type(model._tokenizer).__name__ != "MarkedTokenizer"


@pytest.mark.parametrize("side", ["left", "right"])
def test_such_a_texts_vectors_do_not_depend_on_its_batch(
    tmp_path: Path, side: Literal["left", "right"]
) -> None:
    folder = checkpoints.decoder_checkpoint(tmp_path / "decoder", do_query_expansion=False, padding_side=side)
    model = ColBERTModel(folder, device="cpu")
    texts = [TEXT[:5], TEXT[:20], "wing", TEXT * 4]
    for encode in (model.encode_documents, model.encode_queries):
        for together, text in zip(encode(texts), texts, strict=True):
            np.testing.assert_allclose(together, encode([text])[0], atol=1e-5)


@pytest.mark.parametrize("place", ["0_Transformer/config.json", "tokenizer_config.json"])
def test_code_in_a_modules_folder_or_of_a_tokenizer_is_told(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoints.pylate_checkpoint(tmp_path / "model")
    if place.startswith("0_"):
        (folder / "0_Transformer").mkdir()
        for file in [file for file in folder.iterdir() if file.is_file()]:
            if file.name not in ("modules.json", "config_sentence_transformers.json"):
                file.rename(folder / "0_Transformer" / file.name)
        entries = json.loads((folder / "modules.json").read_text())
        entries[0]["path"] = "0_Transformer"
        (folder / "modules.json").write_text(json.dumps(entries))
    checkpoints._merge_json(folder / place, {"auto_map": {"AutoTokenizer": [None, "own.Tokenizer"]}})
    with caplog.at_level(logging.WARNING, "late_interaction"):
        model = ColBERTModel(folder, device="cpu")
    assert "trust_remote_code=True" in caplog.text
    assert model.fingerprint["remote_code"] == "not run"
