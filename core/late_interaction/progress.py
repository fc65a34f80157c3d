"""The bar of progress: a widget in a notebook that has ipywidgets, a line of text everywhere else.

tqdm warns at its first import in a notebook without ipywidgets. Its bar of text works there all the same, so nobody
needs the warning.
"""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
