"""Models that the tests of this folder share; they are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from late_interaction.encoders import ColBERTModel
from tests.unit.text_encoders.models import BUILDERS


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: build(root / family) for family, build in BUILDERS.items()}


@pytest.fixture(scope="package")
def models(folders: dict[str, Path]) -> dict[str, ColBERTModel]:
    return {family: ColBERTModel(folder, device="cpu") for family, folder in folders.items()}
