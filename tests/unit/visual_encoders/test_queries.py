"""A query is written as it was when the model was trained: by the registry, and by the checkpoint's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from late_interaction import ColPaliModel
from late_interaction.encoders.colpali_families import FAMILIES
from late_interaction.encoders.colpali_queries import QueryForm, library_form, trained_form
from late_interaction.encoders.registry import KNOWN_MODELS
from tests.unit.visual_encoders.models import TEXTS, largest_difference

pytestmark = pytest.mark.slow

# By colpali-engine 0.3.1 (ColPali) and 0.3.4 to 0.3.10 (the others), with which they were trained.
TRAINED = {
    "colpali": "<bos>Question: the cat" + "<pad>" * 10 + "\n",
    "colqwen2": "Query: the cat" + "<|endoftext|>" * 10,
    "colqwen2.5": "Query: the cat" + "<|endoftext|>" * 10,
    "colidefics3": "Query: the cat" + "<end_of_utterance>" * 10 + "\n",
}


def rendered(model: ColPaliModel) -> str:
    ids = model._text_input(["the cat"], "query")["input_ids"][0]
    return str(model._processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def with_files(folder: Path, path: Path, **files: str) -> Path:
    shutil.copytree(folder, path)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


@pytest.mark.parametrize("name", TRAINED)
def test_a_checkpoint_of_colpali_engines_training(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = with_files(folders(name), tmp_path / "model", git_hash__txt="0" * 40)
    model = ColPaliModel(folder, device="cpu")
    assert rendered(model) == TRAINED[name]
    assert model.fingerprint["query_prefix"] == model.query_prefix != ""
    assert ColPaliModel(folder, device="cpu", query_prefix="Find: ").query_prefix == "Find: "


@pytest.mark.parametrize("name", ["colpali", "colqwen2", "colmodernvbert"])
def test_an_adapter_and_the_native_port_encode_the_same_query(
    name: str, folders: Callable[[str], Path], models: Callable[[str], ColPaliModel], tmp_path: Path
) -> None:
    folder = with_files(folders(name), tmp_path / "model", git_hash__txt="0" * 40)
    assert rendered(ColPaliModel(folder, device="cpu")) == rendered(models(f"{name}-native"))


def test_the_registry_knows_the_published_ones(folders: Callable[[str], Path]) -> None:
    families = {family.name: family for family in FAMILIES}

    class Processor:
        query_prefix = ""

    told = {known.name: known.query_prefix for known in KNOWN_MODELS if known.query_prefix is not None}
    for name, prefix in told.items():
        family = next(families[known.family] for known in KNOWN_MODELS if known.name == name)
        form = trained_form(name, folders("colqwen2"), family, Processor())
        assert form == (QueryForm(*family.trained) if family.trained else QueryForm("", ""))
        assert form.prefix == prefix
    assert told["vidore/colqwen2-v1.0"] == "Query: "


@pytest.mark.parametrize(
    ("files", "prefix"),
    [
        ({"config_sentence_transformers__json": json.dumps({"prompts": {"query": "Search: "}})}, "Search: "),
        (
            {"modules__json": "[]", "chat_template__jinja": "{% if query %}Question: {{ text }}{% endif %}"},
            "Question: ",
        ),
    ],
)
def test_sentence_transformers_files_tell(
    files: dict[str, Any], prefix: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = with_files(folders("colqwen2"), tmp_path / "model", git_hash__txt="0" * 40, **files)
    assert ColPaliModel(folder, device="cpu").query_prefix == prefix


@pytest.mark.parametrize("name", ["colpali", "colqwen2-native", "colidefics3"])
def test_an_index_of_an_earlier_release_keeps_its_form(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = with_files(folders(name), tmp_path / "model", git_hash__txt="0" * 40)
    model = ColPaliModel(folder, device="cpu")
    installed = library_form(model._family, model._processor)
    kept = {key: value for key, value in model.fingerprint.items() if key != "query_end"}
    kept["query_prefix"] = model.query_prefix if name.endswith("native") else ""
    earlier = model.as_built(kept)
    assert isinstance(earlier, ColPaliModel)
    assert dict(earlier.fingerprint) == kept
    assert earlier._query_end == installed.end
    assert rendered(earlier) != rendered(model)
    assert model.as_built(model.fingerprint) is model
    assert largest_difference(earlier.encode_documents(TEXTS), model.encode_documents(TEXTS)) == 0
    # What somebody asked for is not changed: the index then refuses it.
    asked = ColPaliModel(folder, device="cpu", query_prefix="Find: ")
    assert dict(asked.as_built(kept).fingerprint) != kept


def test_where_nothing_tells_it_is_the_librarys_and_told(
    folders: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "late_interaction"):
        model = ColPaliModel(folders("colqwen2"), device="cpu")
    assert model.query_prefix == ""
    assert "query_prefix='Query: '" in caplog.text
