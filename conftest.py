"""What holds for every test, and for the examples in docstrings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# pytest-xdist sets these; a Console of rich that is made at import keeps them, whatever a test sets later.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# On a busy machine, drawing examples is slow now and then, which says nothing about the code.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _scratch_folder_for_doctests(request: pytest.FixtureRequest) -> None:
    """Run an example in a folder of its own, and without the Hugging Face Hub."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        folder: Path = request.getfixturevalue("tmp_path")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _the_same_numbers_on_every_processor() -> Iterator[None]:
    """Compute in float32 where a test does not say otherwise, also on a processor with instructions for bfloat16."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("late_interaction.encoders.torch_runtime.computes_bfloat16", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _log_level_of_its_own() -> Iterator[None]:
    """Undo what the command line sets for its process, in a test or in a fixture of a wider scope before it."""
    logger = logging.getLogger("late_interaction")
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)
    logging.captureWarnings(False)
