"""Takes the manifests in use; removes from the store and from their views what nothing reaches."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.execution.local import log_path
from sam3_build.execution.session import Session
from sam3_build.store.objects import Store, read_history
from sam3_build.store.view import KEPT
from sam3_build.store.writing import writing

_YOUNG_SECONDS = 60
# What killed runs may leave half written, from a manifest's view.
_SCRATCH = ("../.digests.json.*", "../.device.json.*", "../.manifests/.*", "../.timing/.*", ".*.*", "*/.*")


@dataclass(frozen=True)
class Garbage:
    """Paths that nothing needs, and their size in bytes."""

    paths: tuple[Path, ...]
    size: int


def find_garbage(store: Store, sessions: tuple[Session, ...], keep: int) -> Garbage:
    """Return what neither a plan of `sessions` nor the last `keep` generations of any action name reaches.

    Generations are counted per manifest and action name, over all that ever built into this store, so that a shared
    store loses nothing that another checkout built last.
    """
    keys = {key for session in sessions for key in _fresh(session)}
    for history in (store.root / "names").glob("*/*/*.json"):
        keys.update(read_history(history)[:keep])
    objects = {record.object for key in keys if key and (record := store.record(key))}
    found = [
        *(p for p in (store.root / "records").glob("*/*.json") if p.stem not in keys),
        *(p for p in (store.root / "objects").glob("*/*") if p.name not in objects),
        *_abandoned(store),
        *_scratch(store.root, "records/*/.*", "names/*/*/.*"),
        *(p for s in sessions for p in _scratch(s.view.root, *_SCRATCH)),
    ]
    found += [path for s in sessions for path in _left_over(s)]
    return Garbage(tuple(sorted(set(found))), sum(_size(path) for path in found))


def _fresh(session: Session) -> Iterator[str]:
    """Yield the fresh keys of the plan. An action without a key (a source file is gone) is kept by its history."""
    for action in session.plan.actions:
        with suppress(BuildError):
            answer = session.resolver.resolve(action.name)
            if answer.record and answer.key:
                yield answer.key


def remove(garbage: Garbage) -> None:
    """Delete what was found: records first, so that no record ever points at a deleted object."""
    for path in sorted(garbage.paths, key=lambda p: p.is_dir()):
        with writing(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _abandoned(store: Store) -> Iterator[Path]:
    """Yield work folders whose lock nobody holds: their runs were killed."""
    for path in (store.root / "tmp").glob("*"):
        try:
            descriptor = os.open(store.root / "locks" / path.name, os.O_RDWR)
        except PermissionError:
            continue  # another account's: nothing tells whether it builds there
        except OSError:
            yield path
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        except BlockingIOError:
            pass  # somebody is building there right now
        finally:
            os.close(descriptor)


def _left_over(session: Session) -> Iterator[Path]:
    """Yield files and logs of the view that no action of the plan has any more: their target or precision is gone.

    What lies in KEPT was made for people and machines elsewhere, from actions that may be gone for good reasons.
    """
    actions = session.plan.actions
    known = {path for action in actions for path in (*session.view.paths(action), log_path(session.view, action))}
    found = (path for path in session.view.root.glob("*/*") if path.parent.name not in KEPT)
    yield from (path for path in found if path not in known)


def _scratch(folder: Path, *patterns: str) -> Iterator[Path]:
    """Yield temporary files that killed runs left. A young one may be on its way: nobody locks a report."""
    for path in (p.resolve() for pattern in patterns for p in folder.glob(pattern)):
        if path.is_file() and time.time() - path.stat().st_mtime > _YOUNG_SECONDS:
            yield path


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())
