"""Why a document matched: the words, or the parts of an image, whose vectors answered those of the query.

`LateInteractionPipeline.explain` and `SearchResult.explain` give an `Explanation` of a document in an index. The
functions here work on texts and images alone, without an index: `matched_words`, `word_contributions`,
`image_heat_maps`, `draw_heat_map`.
"""

from late_interaction.explain.explanation import DocumentToken, Explanation, Pair, Patches, QueryToken, Word
from late_interaction.explain.heatmap import draw_heat_map, image_heat_maps
from late_interaction.explain.matching import (
    check_explains,
    explained,
    matched_parts,
    matched_words,
    word_contributions,
)
from late_interaction.explain.words import Span, WordMatch, word_spans

__all__ = [
    "DocumentToken",
    "Explanation",
    "Pair",
    "Patches",
    "QueryToken",
    "Span",
    "Word",
    "WordMatch",
    "check_explains",
    "draw_heat_map",
    "explained",
    "image_heat_maps",
    "matched_parts",
    "matched_words",
    "word_contributions",
    "word_spans",
]
