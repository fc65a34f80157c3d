"""`open`: an index in one line, in the form in which it was built; and `add`."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import late_interaction
from late_interaction import (
    ColBERTModel,
    DocumentError,
    IndexMismatchError,
    LateInteractionModel,
    LocalStore,
    ModelError,
    PrecomputedEmbeddings,
    ProjectedModel,
    SyncPipeline,
    fit_projection,
)
from tests.support import checkpoints
from tests.support.models import HashModel

START = """
import late_interaction
index = late_interaction.open({folder!r}, model={model!r})
index.add(["hello wing", "heat layer"])
print(index.search("wing")[0].content)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(checkpoints.pylate_checkpoint(tmp_path / "model"))


@pytest.mark.slow
def test_two_lines_in_a_process_of_its_own_and_again(tmp_path: Path, checkpoint: str) -> None:
    folder = str(tmp_path / "index")
    script = START.format(folder=folder, model=checkpoint)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello wing\n", "")
    with late_interaction.open(folder, checkpoint) as index:
        assert index.add(["hello wing"]).failures == []
        assert index.count() == 2  # The same texts are the same documents.


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    index = late_interaction.open(tmp_path / "index", HashModel())
    assert isinstance(index, SyncPipeline)
    assert not (tmp_path / "index").exists()
    assert index.count() == 0
    index.close()


@pytest.mark.parametrize("place", ["", "  ", "Astra:foo", "http://localhost/x", ":memory:", "sqlite:///x"])
def test_what_is_no_folder_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="folder"):
        late_interaction.open(place, HashModel())
    assert list(tmp_path.iterdir()) == []
    if place.strip():
        (tmp_path / place.partition("/")[0]).mkdir()
    with late_interaction.open(Path("a:b"), HashModel()) as index:
        assert index.add(["one"]).failures == []


def test_the_folder_that_messages_show_opens_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with late_interaction.open(tmp_path, HashModel(), "notes") as index:
        index.add(["hello world"])
    shown = str(tmp_path / "notes")
    monkeypatch.chdir(tmp_path / "notes")
    for place in (shown, Path(shown), "."):
        with late_interaction.open(place, HashModel()) as index:
            assert index.count() == 1
            assert shown in repr(index)
    with pytest.raises(ValueError, match="is an index itself"):
        late_interaction.open(shown, HashModel(), "another")


def test_arguments_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a LateInteractionModel, not"):
        late_interaction.open(tmp_path, HashModel)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of an index, must be a str, not 5"):
        late_interaction.open(tmp_path, HashModel(), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("none", [{}, {"doc_pool_factor": None, "packing": None}])
def test_an_index_is_opened_as_it_was_built(tmp_path: Path, none: Any) -> None:
    options: Any = {"doc_pool_factor": 3, "packing": "float16"}
    with late_interaction.open(tmp_path, HashModel(), "mine", **options) as index:
        index.add(["alpha beta gamma delta"])
    with late_interaction.open(tmp_path, HashModel(), "mine", **none) as index:
        assert index.search("gamma")[0].content == "alpha beta gamma delta"
    index = late_interaction.open(tmp_path, HashModel(), "mine", packing="int8")
    with pytest.raises(IndexMismatchError):
        index.count()
    index.close()


def test_a_model_in_a_folder_is_loaded_as_the_index_has_it(tmp_path: Path, checkpoint: str) -> None:
    built = ColBERTModel(
        checkpoint, device="cpu", query_length=8, document_length=12, long_documents="truncate"
    )
    with SyncPipeline(tmp_path / "index", built) as index:
        index.add(["hello wing"])
    with late_interaction.open(tmp_path / "index", checkpoint, device="cpu") as index:
        assert index.count() == 1
        assert dict(index.model.fingerprint) == dict(built.fingerprint)
    with pytest.raises(ModelError, match="a model in a folder named 'model': give it with model="):
        late_interaction.open(tmp_path / "index")


def test_the_demos_model_is_known_again_and_so_is_a_projection_of_it(
    tmp_path: Path, minilm: ColBERTModel
) -> None:
    projected = fit_projection(minilm, ["Apple pie with cinnamon.", "The tide comes in at noon."] * 2, 4)
    with SyncPipeline(tmp_path, projected) as index:
        index.add(["Apple pie"])
    with late_interaction.open(tmp_path, device="cpu") as index:
        assert index.search("apples")[0].content == "Apple pie"
        assert isinstance(index.model, ProjectedModel)


def test_an_index_of_vectors_from_elsewhere_needs_no_model(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, PrecomputedEmbeddings(2, "mine")) as index:
        index.index_embeddings([{"doc_id": "x", "content": "along x"}], [[[1, 0]]])
    with late_interaction.open(tmp_path) as index:
        assert index.search_with_embeddings([[1, 0]])[0].doc_id == "x"


def test_an_encoder_of_ones_own_has_to_be_given(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel()) as index:
        index.add(["alpha"])
    with pytest.raises(ModelError, match="an encoder of its own"):
        late_interaction.open(tmp_path)


def test_a_store_is_taken_as_it_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "named")
    with late_interaction.open(store, HashModel()) as index:
        index.add(["alpha"])
    with late_interaction.open(tmp_path, HashModel(), "named") as index:
        assert index.count() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": HashModel(), "device": "cpu"}, ValueError, "loaded already"),
        ({"model": HashModel(), "pool": 2}, TypeError, "no option 'pool'"),
        ({"model": "/nowhere/at/all"}, ModelError, "/nowhere/at/all"),
        ({"model": 3}, TypeError, "."),
    ],
)
def test_what_cannot_be_opened_says_so(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        late_interaction.open(tmp_path, **arguments)


def test_a_star_import_leaves_the_builtin_alone() -> None:
    names: dict[str, Any] = {}
    exec("from late_interaction import *", names)
    assert "SyncPipeline" in names
    assert "open" not in names
    assert "open" in dir(late_interaction)


def test_add_takes_texts_and_rows_of_every_kind_of_iterable(tmp_path: Path) -> None:
    document = late_interaction.Document("given", "delta")
    with late_interaction.open(tmp_path, HashModel()) as index:
        ids = index.add(["alpha", {"content": "beta", "n": 1}, document])
        assert ids[2] == "given"
        assert index.add(iter(["alpha", {"content": "beta", "n": 1}])) == ids[:2]
        assert index.add({"alpha": 1}.keys()) == ids[:1]
        assert index.add(("alpha",), ids="random") != ids[:1]
        assert index.count() == 4
        assert index.add(["", "alpha"]).truncated == {}
        for wrong in ("alpha", b"alpha", {"content": "alpha"}, 3, None):
            with pytest.raises(TypeError, match="pass a list"):
                index.add(wrong)  # type: ignore[arg-type]
        with pytest.raises(DocumentError, match="a row is a mapping"):
            index.add([3])  # type: ignore[list-item]


async def test_add_takes_async_iterables(tmp_path: Path) -> None:
    async def items() -> Any:
        yield "alpha"
        yield {"content": "beta"}

    async with late_interaction.LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        assert len(await pipeline.add(items())) == 2
        assert await pipeline.count() == 2


def test_its_signature_and_help() -> None:
    parameters = inspect.signature(late_interaction.open).parameters
    assert set(late_interaction.IndexOptions.__annotations__) <= set(parameters)
    assert parameters["doc_pool_factor"].default is None
    assert inspect.signature(SyncPipeline.add).parameters["ids"].default == "content"
    assert issubclass(HashModel, LateInteractionModel)
