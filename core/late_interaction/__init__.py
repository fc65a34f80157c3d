"""Late-interaction retrieval (ColBERT, ColPali): from a folder on a laptop to Astra DB.

The names below are imported on first use, so that `import late_interaction` costs nothing: torch,
transformers and astrapy are loaded when something needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from late_interaction.encoders.auto import load_model
    from late_interaction.encoders.base import LateInteractionModel
    from late_interaction.encoders.colbert import ColBERTModel
    from late_interaction.encoders.colpali import ColPaliModel
    from late_interaction.encoders.precomputed import PrecomputedEmbeddings
    from late_interaction.encoders.projection import ProjectedModel, fit_projection
    from late_interaction.errors import (
        DocumentError,
        FilterError,
        IndexMismatchError,
        IndexNotFoundError,
        LateInteractionError,
        MissingExtraError,
        ModelError,
        RowFailure,
        StoreError,
        StoreLockedError,
        StoreWriteError,
    )
    from late_interaction.images.loading import load_image
    from late_interaction.images.pdf import pdf_pages
    from late_interaction.pipeline import LateInteractionPipeline
    from late_interaction.stores.astra.store import AstraStore
    from late_interaction.stores.base import Candidates, Store
    from late_interaction.stores.local.store import LocalStore
    from late_interaction.sync import SyncPipeline
    from late_interaction.types import (
        Document,
        EncodedDocument,
        IndexedIds,
        IndexSpec,
        QueryVectors,
        RaggedTokens,
        SearchResult,
        SearchResults,
        SearchStats,
    )

    __version__: str

_HOMES = {
    "late_interaction.encoders.auto": ("load_model",),
    "late_interaction.encoders.base": ("LateInteractionModel",),
    "late_interaction.encoders.colbert": ("ColBERTModel",),
    "late_interaction.encoders.colpali": ("ColPaliModel",),
    "late_interaction.images.loading": ("load_image",),
    "late_interaction.encoders.precomputed": ("PrecomputedEmbeddings",),
    "late_interaction.encoders.projection": ("ProjectedModel", "fit_projection"),
    "late_interaction.errors": (
        "DocumentError",
        "FilterError",
        "IndexMismatchError",
        "IndexNotFoundError",
        "LateInteractionError",
        "MissingExtraError",
        "ModelError",
        "RowFailure",
        "StoreError",
        "StoreLockedError",
        "StoreWriteError",
    ),
    "late_interaction.images.pdf": ("pdf_pages",),
    "late_interaction.pipeline": ("LateInteractionPipeline",),
    "late_interaction.stores.astra.store": ("AstraStore",),
    "late_interaction.stores.base": ("Candidates", "Store"),
    "late_interaction.stores.local.store": ("LocalStore",),
    "late_interaction.sync": ("SyncPipeline",),
    "late_interaction.types": (
        "Document",
        "EncodedDocument",
        "IndexSpec",
        "IndexedIds",
        "QueryVectors",
        "RaggedTokens",
        "SearchResult",
        "SearchResults",
        "SearchStats",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AstraStore",
    "Candidates",
    "ColBERTModel",
    "ColPaliModel",
    "Document",
    "DocumentError",
    "EncodedDocument",
    "FilterError",
    "IndexMismatchError",
    "IndexNotFoundError",
    "IndexSpec",
    "IndexedIds",
    "LateInteractionError",
    "LateInteractionModel",
    "LateInteractionPipeline",
    "LocalStore",
    "MissingExtraError",
    "ModelError",
    "PrecomputedEmbeddings",
    "ProjectedModel",
    "QueryVectors",
    "RaggedTokens",
    "RowFailure",
    "SearchResult",
    "SearchResults",
    "SearchStats",
    "Store",
    "StoreError",
    "StoreLockedError",
    "StoreWriteError",
    "SyncPipeline",
    "__version__",
    "fit_projection",
    "load_image",
    "load_model",
    "pdf_pages",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use."""
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("late-interaction")
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
