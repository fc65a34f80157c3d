"""OCR for text models: ocrmypdf, if it is installed, writes a text layer, which is then read like any other."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from late_interaction.images.pdf import page_text

OCR_TIMEOUT_S = 120
"""Most seconds for each page that is recognised."""
_LAST_WORDS = 300


def check_ocr() -> list[str]:
    """Return the command that recognises texts.

    Raises:
        ValueError: it is not installed.
    """
    if found := shutil.which("ocrmypdf"):
        return [found]
    if importlib.util.find_spec("ocrmypdf") is not None:
        return [sys.executable, "-m", "ocrmypdf"]
    raise ValueError(
        "OCR needs ocrmypdf, which is not installed: pip install ocrmypdf, and Tesseract and Ghostscript from your "
        "system (on Debian `apt install ocrmypdf` brings all three). A visual model such as ColQwen2 needs no OCR."
    )


def recognise(file: Path, pages: Sequence[int], folder: Path, *, pdf_timeout_s: float) -> Mapping[int, str]:
    """Recognise the text of pages of a PDF.

    Args:
        file: the PDF.
        pages: which of them, from 1; at least one.
        folder: where a copy with the texts may lie meanwhile.
        pdf_timeout_s: most seconds to read the text of a page afterwards.

    Raises:
        ValueError: ocrmypdf failed, took too long, or is not installed.
    """
    made = folder / "recognised.pdf"
    options = ["--force-ocr", "--output-type", "pdf", "--optimize", "0", "--quiet"]
    command = [*check_ocr(), *options, "--pages", ",".join(map(str, pages)), "--", str(file), str(made)]
    limit_s = OCR_TIMEOUT_S * len(pages)
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=limit_s)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise ValueError(f"{file}: OCR of {len(pages)} pages takes longer than {limit_s} seconds.") from None
    if done.returncode:
        words = " ".join(done.stderr.decode(errors="replace").split())[-_LAST_WORDS:]
        raise ValueError(f"{file}: OCR failed: {words or f'ocrmypdf ended with {done.returncode}'}.")
    return {page: page_text(made, page, pdf_timeout_s=pdf_timeout_s).text for page in pages}
