"""The names by which users of other stores open, save, merge and copy one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from langchain_lateint._names import UsualNames
from langchain_lateint._operations import Ids, Operation
from langchain_lateint._relevance import RelevanceFn
from langchain_lateint.embeddings import Model
from late_interaction import LateInteractionPipeline, LocalStore, RowOptions, Store
from late_interaction.adapting import check_flag

T = TypeVar("T")


class UsualWays(UsualNames):
    """Ways to get a `LateInteractionVectorStore` beside its constructor, `from_texts` and `from_documents`."""

    @classmethod
    def from_existing_index(
        cls, embedding: Model | None = None, *, collection_name: str | None = None, **kwargs: Any
    ) -> Self:
        """Open an index that exists, as PGVector does.

        Args:
            embedding: the model, by the name that LangChain gives it.
            collection_name: another name of `table_name`.
            kwargs: as for the class.

        Raises:
            IndexNotFoundError: there is no such index.
            IndexMismatchError: it was built with another model, pooling or packing.
        """
        making = _existing(embedding, collection_name, kwargs)
        store: Self = made(cls, making, lambda store: store.pipeline.initialize())
        return store

    @classmethod
    async def afrom_existing_index(
        cls, embedding: Model | None = None, *, collection_name: str | None = None, **kwargs: Any
    ) -> Self:
        """Await `from_existing_index` on any event loop."""
        making = _existing(embedding, collection_name, kwargs)
        store: Self = await amade(
            cls, making, lambda store: store.pipeline.arun(LateInteractionPipeline.initialize)
        )
        return store

    @classmethod
    def from_existing_collection(
        cls, collection_name: str | None = None, embedding: Model | None = None, **kwargs: Any
    ) -> Self:
        """Open an index that exists, as `from_existing_index` does; Qdrant's order of arguments."""
        return cls.from_existing_index(embedding, collection_name=collection_name, **kwargs)

    @classmethod
    async def afrom_existing_collection(
        cls, collection_name: str | None = None, embedding: Model | None = None, **kwargs: Any
    ) -> Self:
        """Await `from_existing_collection` on any event loop."""
        return await cls.afrom_existing_index(embedding, collection_name=collection_name, **kwargs)

    @classmethod
    def from_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, ArrayLike]],
        embedding: Model | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store and add texts whose vectors were made elsewhere by its model, as `add_embeddings` does.

        Args:
            text_embeddings: pairs of a text and its (n_tokens, dim) vectors, or (dim,) for one.
            embedding: the model, by the name that LangChain gives it.
            metadatas: a mapping for each text.
            ids: an id for each text, or "content".
            kwargs: as for the class and for `add_texts`.
        """
        making, adding = divided(embedding, ids, kwargs)
        given = {"metadatas": metadatas, "ids": ids, **adding}
        store: Self = made(cls, making, lambda store: store.add_embeddings(text_embeddings, **given))
        return store

    @classmethod
    async def afrom_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, ArrayLike]],
        embedding: Model | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> Self:
        """Await `from_embeddings` on any event loop."""
        making, adding = divided(embedding, ids, kwargs)
        given = {"metadatas": metadatas, "ids": ids, **adding}
        store: Self = await amade(cls, making, lambda store: store.aadd_embeddings(text_embeddings, **given))
        return store

    @classmethod
    def load_local(
        cls,
        folder_path: str | Path,
        embeddings: Model,
        index_name: str | None = None,
        *,
        allow_dangerous_deserialization: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Open an index in a folder, as FAISS does.

        Args:
            folder_path: the folder.
            embeddings: the model.
            index_name: the index's name in the folder.
            allow_dangerous_deserialization: True or False, as your code has it: nothing here is unpickled.
            kwargs: as for the class.

        Raises:
            IndexNotFoundError: there is no such index.
        """
        check_flag("allow_dangerous_deserialization", allow_dangerous_deserialization)
        return cls.from_existing_index(embeddings, path=folder_path, collection_name=index_name, **kwargs)

    @classmethod
    async def aload_local(
        cls,
        folder_path: str | Path,
        embeddings: Model,
        index_name: str | None = None,
        *,
        allow_dangerous_deserialization: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Await `load_local` on any event loop."""
        check_flag("allow_dangerous_deserialization", allow_dangerous_deserialization)
        return await cls.afrom_existing_index(
            embeddings, path=folder_path, collection_name=index_name, **kwargs
        )

    def save_local(self, folder_path: str | Path, index_name: str | None = None) -> None:
        """Copy the index into a folder, as FAISS does: what the folder held before is gone.

        Each write is saved already where the index is.

        Raises:
            IndexMismatchError: the folder has an index that was built with other settings.
        """
        self._pipeline.run(_saving(folder_path, index_name))

    async def asave_local(self, folder_path: str | Path, index_name: str | None = None) -> None:
        """Await `save_local` on any event loop."""
        await self._pipeline.arun(_saving(folder_path, index_name))

    def merge_from(self, target: UsualWays) -> None:
        """Add the documents of another store to this one, with their vectors, as FAISS does."""
        self._pipeline.run(_merging(target))

    async def amerge_from(self, target: UsualWays) -> None:
        """Await `merge_from` on any event loop."""
        await self._pipeline.arun(_merging(target))

    def copy(self, *, relevance_score_fn: RelevanceFn | None = None) -> Self:
        """Return another store on the same index, as Astra does; it stays open as long as this one.

        Args:
            relevance_score_fn: as for the class; by default this store's own.
        """
        own = self._beside_pipeline()
        if relevance_score_fn is not None:
            own["relevance_score_fn"] = relevance_score_fn
        making: Any = type(self)
        copied: Self = making(self._pipeline, **own)
        return copied


def divided(
    embedding: Model | None, ids: Ids, kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments for the class, the model among them, and those for `add_texts`; `on_error` is in both."""
    adding = {name: kwargs[name] for name in RowOptions.__annotations__ if name in kwargs}
    making = {name: value for name, value in kwargs.items() if name not in adding or name == "on_error"}
    if isinstance(ids, str):  # "content"
        making["ids"] = ids
    if (model := one_of("embedding", embedding, "model", kwargs.get("model"))) is not None:
        making["model"] = model
    return making, adding


def one_of(name: str, value: T | None, other_name: str, other: T | None) -> T | None:
    """Return what was given by either of two names.

    Raises:
        ValueError: it was given by both.
    """
    if value is not None and other is not None:
        raise ValueError(f"{name} and {other_name} are two names of the same thing: give one.")
    return other if value is None else value


def made(cls: Any, making: dict[str, Any], fill: Callable[[Any], object]) -> Any:
    """Return a store made with these arguments, and filled; if that fails, it is closed."""
    store = cls(**making)
    try:
        fill(store)
    except BaseException:
        store.close()
        raise
    return store


async def amade(cls: Any, making: dict[str, Any], fill: Callable[[Any], Awaitable[object]]) -> Any:
    """Do `made`; in a thread, because a model that is given by its name is loaded here."""
    store = await asyncio.to_thread(lambda: cls(**making))
    try:
        await fill(store)
    except BaseException:
        await store.aclose()
        raise
    return store


def _existing(embedding: Model | None, collection_name: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    table_name = one_of("collection_name", collection_name, "table_name", kwargs.get("table_name"))
    model = one_of("embedding", embedding, "model", kwargs.get("model"))
    return {"must_exist": True, **kwargs, "table_name": table_name, "model": model}


def _saving(folder_path: str | Path, index_name: str | None) -> Operation[None]:
    async def save(pipeline: LateInteractionPipeline) -> None:
        target = LocalStore(folder_path, index_name or pipeline.store.name)
        if target.location != pipeline.store.location:
            try:
                await pipeline.copy_to(target)
                await _delete_others(target, pipeline.store)
            finally:
                await target.close()

    return save


async def _delete_others(target: LocalStore, source: Store) -> None:
    """Delete what the source has not."""
    if await target.count() == await source.count():
        return
    async for batch in target.scan():
        doc_ids = [item.document.doc_id for item in batch]
        kept = await source.existing(doc_ids)
        await target.delete([doc_id for doc_id in doc_ids if doc_id not in kept])


def _merging(target: object) -> Operation[None]:
    if not isinstance(target, UsualWays):
        raise TypeError(f"merge_from takes another LateInteractionVectorStore, not {target!r:.60}.")
    other = target._pipeline  # noqa: SLF001 - one of us

    async def merge(pipeline: LateInteractionPipeline) -> None:
        await other.arun(lambda source: source.copy_to(pipeline))

    return merge
