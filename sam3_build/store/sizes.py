"""Sizes in bytes as people read them, and the free space of a disk."""

from __future__ import annotations

import shutil
from pathlib import Path


def readable_size(size: int | None) -> str:
    """Return a number of bytes as people read it, `?` when it is not known."""
    if size is None:
        return "?"
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that `folder` lies on, or will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
