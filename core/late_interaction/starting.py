"""`open`: an index in one line, with the model and the settings that it was built with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Unpack

from late_interaction import demo
from late_interaction.encoders.auto import load_model, model_class
from late_interaction.encoders.base import LateInteractionModel
from late_interaction.encoders.checkpoint import content_hash
from late_interaction.encoders.colpali import ColPaliModel
from late_interaction.encoders.multi_vector import MultiVectorModel
from late_interaction.encoders.precomputed import PrecomputedEmbeddings
from late_interaction.encoders.torch_runtime import computing_dtype, device_or_best
from late_interaction.errors import MissingExtraError, ModelError
from late_interaction.options import IndexOptions, check_names, spelled_out
from late_interaction.portal import shared_portal
from late_interaction.stores.base import Store
from late_interaction.stores.opening import Place, open_store
from late_interaction.sync import SyncPipeline
from late_interaction.types import IndexSpec
from late_interaction.validation import shown

DEFAULT_MODEL = "answerdotai/answerai-colbert-small-v1"
"""The model of a new index that is given none."""

_OF_THE_INDEX = ("doc_pool_factor", "packing")


@spelled_out(IndexOptions, doc_pool_factor=None, packing=None)
def open(  # noqa: A001 - as other packages that open files of their own call it
    db: Place,
    model: str | os.PathLike[str] | LateInteractionModel | None = None,
    base_table_name: str | None = None,
    *,
    device: str | None = None,
    **options: Unpack[IndexOptions],
) -> SyncPipeline:
    """Open an index, or make a new one at the first use; it closes with the process, or by `close`.

    >>> import late_interaction
    >>> index = late_interaction.open("my_index", model="demo")
    >>> ids = index.add(["Apple pie with cinnamon", "The tide comes in at noon"])
    >>> index.search("a dessert of apples")[0].content
    'Apple pie with cinnamon'

    An index that exists is opened with what it was built with: its model, its pooling and its packing need not be
    given again.

    >>> late_interaction.open("my_index").search("when is high water?")[0].content
    'The tide comes in at noon'

    Args:
        db: a folder, "astra:NAME" in the database that the environment names, a database of astrapy, or a `Store`.
        model: a model id on the Hugging Face hub, the folder of a model, "demo" for the packaged one, or a
            `LateInteractionModel`. None is the one that the index was built with, and for a new index
            answerdotai/answerai-colbert-small-v1.
        base_table_name: the index's name, "late_interaction" by default.
        device: where a model that is given by name computes: "cpu", "cuda", "mps"; None takes the best there is.
        **options: see `IndexOptions`. `doc_pool_factor` and `packing` are those of the index, where there is one.

    Raises:
        ModelError: the model cannot be loaded, or the index does not say which one it is.
        IndexMismatchError: at the first use, where the index was built with another model or other settings.
        ValueError: a device is given, and the model is loaded already.
    """
    check_names(IndexOptions, options)
    for name in _OF_THE_INDEX:
        if name in options and options[name] is None:  # type: ignore[literal-required]
            del options[name]  # type: ignore[misc]
    if not isinstance(model, str | os.PathLike | LateInteractionModel | None):
        raise TypeError(
            f"model must be a model's name, its folder or a LateInteractionModel, not {shown(model)}."
        )
    portal = shared_portal.acquire()
    try:
        spec = portal.run(_spec, db, base_table_name)
        if spec is not None:
            options.setdefault("doc_pool_factor", spec.pooling["factor"])
            options.setdefault("packing", spec.packing)
        if not isinstance(model, LateInteractionModel):
            model = load_model_for(spec, model, device)
        elif device is not None:
            raise ValueError("device is for a model that is given by name; this one is loaded already.")
        return SyncPipeline(db, model, base_table_name, **options)
    finally:
        shared_portal.release()


def load_model_for(
    spec: IndexSpec | None, name: str | os.PathLike[str] | None = None, device: str | None = None
) -> LateInteractionModel:
    """Load the model of an index, or of this name and in the form in which the index was built with it.

    Args:
        spec: what the index was built with; None for a new one.
        name: the model; None for the index's own, or for the default one.
        device: where it computes.

    Raises:
        ModelError: it cannot be loaded, or the index does not say which one it is.
    """
    if name is None and spec is not None and spec.encoder.get("family") == "precomputed":
        return PrecomputedEmbeddings(spec.dim, str(spec.encoder["model"]))
    if name is None:
        name = DEFAULT_MODEL if spec is None else model_of(spec)
    options = {} if spec is None else model_options(spec, model_class(name), device)
    return load_model(name, device=device, **options)


def model_of(spec: IndexSpec, option: str = "model=") -> str:
    """Return what to load for an index: the demo's model, or an id on the hub.

    Args:
        spec: what the index was built with.
        option: how a caller gives a model, for the message.

    Raises:
        ModelError: it was built with a model in a folder, or with an encoder of the caller's own.
    """
    name, content = spec.encoder.get("model"), spec.encoder.get("content")
    if not isinstance(name, str) or content is None:
        raise ModelError("The index was built with an encoder of its own: open it from Python, with model=.")
    if "/" in name:
        return name
    absent = ""
    try:
        if content_hash(demo.model_folder()) == content:
            return demo.DEMO
    except MissingExtraError as error:
        absent = f" If it was {demo.DEMO!r}: {error}"
    raise ModelError(
        f"The index was built with a model in a folder named {name!r}: give it with {option}.{absent}"
    )


def model_options(
    spec: IndexSpec, of: type[LateInteractionModel], device: str | None = None
) -> dict[str, Any]:
    """Return the arguments with which a model was loaded that an index was built with, as far as they change it.

    Args:
        spec: what the index was built with.
        of: the model's class.
        device: where it is to compute; None for the best device there is.
    """
    encoder: Mapping[str, Any] = spec.encoder
    if of is MultiVectorModel:
        return {}
    if of is ColPaliModel:
        return {"query_prefix": encoder.get("query_prefix")}
    return {
        "query_length": encoder.get("query_length"),
        "document_length": encoder.get("document_length"),
        "long_documents": encoder.get("long_documents", "truncate"),
        "language": encoder.get("language"),
        "dtype": computing_dtype(device_or_best(device), encoder.get("dtype", "float32")),
    }


async def _spec(db: Place, name: str | None) -> IndexSpec | None:
    store = open_store(db, name)
    try:
        return await store.spec()
    finally:
        if not isinstance(db, Store):
            await store.close()
