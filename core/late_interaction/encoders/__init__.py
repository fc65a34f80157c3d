"""Encoders: text and images to token matrices."""

from late_interaction.encoders.auto import load_model
from late_interaction.encoders.base import LateInteractionModel, check_texts
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.encoders.colpali import ColPaliModel
from late_interaction.encoders.multi_vector import MultiVectorModel

__all__ = [
    "ColBERTModel",
    "ColPaliModel",
    "LateInteractionModel",
    "MultiVectorModel",
    "check_texts",
    "load_model",
]
