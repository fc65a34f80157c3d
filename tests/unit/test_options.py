"""Options are said once: every surface offers every option, and an option that does not exist is named everywhere."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
from llama_index.core.vector_stores.types import VectorStoreQuery

from langchain_lateint import LateInteractionRetriever as LangChainRetriever
from langchain_lateint import LateInteractionVectorStore as LangChainStore
from late_interaction import (
    IndexOptions,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    RowOptions,
    SearchOptions,
    SyncPipeline,
    WriteOptions,
)
from late_interaction.cli import app
from late_interaction.options import IndexSettings, RowSettings, WriteSettings
from late_interaction.planning import SearchPlan
from llamaindex_lateint import LateInteractionRetriever as LlamaIndexRetriever
from llamaindex_lateint import LateInteractionVectorStore as LlamaIndexStore
from tests.support.colours import ColourModel
from tests.support.models import HashModel

SEARCH: dict[str, Any] = {
    "n_ann_tokens": 77,
    "n_maxsim_candidates": 33,
    "filter": {"year": 2001},
    "ids": ["a", "b"],
    "exact": True,
    "group_by": "year",
    "distinct": True,
    "offset": 7,
    "mode": "hybrid",
    "lexical_weight": 0.5,
}
INDEX: dict[str, Any] = {
    "doc_pool_factor": 3,
    "query_pool_distance": 0.5,
    "packing": "float16",
    "concurrency": 3,
    "filterable": {"year": int},
    "retry_for_s": 7.5,
    "candidates": "tokens",
    "lexical": True,
    "store_images": "thumbnail",
    "allow_urls": True,
    "image_root": "photos",
    "must_exist": True,
}
WRITE: dict[str, Any] = {"batch_size": 3, "show_progress": True, "skip_existing": True}
ROW: dict[str, Any] = {**WRITE, "on_error": "skip", "ids": "content", "num_workers": 2}


@pytest.mark.parametrize(
    ("of", "samples", "settings"),
    [
        (SearchOptions, SEARCH, None),
        (IndexOptions, INDEX, IndexSettings),
        (WriteOptions, WRITE, WriteSettings),
        (RowOptions, ROW, RowSettings),
    ],
)
def test_every_option_is_documented_and_tried_here(
    of: type, samples: Mapping[str, Any], settings: type | None
) -> None:
    assert set(samples) == set(of.__annotations__)
    assert of.__doc__ is not None
    documented = of.__doc__ + (WriteOptions.__doc__ or "" if of is RowOptions else "")
    for name in samples:
        assert f"    {name}: " in documented
    if settings is not None:
        fields = {field.name: field.type for field in dataclasses.fields(settings)}
        assert fields == {name: hint.__forward_arg__ for name, hint in of.__annotations__.items()}


@pytest.mark.parametrize("of", [LateInteractionPipeline, SyncPipeline])
@pytest.mark.parametrize(
    ("method", "samples"),
    [
        ("__init__", INDEX),
        ("search", SEARCH),
        ("search_many", SEARCH),
        ("search_with_embeddings", SEARCH),
        ("index_documents", ROW),
        ("index_embeddings", ROW),
        ("copy_to", WRITE),
    ],
)
def test_a_signature_names_every_option_and_its_default(
    of: type, method: str, samples: Mapping[str, Any]
) -> None:
    parameters = inspect.signature(getattr(of, method)).parameters
    assert set(samples) <= set(parameters)
    assert "options" not in parameters
    settings = {"__init__": IndexSettings, "copy_to": WriteSettings}.get(method, RowSettings)
    for name in samples:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        if samples is SEARCH:
            expected = {"exact": False, "distinct": False, "offset": 0, "mode": "late"}.get(name)
            assert parameters[name].default is expected
        else:
            assert parameters[name].default == getattr(settings(), name)


# --- searches


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[SyncPipeline]:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        yield pipeline


@pytest.fixture
def search_surfaces(tmp_path: Path, twin: SyncPipeline) -> dict[str, Callable[..., Any]]:
    """What searches, by name: a function that takes an option by its keyword."""
    pipeline = LateInteractionPipeline(tmp_path, HashModel())
    langchain, llamaindex = LangChainStore(twin), LlamaIndexStore(twin)
    (matrix,) = HashModel().encode_queries(["text"])
    query = VectorStoreQuery(query_str="text")
    return {
        "search": lambda **given: asyncio.run(pipeline.search("text", **given)),
        "search_many": lambda **given: asyncio.run(pipeline.search_many(["text"], **given)),
        "search_with_embeddings": lambda **given: asyncio.run(
            pipeline.search_with_embeddings(matrix, **with_text(given))
        ),
        "sync search": lambda **given: twin.search("text", **given),
        "sync search_many": lambda **given: twin.search_many(["text"], **given),
        "sync search_with_embeddings": lambda **given: twin.search_with_embeddings(
            matrix, **with_text(given)
        ),
        "langchain": lambda **given: langchain.similarity_search("text", **given),
        "langchain async": lambda **given: asyncio.run(langchain.asimilarity_search("text", **given)),
        "langchain by vector": lambda **given: langchain.similarity_search_by_vector(
            matrix, **with_text(given)
        ),
        "langchain mmr": lambda **given: langchain.max_marginal_relevance_search("text", **given),
        "langchain as_retriever": lambda **given: langchain.as_retriever(search_kwargs=given).invoke("text"),
        "langchain retriever": lambda **given: LangChainRetriever(vectorstore=langchain).invoke(
            "text", **given
        ),
        "llamaindex": lambda **given: llamaindex.query(query, **given),
        "llamaindex async": lambda **given: asyncio.run(llamaindex.aquery(query, **given)),
        "llamaindex retriever": lambda **given: LlamaIndexRetriever(
            llamaindex, vector_store_kwargs=given
        ).retrieve("text"),
    }


def with_text(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "text": "text"} if "mode" in given else given


SEARCHES = [
    "search", "search_many", "search_with_embeddings", "sync search", "sync search_many", "sync search_with_embeddings",
    "langchain", "langchain async", "langchain by vector", "langchain mmr", "langchain as_retriever",
    "langchain retriever", "llamaindex", "llamaindex async", "llamaindex retriever",
]  # fmt: skip


@pytest.mark.parametrize("surface", SEARCHES)
def test_every_search_offers_every_option(
    search_surfaces: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch, surface: str
) -> None:
    assert list(search_surfaces) == SEARCHES
    seen: dict[str, SearchOptions] = {}
    make = SearchPlan.of

    def spy(k: int, options: SearchOptions, scaling: Any) -> SearchPlan:
        seen["plain"], plan = options, make(k, options, scaling)
        seen["parsed"] = {"filter": plan.filter, "ids": plan.ids}  # type: ignore[typeddict-item, assignment]
        return plan

    monkeypatch.setattr(SearchPlan, "of", spy)
    for name, value in SEARCH.items():
        search_surfaces[surface](**{name: value, **({"mode": "hybrid"} if name == "lexical_weight" else {})})
        if name == "offset" and ("mmr" in surface or "llamaindex" in surface):
            # They leave out after they have chosen: `test_pages` of either adapter.
            assert not seen["plain"].get("offset")
        elif name == "filter":
            assert "year" in str(seen["parsed"]["filter"])
        else:
            assert seen["plain"][name] == value  # type: ignore[literal-required]


@pytest.mark.parametrize("surface", SEARCHES)
def test_a_search_names_an_option_that_does_not_exist(
    search_surfaces: dict[str, Callable[..., Any]], surface: str
) -> None:
    with pytest.raises(TypeError, match=r"n_ann_token\b") as caught:
        search_surfaces[surface](n_ann_token=5)
    assert all(name in str(caught.value) for name in SEARCH)


# --- indexes


INDEXES: dict[str, Callable[..., SyncPipeline]] = {
    "sync": lambda folder, **given: SyncPipeline(folder, ColourModel(), **given),
    "langchain": lambda folder, **given: LangChainStore(model=ColourModel(), path=folder, **given).pipeline,
    "llamaindex": lambda folder, **given: LlamaIndexStore(model=ColourModel(), path=folder, **given).client,
}


def settings_of(surface: str, folder: Path, **given: Any) -> IndexSettings:
    if surface == "async":
        return LateInteractionPipeline(folder, ColourModel(), **given).settings
    pipeline = INDEXES[surface](folder, **given)

    async def settings(opened: LateInteractionPipeline) -> IndexSettings:
        return opened.settings

    try:
        return pipeline.run(settings)
    finally:
        pipeline.close()


@pytest.mark.parametrize("surface", ["async", *INDEXES])
def test_every_constructor_offers_every_option(tmp_path: Path, surface: str) -> None:
    for name, value in INDEX.items():
        assert value != getattr(IndexSettings(), name), "a sample that is the default proves nothing"
        found = getattr(settings_of(surface, tmp_path, **{name: value}), name)
        assert value.items() <= found.items() if name == "filterable" else found == value


@pytest.mark.parametrize("surface", ["async", *INDEXES])
def test_a_constructor_names_an_option_that_does_not_exist(tmp_path: Path, surface: str) -> None:
    with pytest.raises(TypeError, match=r"no option 'packin'\. Did you mean 'packing'") as caught:
        settings_of(surface, tmp_path, packin="int8")
    assert all(name in str(caught.value) for name in INDEX)


@pytest.mark.parametrize("store", [LangChainStore, LlamaIndexStore])
def test_an_option_beside_a_pipeline_is_refused_also_if_it_is_the_default(tmp_path: Path, store: Any) -> None:
    with SyncPipeline(tmp_path, ColourModel()) as pipeline:
        for name in INDEX:
            with pytest.raises(ValueError, match="leave the other arguments out"):
                store(pipeline, **{name: getattr(IndexSettings(), name)})


# --- writes


@pytest.mark.parametrize("method", ["index_documents", "index_embeddings", "copy_to"])
@pytest.mark.parametrize("of", [LateInteractionPipeline, SyncPipeline])
def test_every_call_that_writes_offers_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: type, method: str
) -> None:
    seen: list[WriteSettings] = []
    check = WriteSettings.__post_init__

    def spy(settings: WriteSettings) -> None:
        seen.append(settings)
        check(settings)

    monkeypatch.setattr(WriteSettings, "__post_init__", spy)

    def write(**given: Any) -> None:
        arguments: dict[str, list[Any]] = {
            "index_documents": [[]],
            "index_embeddings": [[], []],
            "copy_to": [tmp_path / "there"],
        }
        pipeline = of(tmp_path / "here", PrecomputedEmbeddings(2, "mine"))
        try:
            called = getattr(pipeline, method)(*arguments[method], **given)
            if inspect.iscoroutine(called):
                asyncio.run(called)
        finally:
            if isinstance(pipeline, SyncPipeline):
                pipeline.close()

    for name, value in (WRITE if method == "copy_to" else ROW).items():
        write(**{name: value})
        assert getattr(seen[-1], name) == value
    with pytest.raises(TypeError, match=r"no option 'batch'\. Did you mean 'batch_size'"):
        write(batch=5)


# --- the command line


def parameters(command: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    return {parameter.name for parameter in group.commands[command].params}


ELSEWHERE = {
    "filter": "filter_json",
    "doc_pool_factor": "pool_factor",
    "batch_size": "its batches are as long as they are quick",
    "show_progress": "it shows progress always",
    "query_pool_distance": "of searches, where the index's default does",
    "concurrency": "it makes one call at a time",
    "allow_urls": "it reads files",
    "image_root": "root",
    "must_exist": "a search never makes an index, and this one is made if it is not there",
    "on_error": "it names what it leaves out, and indexes the others",
    "skip_existing": "it goes by what changed",
    "ids": "it makes them of a file's name and place",
}


@pytest.mark.parametrize(
    ("command", "options"), [("search", SEARCH), ("index", {**INDEX, **ROW})], ids=["search", "index"]
)
def test_the_command_line_offers_every_option(command: str, options: Mapping[str, Any]) -> None:
    offered = parameters(command)
    for name in options:
        assert name in offered or ELSEWHERE.get(name) in offered or " " in ELSEWHERE.get(name, ""), name


# --- values


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"doc_pool_factor": "2"}, TypeError, "must be a number, not '2'"),
        ({"doc_pool_factor": True}, TypeError, "must be a number"),
        ({"doc_pool_factor": 10**400}, ValueError, "at least 1"),
        ({"doc_pool_factor": math.nan}, ValueError, "at least 1"),
        ({"query_pool_distance": None}, TypeError, "must be a number"),
        ({"concurrency": True}, TypeError, "whole number"),
        ({"concurrency": 2**63}, ValueError, r"at most 2\^63 - 1"),
        ({"packing": ["int8"]}, ValueError, "packing must be one of"),
        ({"store_images": {}}, ValueError, "store_images must be one of"),
        ({"allow_urls": "yes"}, TypeError, "must be True or False"),
        ({"image_root": 5}, TypeError, "image_root must be a path, not 5"),
        ({"retry_for_s": "60"}, TypeError, "retry_for_s must be a number of seconds"),
        ({"retry_for_s": -1}, ValueError, "retry_for_s must be at least 0"),
        ({"retry_for_s": math.inf}, ValueError, "at most a day"),
        ({"filterable": 5}, TypeError, "filterable"),
        ({"candidates": "rows"}, ValueError, "candidates must be one of"),
        ({"candidates": "documents"}, ValueError, "for an index on Astra"),
        ({"lexical": 1}, TypeError, "lexical must be True or False"),
        ({"lexical": False}, ValueError, "a folder always has an index of words"),
        ({"filterable": {"a": object()}}, ValueError, "filterable"),
    ],
)
def test_wrong_settings_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LateInteractionPipeline(tmp_path, HashModel(), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": True}, TypeError, "whole number"),
        ({"k": 2**63}, ValueError, r"at most 2\^63 - 1"),
        ({"k": 10**5000}, ValueError, "k must be at most"),
        ({"n_ann_tokens": 10**400}, ValueError, "at most"),
        ({"n_maxsim_candidates": math.nan}, TypeError, "whole number"),
        ({"exact": 1}, TypeError, "must be True or False"),
        ({"ids": "abc"}, TypeError, "not a bare str"),
        ({"ids": 5}, TypeError, "list of ids"),
        ({"ids": {"a": 1}}, TypeError, "list of ids"),
        ({"ids": [5.0]}, TypeError, "a doc_id is"),
        ({"offset": -1}, ValueError, "offset must be"),
        ({"ids": ["\ud800"]}, ValueError, "surrogate"),
        ({"ids": ["a"], "n_ann_tokens": 5}, ValueError, "leave n_ann_tokens"),
    ],
)
async def test_wrong_options_of_a_search_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with LateInteractionPipeline(LocalStore(tmp_path), HashModel()) as pipeline:
        with pytest.raises(error, match=message):
            await pipeline.search("text", **options)
