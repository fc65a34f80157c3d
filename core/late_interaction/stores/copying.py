"""An index from one store to another, with its vectors: nothing is encoded again."""

from __future__ import annotations

from tqdm.auto import tqdm

from late_interaction.errors import IndexNotFoundError
from late_interaction.stores.base import Store


async def copy_index(
    source: Store,
    target: Store,
    *,
    batch_size: int = 100,
    show_progress: bool = False,
    skip_existing: bool = False,
) -> int:
    """Copy every document of `source`, which is open, into `target`, which is opened or created.

    Args:
        source: where from.
        target: where to; documents of the same ids are replaced, others stay. It is left open.
        batch_size: documents read and written together.
        show_progress: show a progress bar.
        skip_existing: leave documents alone whose id is there already, to go on with a copy that was
            interrupted.

    Returns:
        How many documents were written.

    Raises:
        IndexNotFoundError: there is nothing to copy from.
        IndexMismatchError: the target is there and was built otherwise.
        ValueError: source and target are the same.
    """
    if source.location == target.location:
        raise ValueError(f"The index {source.location} would be copied onto itself.")
    spec = await source.spec()
    if spec is None:
        raise IndexNotFoundError(f"There is no index {source.location}.")
    await target.open(spec)
    written = 0
    with tqdm(desc="Copying", total=await source.count(), unit="doc", disable=not show_progress) as bar:
        async for batch in source.scan(batch_size=batch_size):
            there = (
                await target.existing([item.document.doc_id for item in batch]) if skip_existing else set()
            )
            missing = [item for item in batch if item.document.doc_id not in there]
            if missing:
                await target.upsert(missing)
            written += len(missing)
            bar.update(len(batch))
    await target.optimize(show_progress=show_progress)
    return written
