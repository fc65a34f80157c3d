"""Encoders: text and images to token matrices."""

from late_interaction.encoders.auto import load_model
from late_interaction.encoders.base import LateInteractionModel, check_texts
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.encoders.colpali import ColPaliModel

__all__ = ["ColBERTModel", "ColPaliModel", "LateInteractionModel", "check_texts", "load_model"]
