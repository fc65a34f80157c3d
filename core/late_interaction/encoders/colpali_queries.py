"""How a visual model's queries were written when it was trained: what stands before and behind the text."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.encoders.checkpoint import read_json
from late_interaction.encoders.colpali_families import VisualFamily
from late_interaction.encoders.registry import KNOWN_MODELS

logger = logging.getLogger(__name__)

_IN_TEMPLATE = re.compile(r"(Query|Question): ")


@dataclass(frozen=True, slots=True)
class QueryForm:
    """What stands around the text of a query.

    Attributes:
        prefix: before the text.
        end: behind the text and the augmentation tokens: a line end, or nothing.
    """

    prefix: str
    end: str


def library_form(family: VisualFamily, processor: Any) -> QueryForm:
    """Return the form that the installed library gives to a query, whatever the checkpoint."""
    prefix = "Query: " if family.in_chat else str(processor.query_prefix)
    return QueryForm(prefix, "\n" if family.name in {"colpali-native", "colqwen2-native"} else "")


def trained_form(model_name: str, folder: Path, family: VisualFamily, processor: Any) -> QueryForm:
    """Return the form that a checkpoint was trained with; the library's where neither registry nor files tell.

    The registry knows the published ones. Files that tell are sentence-transformers' (a prompt for queries, a chat
    template), and colpali-engine's git_hash.txt: its own training writes it, with the form that `FAMILIES` names.
    """
    installed = library_form(family, processor)
    if family.trained is None:
        return installed
    prefix, end = family.trained
    if family.library == "transformers":
        return QueryForm(
            installed.prefix, end
        )  # The prefix stands in the checkpoint's processor_config.json.
    told = trained_prefix(model_name, folder, family)
    if told is not None:
        return QueryForm(told, end if told else installed.end)
    logger.info(
        "%s does not tell which prefix its queries were trained with: %r stands before them. Checkpoints of "
        "colpali-engine up to 0.3.12 were trained with %r: give query_prefix=%r for one of them.",
        folder,
        installed.prefix,
        prefix,
        prefix,
    )
    return installed


def trained_prefix(model_name: str, folder: Path, family: VisualFamily) -> str | None:
    """Return what stood before a checkpoint's queries in training; None where neither registry nor files tell."""
    known = next((model.query_prefix for model in KNOWN_MODELS if model.name == model_name), None)
    told = _told(folder) if known is None else known
    if told is None and family.trained is not None and (folder / "git_hash.txt").is_file():
        told, _ = family.trained
    return told


def _told(folder: Path) -> str | None:
    """Return the prefix that sentence-transformers' files tell."""
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    if prompts.get("query"):
        return str(prompts["query"])
    template = folder / "chat_template.jinja"
    if not ((folder / "modules.json").is_file() and template.is_file()):
        return None
    found = _IN_TEMPLATE.search(template.read_text(encoding="utf-8"))
    return None if found is None else found[0]
