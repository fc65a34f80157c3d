"""The kinds of files that are read, by their suffixes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from late_interaction.images.loading import IMAGE_SUFFIXES


class Kind(Enum):
    """How a file is read."""

    TEXT = "text"
    MARKDOWN = "Markdown"
    RST = "reStructuredText"
    CODE = "source code"
    CSV = "CSV"
    JSON_LINES = "JSON Lines"
    JSON = "JSON"
    NOTEBOOK = "notebook"
    MAIL = "mail"
    OFFICE = "office"
    PDF = "PDF"
    IMAGE = "image"


_CODE = """
    asm awk bash bat c cc cfg cjs clj cmake cmd coffee cpp cs css cu cxx d dart el elm erl ex exs f f90 fish fs go
    gradle graphql groovy h hh hpp hs hxx ini ipp java jl js jsx kt kts less lisp lua m mjs ml mm nim nix pas php pl pm
    proto ps1 py pyi pyx r rb rs sass scala scm scss sh sol sql svelte swift tcl tex tf toml ts tsx v vb vhd vue xml
    xsd xsl yaml yml zig zsh
"""
_SUFFIXES = {
    Kind.TEXT: ".txt .text .log",
    Kind.MARKDOWN: ".md .markdown .mdown .mkd .mdx .qmd .rmd",
    Kind.RST: ".rst .rest",
    Kind.CODE: " ".join(f".{suffix}" for suffix in _CODE.split()),
    Kind.CSV: ".csv .tsv .tab .psv",
    Kind.JSON_LINES: ".jsonl .ndjson",
    Kind.JSON: ".json",
    Kind.NOTEBOOK: ".ipynb",
    Kind.MAIL: ".eml",
    Kind.OFFICE: ".html .htm .xhtml .docx .docm .pptx .pptm .xlsx .xlsm .epub",
    Kind.PDF: ".pdf",
    Kind.IMAGE: " ".join(IMAGE_SUFFIXES),
}
KINDS: dict[str, Kind] = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""The kind of each suffix that is read."""

SUFFIXES = tuple(KINDS)


def kind_of(file: Path) -> Kind:
    """Return the kind of a file, by its suffix in any case.

    Raises:
        KeyError: it is of no kind that is read.
    """
    return KINDS[file.suffix.lower()]
