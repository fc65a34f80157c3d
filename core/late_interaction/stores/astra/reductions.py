"""The reduction of an index with document vectors: its bytes and its state, in rows of the catalogue.

    name of the row         | columns
    {index}                 | reduction: {"current": [generation, parts] or null, "next": likewise}
                            | size: {"counted": n, "since": n}
    {index}#{gen}.{part}    | data: a part of the bytes of a reduction (safetensors, see `late_interaction.reduction`)

A reduction is named by its generation, which ascends. `current` is the one that every document's vector is made by, but
for few; `next` is one whose vectors are being written. Both are one cell, so that they change together. A search asks
by both (see `document_searching`), and every document's row says by which reduction its vector is made.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import dataclass

from late_interaction.errors import StoreError
from late_interaction.reduction import Reduction
from late_interaction.stores.astra.catalogue import Catalogue
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.rows import binary, from_binary
from late_interaction.stores.astra.schema import CATALOGUE, Tables
from late_interaction.stores.astra.tasks import for_each_concurrently, gather_or_cancel

_OLD_S = 60.0
"""A search that knows the state for longer reads it again."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Which reductions an index has.

    Attributes:
        current: generation and number of parts of the one that is in use; None before the first.
        next: the same of one whose vectors are being written, or None.
    """

    current: tuple[int, int] | None = None
    next: tuple[int, int] | None = None

    @property
    def live(self) -> tuple[int, ...]:
        """The generations that a document's vector may be made by, the newest last."""
        return tuple(one[0] for one in (self.current, self.next) if one is not None)

    def to_json(self) -> str:
        """Return it as the catalogue keeps it."""
        return json.dumps({"current": self.current, "next": self.next})

    @classmethod
    def of(cls, text: str | None) -> Fitted:
        """Return what `to_json` made the text of; raises ValueError, TypeError or KeyError."""
        if text is None:
            return cls()
        values = json.loads(text)
        pairs = [
            None if (one := values[name]) is None else (int(one[0]), int(one[1]))
            for name in ("current", "next")
        ]
        return cls(*pairs)


@dataclass(frozen=True, slots=True)
class Size:
    """About how many documents an index has: the service cannot count, and reading every row takes long.

    Attributes:
        counted: documents when they were last counted.
        since: documents written since then, replaced ones among them.
    """

    counted: int = 0
    since: int = 0

    @property
    def about(self) -> int:
        """The estimate: as long as nothing is deleted, not too small."""
        return self.counted + self.since


class Reductions:
    """The reductions of an open index, as this client knows them.

    Args:
        client: requests to the keyspace.
        catalogue: of the index.
        tables: of the index, with document vectors.
        location: index, keyspace and host, for messages.
        limits: sizes of requests.
    """

    def __init__(
        self, client: DataApiClient, catalogue: Catalogue, tables: Tables, location: str, limits: Limits
    ) -> None:
        self._client, self._catalogue, self._tables = client, catalogue, tables
        self._location, self._limits = location, limits
        self.fitted, self.size = Fitted(), Size()
        self._read_at = 0.0
        self._loaded: dict[int, Reduction] = {}
        self._loading = asyncio.Lock()

    async def refresh(self) -> Fitted:
        """Read what the index has by now.

        Raises:
            StoreError: the catalogue's row is damaged, or gone.
        """
        where = {"name": self._tables.name}
        pages = self._client.pages(CATALOGUE, ("name", "reduction", "size"), where=where, limit=1)
        rows = [row async for page in pages for row in page]
        if not rows:
            raise StoreError(f"There is no index {self._location} any more.")
        try:
            fitted = Fitted.of(rows[0].get("reduction"))
            size = Size(**json.loads(rows[0].get("size") or "{}"))
        except (KeyError, IndexError, TypeError, ValueError):
            raise StoreError(
                f"The catalogue {CATALOGUE} has a damaged row for {self._location}: its reduction or size is not what "
                "this library writes. Set both columns to null, and call optimize(refit=True)."
            ) from None
        self.fitted, self.size, self._read_at = fitted, size, time.monotonic()
        self._loaded = {name: one for name, one in self._loaded.items() if name in fitted.live}
        return fitted

    @property
    def is_old(self) -> bool:
        """Whether the state was read long ago."""
        return time.monotonic() - self._read_at > _OLD_S

    async def get(self, generation: int) -> Reduction | None:
        """Return a live reduction, read once; None if the index does not have it any more."""
        async with self._loading:
            if generation in self._loaded:
                return self._loaded[generation]
            parts = dict(one for one in (self.fitted.current, self.fitted.next) if one is not None).get(
                generation, 0
            )
            found = await gather_or_cancel([self._part(self._name(generation, i)) for i in range(parts)])
            if not parts or None in found:
                return None
            made = Reduction.from_bytes(b"".join(part for part in found if part is not None))
            if (made.width, made.dim) != (self._tables.width, self._tables.dim):
                raise StoreError(
                    f"The reduction of {self._location} is damaged: it makes {made.width} values of vectors of "
                    f"{made.dim}, and the index has {self._tables.width} and {self._tables.dim}. "
                    "optimize(refit=True) makes a new one."
                )
            self._loaded[generation] = made
            return made

    async def add(self, generation: int, reduction: Reduction) -> Fitted:
        """Write a reduction, and make it the next one; its vectors are not written yet."""
        data, size = await asyncio.to_thread(reduction.to_bytes), self._limits.part_bytes
        parts = [data[i : i + size] for i in range(0, len(data), size)]

        async def write(part: int) -> None:
            row = {"name": self._name(generation, part), "data": binary(parts[part])}
            if refused := (await self._client.insert(CATALOGUE, [row])).refused:
                raise StoreError(
                    f"The catalogue {CATALOGUE} does not take a part of a reduction: {refused[0]}."
                )

        await for_each_concurrently(write, range(len(parts)), self._client.concurrency)
        fitted = await self.refresh()
        self._loaded[generation] = reduction
        return await self._set_fitted(Fitted(fitted.current, (generation, len(parts))))

    async def commit(self, generation: int) -> None:
        """Make the next reduction the current one, unless another client's has taken its place."""
        fitted = await self.refresh()
        if fitted.next is not None and fitted.next[0] == generation:
            await self._set_fitted(Fitted(fitted.next, None))
            await self._delete_parts(generation)

    async def forget(self) -> None:
        """Go back to an index without a reduction."""
        await self._set_fitted(Fitted())
        await self.set_size(Size())
        await self._delete_parts(math.inf)

    async def _delete_parts(self, before: float) -> None:
        """Delete the parts of reductions that are older; a younger one may be under way."""
        start = len(self._tables.name) + 1
        names = await self._catalogue.part_names()
        await self._catalogue.delete_rows(
            [name for name in names if int(name[start:].partition(".")[0]) < before]
        )

    async def set_size(self, size: Size) -> None:
        """Write how many documents there are."""
        self.size = size
        await self._set({"size": json.dumps({"counted": size.counted, "since": size.since})})

    async def _set_fitted(self, fitted: Fitted) -> Fitted:
        await self._set({"reduction": fitted.to_json()})
        self.fitted = fitted
        return fitted

    async def _set(self, cells: Row) -> None:
        update = {"filter": {"name": self._tables.name}, "update": {"$set": cells}}
        await self._client.command(CATALOGUE, {"updateOne": update})

    def _name(self, generation: int, part: int) -> str:
        return f"{self._tables.name}#{generation}.{part}"

    async def _part(self, name: str) -> bytes | None:
        pages = self._client.pages(CATALOGUE, ("name", "data"), where={"name": name}, limit=1)
        rows = [row async for page in pages for row in page]
        return from_binary(rows[0]["data"]) if rows and "data" in rows[0] else None
