"""Encoders: text and images to token matrices."""

from late_interaction.encoders.base import LateInteractionModel, check_texts
from late_interaction.encoders.colbert import ColBERTModel

__all__ = ["ColBERTModel", "LateInteractionModel", "check_texts"]
