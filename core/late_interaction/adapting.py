"""What an adapter to a framework may import, beside the names of `late_interaction` itself.

The adapters to LangChain and LlamaIndex import from `late_interaction`, its modules `explain`, `filters`, `metadata`
and `evaluation`, and from here (and `lazy` in their `__init__`); so may yours. Everything else is private and may
change without notice.

An adapter's store derives from `PipelineHolder`, which holds a `SyncPipeline` made of a model and `place_of(…)`. Its
methods run operations on that pipeline: `self._pipeline.run(operation)` in a sync method, and
`await self._pipeline.arun(operation)` in its async twin. It indexes `Encodable` rows, and takes the options of the
pipeline whole, as `**options: Unpack[SearchOptions]`.
"""

from late_interaction.encoders.base import Item, check_texts
from late_interaction.explain.explaining import FoundBy
from late_interaction.images.loading import ImageSource, NamedImage
from late_interaction.images.storing import IMAGE_KEY, THUMBNAIL_KEY, StoreImages
from late_interaction.lifecycle import PipelineHolder
from late_interaction.maxsim import maxsim
from late_interaction.options import BATCH_SIZE, FilterSpec, Mode, OnError, check_names
from late_interaction.pipeline import Query
from late_interaction.ranking import check_mmr, diversify, filled, mmr, relevance, relevances
from late_interaction.rows import BadRow, Encodable, check_doc_id, content_id
from late_interaction.stores.opening import AstraPlace, open_store, place_of
from late_interaction.types import DocId, FloatMatrix
from late_interaction.validation import (
    check_flag,
    check_matrix,
    check_not_negative,
    check_one_of,
    check_positive,
    is_blank,
    shown,
)

__all__ = [
    "BATCH_SIZE",
    "IMAGE_KEY",
    "THUMBNAIL_KEY",
    "AstraPlace",
    "BadRow",
    "DocId",
    "Encodable",
    "FilterSpec",
    "FloatMatrix",
    "FoundBy",
    "ImageSource",
    "Item",
    "Mode",
    "NamedImage",
    "OnError",
    "PipelineHolder",
    "Query",
    "StoreImages",
    "check_doc_id",
    "check_flag",
    "check_matrix",
    "check_mmr",
    "check_names",
    "check_not_negative",
    "check_one_of",
    "check_positive",
    "check_texts",
    "content_id",
    "diversify",
    "filled",
    "is_blank",
    "maxsim",
    "mmr",
    "open_store",
    "place_of",
    "relevance",
    "relevances",
    "shown",
]
