"""Folders that cannot be read: the tests may run as a user who may read everything."""

from __future__ import annotations

from pathlib import Path

import pytest


def close_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Refuse to list the folders of this name."""
    inside = Path.iterdir

    def closed(path: Path) -> object:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return inside(path)

    monkeypatch.setattr(Path, "iterdir", closed)
