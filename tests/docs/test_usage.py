"""The usage that the project promises, as its user wrote it: run as it is but for what no test can have.

Those are a database's credentials, a model from the hub, and a GPU.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import checkpoints
from tests.support.paths import SHARED
from tools.data_api import run_in_thread

pytestmark = pytest.mark.slow

USAGE = SHARED / "usage.py"


def run_with(replacements: dict[str, str], folder: Path) -> list[str]:
    """The lines that the promised usage prints, with these texts replaced, each of which must be in it."""
    if not USAGE.exists():
        pytest.skip(f"{USAGE.name} is not beside this checkout")
    code = USAGE.read_text()
    model = checkpoints.stanford_checkpoint(folder / "model")
    replacements |= {"answerdotai/answerai-colbert-small-v1": str(model), 'device="cuda"': 'device="cpu"'}
    for old, new in replacements.items():
        assert old in code
        code = code.replace(old, new)
    script = folder / "usage.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check(lines: list[str]) -> None:
    assert len(lines) == 2
    assert re.fullmatch(r"Document: [0-9a-f-]{36}, Score: \d+\.\d{4}", lines[0])
    assert lines[1] == "Content: This is a sample document for testing late interaction retrieval."


def test_on_a_database(tmp_path):
    with run_in_thread() as server:
        replaced = {
            'token="your-token"': f'token="{server.token}", environment="hcd"',
            'api_endpoint="your-api-endpoint"': f'api_endpoint="{server.endpoint}", keyspace="{server.keyspace}"',
        }
        check(run_with(replaced, tmp_path))


def test_in_a_folder(tmp_path):
    database = 'DataAPIClient(token="your-token").get_async_database(api_endpoint="your-api-endpoint")'
    check(run_with({database: '"my_folder"'}, tmp_path))
    assert (tmp_path / "my_folder" / "my_colbert_index").is_dir()
