"""What a type checker makes of the public names."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

EXAMPLES = Path(__file__).with_name("api.py")


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_the_examples_have_the_types_that_they_say() -> None:
    checked = mypy(str(EXAMPLES))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_a_misspelt_option_is_named_with_its_neighbour(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from late_interaction import SyncPipeline\n\n\n"
        "def search(pipeline: SyncPipeline) -> None:\n"
        "    pipeline.search('text', n_ann_token=5)\n"
    )
    checked = mypy(str(script))
    assert 'Unexpected keyword argument "n_ann_token"' in checked.stdout
    assert 'did you mean "n_ann_tokens"' in checked.stdout
