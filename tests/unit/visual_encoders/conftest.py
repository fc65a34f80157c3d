"""Models that the tests of this folder share; they are made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from late_interaction import (
    ColPaliModel,
)


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    from tests.support.visual_checkpoints import visual_checkpoint

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = visual_checkpoint(tmp_path_factory.mktemp(name), name)
        return made[name]

    return folder


@pytest.fixture(scope="package")
def models(folders: Callable[[str], Path]) -> Callable[[str], ColPaliModel]:
    made: dict[str, ColPaliModel] = {}

    def model(name: str) -> ColPaliModel:
        if name not in made:
            made[name] = ColPaliModel(folders(name), device="cpu")
        return made[name]

    return model
