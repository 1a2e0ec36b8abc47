"""What was found out about this machine, kept in a file until something that it hangs on changes. JSON in and out."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from sam3_build.digest import canonical, digest
from sam3_build.folders import write_atomically
from sam3_build.spec import Json


def read(path: Path, guard: str) -> Json:
    """Return what was written to `path` under the same `guard`; None when there is nothing, or it is damaged."""
    try:
        data = json.loads(path.read_bytes())
        if data["guard"] != guard or data["checksum"] != digest([guard, data["device"]]):
            return None
        found: Json = data["device"]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, guard: str, found: Json) -> None:
    """Keep `found` at `path`. A folder that cannot be written is reported later: it will be asked again."""
    data: Json = {"guard": guard, "checksum": digest([guard, found]), "device": found}
    with suppress(OSError):
        write_atomically(path, canonical(data), durable=False)


def drop(path: Path) -> None:
    """Drop what is kept at `path`: it turned out to be wrong."""
    with suppress(OSError):
        path.unlink()
