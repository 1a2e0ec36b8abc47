"""The file that points to downloaded weights: takes one of an action's output, returns the weights on this machine.

It says what to download again where a cache has it no more: `{"repo", "commit", "weights", "files"}` of a model at the
hub, `{"url", "sha256", "weights"}` of a file at a URL. `weights` is the name of the main file. It names no path, so
that it holds on every machine.
"""

from __future__ import annotations

import json
from pathlib import Path

from sam3_build.weights import download, hub

POINTER = "weights.json"


def locate(path: Path | None) -> Path | None:
    """Return the file that a pointer points to, with all its parts beside it; any other path as it is."""
    if path is None or path.name != POINTER:
        return path
    pointer = json.loads(path.read_bytes())
    if "url" in pointer:
        return download.find(pointer["url"], pointer["sha256"]) or download.get(pointer["url"], pointer["sha256"])
    for name in pointer["files"]:
        hub.get(pointer["repo"], pointer["commit"], name)
    return hub.get(pointer["repo"], pointer["commit"], pointer["weights"])
