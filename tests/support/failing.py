"""A store that fails when it is told to."""

from __future__ import annotations

from collections.abc import Sequence

from late_interaction import EncodedDocument, LocalStore, StoreError


class FailsAtItsThirdWrite(LocalStore):
    """Takes two writes, fails at the third and takes the others."""

    writes = 0

    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        self.writes += 1
        if self.writes == 3:
            raise StoreError("out of order")
        await super().upsert(documents)
