"""Where the lock file of a manifest lies, and which YAML files are manifests. Reads none of them."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".lock.yaml"


def lock_path(manifest: Path) -> Path:
    """Return where the lock of the manifest at `manifest` lies, there or not."""
    return manifest.with_name(f"{manifest.stem}{SUFFIX}")


def is_lock(path: Path) -> bool:
    """Tell whether a YAML file is a lock and no manifest, by its name."""
    return path.name.endswith(SUFFIX)


def manifest_files(folder: Path) -> list[Path]:
    """Return the manifests in a folder, sorted."""
    return sorted(path for path in folder.glob("*.yaml") if not is_lock(path))
