"""What a search found, in a plan: the lock of a manifest as a parameter of precision actions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sam3_build.manifest.types import Lock, Manifest
from sam3_build.spec import Json


def locked(manifest: Manifest, component: str, precision: str) -> dict[str, Json]:
    """Return the parameter by which a lock enters the key of its precision action; none where there is no lock."""
    lock = manifest.locks.get(component, {}).get(precision)
    return {"locked": _param(lock)} if lock else {}


def with_lock(manifest: Manifest, component: str, precision: str, lock: Lock | None) -> Manifest:
    """Return the manifest with another lock for a component in a precision, or (None) without one."""
    locks = {name: dict(held) for name, held in manifest.locks.items()}
    locks.setdefault(component, {}).pop(precision, None)
    if lock:
        locks[component][precision] = lock
    return replace(manifest, locks=locks)


def _param(lock: Lock) -> Mapping[str, Json]:
    return {"graph": lock.graph, "nodes": list(lock.keep_fp32)}
