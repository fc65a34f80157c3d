"""What tests of SyncPipeline share."""

from pathlib import Path
from typing import Any

from late_interaction.sync import SyncPipeline
from tests.support.models import HashModel

ROWS = [{"doc_id": f"d{n}", "content": f"word{n} shared", "n": n} for n in range(30)]


def make(folder: Path, **options: Any) -> SyncPipeline:
    return SyncPipeline(folder, HashModel(), doc_pool_factor=1, **options)
