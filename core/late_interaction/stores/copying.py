"""An index from one store to another, with its vectors: nothing is encoded again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from late_interaction.errors import DocumentError, IndexNotFoundError, RowFailure, StoreError
from late_interaction.maxsim import maxsim
from late_interaction.options import WriteSettings
from late_interaction.progress import tqdm
from late_interaction.stores.base import Store
from late_interaction.types import IndexSpec

_SAMPLED_FROM = 1000
_QUERY_TOKENS = 8
_SCORE_TOLERANCE = 1e-3
DEFAULTS = WriteSettings()


async def copy_index(
    source: Store,
    target: Store,
    options: WriteSettings = DEFAULTS,
    *,
    check: Callable[[IndexSpec, str], None] | None = None,
) -> int:
    """Copy every document of `source`, which is open, into `target`, which is opened or created.

    Args:
        source: where from.
        target: where to; documents of the same ids are replaced, others stay. It is left open.
        options: how many documents go together, and whether those in the target already are left alone.
        check: raises where nobody who has the target could open it; called with the spec and the source's location.

    Returns:
        How many documents were written.

    Raises:
        DocumentError: the target does not take some documents; all others are copied. A failure's `row` is the place
            of its document in the source, from 0, and `.indexed` has the ids that are in the target.
        IndexNotFoundError: there is nothing to copy from.
        IndexMismatchError: the target exists and was built with other settings.
        ValueError: source and target are the same.
    """
    if _are_same(source, target):
        raise ValueError(f"The index {source.location} would be copied onto itself.")
    spec = await source.spec()
    if spec is None:
        raise IndexNotFoundError(f"There is no index {source.location}.")
    if check is not None:
        check(spec, source.location)
    await target.take_after(source)
    await target.open(spec)
    written = n_read = 0
    failures: list[RowFailure] = []
    copied: list[str] = []
    with tqdm(
        desc="Copying", total=await source.count(), unit="doc", disable=not options.show_progress
    ) as bar:
        async for batch in source.scan(batch_size=options.batch_size):
            doc_ids = [item.document.doc_id for item in batch]
            there = await target.existing(doc_ids) if options.skip_existing else set()
            missing = [item for item in batch if item.document.doc_id not in there]
            refused: dict[str | None, RowFailure] = {}
            if missing:
                try:
                    await target.upsert(missing)
                except DocumentError as error:
                    refused = {failure.doc_id: failure for failure in error.failures}
            failures += [
                replace(refused[doc_id], row=n_read + place)
                for place, doc_id in enumerate(doc_ids)
                if doc_id in refused
            ]
            copied += [doc_id for doc_id in doc_ids if doc_id not in refused]
            written += len(missing) - len(refused)
            n_read += len(batch)
            bar.update(len(batch))
    await target.optimize(show_progress=options.show_progress)
    if failures:
        raise DocumentError(failures, copied)
    return written


def _are_same(source: Store, target: Store) -> bool:
    """Return whether both are in one place: of folders, by whatever paths."""
    if source.location == target.location:
        return True
    try:
        return Path(source.location).samefile(target.location)
    except OSError:  # One of them is no folder, or is not there yet.
        return False


async def verify_copy(source: Store, target: Store, *, sample: int = 50) -> None:
    """Compare a copy with its source: the number of documents, and the content and scores of a sample.

    Args:
        source: where the copy is from; open.
        target: where it is; open. It may have other documents too.
        sample: how many documents to compare, of the first thousand.

    Raises:
        StoreError: the copy is not complete, or differs; the message names a document where it does.
    """
    here, there = await source.count(), await target.count()
    if there < here:
        raise StoreError(
            f"The copy is not complete: {target.location} has {there:,} documents, {source.location} {here:,}. Copy "
            "again, leaving out what is there."
        )
    some = await source.find(limit=_SAMPLED_FROM)
    documents = {document.doc_id: document for document in random.sample(some, min(sample, len(some)))}
    copies = {document.doc_id: document for document in await target.documents(list(documents))}
    for doc_id, document in documents.items():
        if copies.get(doc_id) != document:
            raise StoreError(f"The copy differs: document {doc_id!r} is another in {target.location}.")
    doc_ids, matrices = await source.matrices(list(documents))
    copied_ids, copied = await target.matrices(doc_ids)
    if copied_ids != doc_ids:
        raise StoreError(f"The copy is not complete: token vectors are missing in {target.location}.")
    for position in range(min(_QUERY_TOKENS, len(doc_ids))):
        query = matrices.matrix(position)[:_QUERY_TOKENS]
        difference = np.abs(maxsim(query, matrices) - maxsim(query, copied))
        if difference.max() > _SCORE_TOLERANCE * len(query):
            raise StoreError(
                f"The copy differs: document {doc_ids[int(difference.argmax())]!r} has other scores in "
                f"{target.location}."
            )
