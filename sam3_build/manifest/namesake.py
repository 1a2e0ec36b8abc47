"""A manifest's path and the project in, the project's other manifest of that name out: both would publish as one."""

from __future__ import annotations

from pathlib import Path


def namesake(path: Path, root: Path) -> Path | None:
    """Return the manifest in `root/manifests/` that is called like the one at `path`, unless it is that same file.

    OSError when there is nothing at `path`.
    """
    for suffix in (".yaml", ".yml"):
        own = root / "manifests" / f"{path.stem}{suffix}"
        if own.is_file():
            return None if own.samefile(path) else own
    return None
