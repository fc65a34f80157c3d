"""What MkDocs does beside building the pages of docs/: pages from outside of it, and pictures from their mermaid text.

The links of a page lead to files of the checkout, as they do on a forge. On the site those files have other places.
"""

from __future__ import annotations

import base64
import html
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mmdr
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ["*.md", "benchmarks/*.md", "notebooks/*.ipynb"]
"""Files from outside of docs/ that are part of the site, below checkout/."""
_PLAIN = "%%{init: {'theme': 'neutral', 'fontFamily': 'sans-serif'}}%%\n"
_ALT = "Diagram; the text below says the same"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have mermaid's pictures drawn while the site is built: no script of a reader's browser has to be loaded."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "mermaid", "class": "mermaid", "format": draw}]
    return config


def draw(source: str, *_: Any, **__: Any) -> str:
    """Return an image of a mermaid diagram, as HTML."""
    svg = mmdr.render(_PLAIN + source).svg()
    width = re.search(r"max-width: ?([\d.]+)px", svg)
    data = base64.b64encode(svg.encode()).decode()
    size = f' width="{float(width[1]):.0f}"' if width else ""
    return f'<div class="diagram"><img alt="{_ALT}"{size} src="data:image/svg+xml;base64,{data}"></div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            place = site_place(path.relative_to(ROOT).as_posix())
            text = path.read_text(encoding="utf-8")
            files.append(
                File.generated(
                    config, place, content=from_notebook(text) if path.suffix == ".ipynb" else text
                )
            )
    return files


def from_notebook(text: str) -> str:
    """Return a notebook with what it printed, as Markdown."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts)


def shown(output: dict[str, Any]) -> str:
    """Return an output of a notebook's cell, in the richest of its forms that a page can show."""
    data = {
        kind: "".join(value) for kind, value in output.get("data", {"text/plain": output.get("text")}).items()
    }
    if "image/png" in data:
        return f'<img alt="What the cell draws" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    return f'<div class="output"><pre>{html.escape(data["text/plain"])}</pre></div>'


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the checkout lead to their places on the site; others become plain text."""
    here = page.file.src_uri
    folder = posixpath.dirname(checkout_place(here))

    def place(match: re.Match[str]) -> str:
        text, target = match["text"], urlsplit(match["target"])
        if target.scheme or not target.path:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target.path))
        there = site_place(path)
        if files.get_file_from_path(there) is None and (ROOT / path).exists():
            return text
        relative = os.path.relpath(there, posixpath.dirname(here) or ".")
        return f"{match['start']}({relative}{'#' + target.fragment if target.fragment else ''})"

    return re.sub(r"(?P<start>!?\[(?P<text>[^\]]*)\])\((?P<target>[^)\s]+)\)", place, markdown)


def checkout_place(place: str) -> str:
    """Return where the file at a place of the site is in the checkout."""
    return place.removeprefix("checkout/") if place.startswith("checkout/") else f"docs/{place}"


def site_place(path: str) -> str:
    """Return the place on the site of a file of the checkout; a notebook becomes a page."""
    path = re.sub(r"\.ipynb$", ".md", path)
    return path.removeprefix("docs/") if path.startswith("docs/") else f"checkout/{path}"
