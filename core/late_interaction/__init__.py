"""Late-interaction retrieval (ColBERT, ColPali): from a folder on a laptop to Astra DB.

Public are the names in `__all__`; `open`, which is not among them so that `import *` leaves Python's own; the modules
`late_interaction.explain`, `late_interaction.filters`, `late_interaction.metadata` and
`late_interaction.evaluation`; and, for adapters to frameworks, `late_interaction.adapting`.
Everything else is private and may change without notice.

The names below are imported at their first use, so that `import late_interaction` costs nothing: torch,
transformers and astrapy are loaded when something needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.lazy import lazy_names

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
        PickleError,
        RowFailure,
        StoreError,
        StoreLockedError,
        StoreWriteError,
    )
    from late_interaction.folders import ReadOptions
    from late_interaction.images.opening import load_image
    from late_interaction.images.pages import image_pages
    from late_interaction.images.pdf import pdf_pages
    from late_interaction.options import IndexOptions, RowOptions, SearchOptions, WriteOptions
    from late_interaction.pipeline import LateInteractionPipeline
    from late_interaction.reading.passages import Passage, passages
    from late_interaction.starting import open as open  # noqa: A004
    from late_interaction.stores.astra.store import AstraStore
    from late_interaction.stores.base import Candidates, Store
    from late_interaction.stores.local.store import LocalStore
    from late_interaction.sync import SyncPipeline
    from late_interaction.syncing import SyncReport
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
    from late_interaction.version import __version__

_HOMES = {
    "late_interaction.encoders.auto": ("load_model",),
    "late_interaction.encoders.base": ("LateInteractionModel",),
    "late_interaction.encoders.colbert": ("ColBERTModel",),
    "late_interaction.encoders.colpali": ("ColPaliModel",),
    "late_interaction.folders": ("ReadOptions",),
    "late_interaction.images.opening": ("load_image",),
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
        "PickleError",
        "RowFailure",
        "StoreError",
        "StoreLockedError",
        "StoreWriteError",
    ),
    "late_interaction.images.pages": ("image_pages",),
    "late_interaction.images.pdf": ("pdf_pages",),
    "late_interaction.options": ("IndexOptions", "RowOptions", "SearchOptions", "WriteOptions"),
    "late_interaction.pipeline": ("LateInteractionPipeline",),
    "late_interaction.stores.astra.store": ("AstraStore",),
    "late_interaction.reading.passages": ("Passage", "passages"),
    "late_interaction.stores.base": ("Candidates", "Store"),
    "late_interaction.stores.local.store": ("LocalStore",),
    "late_interaction.starting": ("open",),
    "late_interaction.sync": ("SyncPipeline",),
    "late_interaction.syncing": ("SyncReport",),
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
    "late_interaction.version": ("__version__",),
}
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
    "IndexOptions",
    "IndexSpec",
    "IndexedIds",
    "LateInteractionError",
    "LateInteractionModel",
    "LateInteractionPipeline",
    "LocalStore",
    "MissingExtraError",
    "ModelError",
    "Passage",
    "PickleError",
    "PrecomputedEmbeddings",
    "ProjectedModel",
    "QueryVectors",
    "RaggedTokens",
    "ReadOptions",
    "RowFailure",
    "RowOptions",
    "SearchOptions",
    "SearchResult",
    "SearchResults",
    "SearchStats",
    "Store",
    "StoreError",
    "StoreLockedError",
    "StoreWriteError",
    "SyncPipeline",
    "SyncReport",
    "WriteOptions",
    "__version__",
    "fit_projection",
    "image_pages",
    "load_image",
    "load_model",
    "passages",
    "pdf_pages",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
