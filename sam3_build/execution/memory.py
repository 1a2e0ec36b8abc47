"""Takes an action, returns the peak memory its worker is expected to need; admits a worker once that fits.

With `doit -n 2` two workers run at a time. Each is let in when what is free, less what those already running have still
to take, holds its expected peak. One that fits nowhere runs alone.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sam3_build import registry
from sam3_build.params import TrialParams
from sam3_build.spec import Action, Json
from sam3_build.store.resolve import Resolver

_CGROUP = Path("/sys/fs/cgroup")
_POLL_SECONDS = 0.5


def expected_peak(action: Action, family: str, resolver: Resolver) -> int:
    """Return the bytes that the worker of `action` is expected to have resident at its peak.

    Its stage says how many per byte of its components' weights, and per byte of the largest tensor that a network
    computes for the rows of the widest case. A loop has all its components loaded. The action's inputs are built.
    """
    need = registry.stage(action.stage).memory
    weights = _weights(action, resolver) if need.weights else 0
    largest = _largest_tensor(action, family, resolver) if need.activations else 0
    return need.base + int(need.weights * weights + need.activations * largest)


def _weights(action: Action, resolver: Resolver) -> int:
    """Return the bytes of the components' weights: their graphs' files, or their part of the checkpoint in FP32."""
    paths = resolver.input_paths(action)
    graphs = [path for role, path in paths.items() if role.partition("_")[0] == "onnx"]
    if graphs:
        return sum(file.stat().st_size for folder in graphs for file in folder.iterdir())
    listed = [path for role, path in paths.items() if role.partition("_")[0] == "tensors"]
    tensors = (json.loads(path.read_bytes())["tensors"].values() for path in listed)
    return sum(4 * math.prod(tensor["shape"]) for part in tensors for tensor in part)


def _largest_tensor(action: Action, family: str, resolver: Resolver) -> int:
    """Return the bytes of the largest tensor inside one of the components, over all rows of the widest case."""
    checkpoint = resolver.resolve("checkpoint").record
    samples = [record for name in resolver.of_stage("samples") if (record := resolver.resolve(name).record)]
    if checkpoint is None or not samples:
        return 0
    config: Mapping[str, Json] = json.loads((resolver.folder(checkpoint) / "config.json").read_bytes())
    rows = max(int(str(record.facts.get("rows", 1))) for record in samples)
    return rows * max(registry.family(family).largest_tensor(name, config) for name in _components(action))


def _components(action: Action) -> tuple[str, ...]:
    """Return the components that an action runs."""
    if isinstance(action.arguments, TrialParams):
        return action.arguments.components
    networks = getattr(action.arguments, "networks", None)
    return tuple(network.component for network in networks) if networks else (str(action.params["component"]),)


# ------------------------------------------------------------------ who may start


@dataclass
class Running:
    """A worker that was let in: what it will need, and its process once there is one."""

    need: int
    pid: int | None = None

    def start(self, pid: int) -> None:
        """Note the process."""
        self.pid = pid


class Admission:
    """Lets workers of this process start when they fit."""

    def __init__(self, free: Callable[[], int] | None = None, resident: Callable[[int], int] | None = None) -> None:
        """Ask `free` for the bytes that can still be had, and `resident` for those that a process has; else the OS."""
        self._free = free or free_bytes
        self._resident = resident or resident_bytes
        self._running: list[Running] = []
        self._changed = threading.Condition()

    @contextmanager
    def admit(self, need: int, waiting: Callable[[int], None]) -> Iterator[Running]:
        """Wait until `need` bytes fit, or nothing else runs; yield the entry that the caller tells of the process.

        `waiting` is called once, with what is free, when there is a wait.
        """
        entry = Running(need)
        with self._changed:
            reported = False
            while self._running and need > (left := self._left()):
                if not reported:
                    waiting(max(0, left))
                    reported = True
                self._changed.wait(_POLL_SECONDS)
            self._running.append(entry)
        try:
            yield entry
        finally:
            with self._changed:
                self._running.remove(entry)
                self._changed.notify_all()

    def _left(self) -> int:
        """Return what is free, less what the running workers have still to take."""
        due = (entry.need - (self._resident(entry.pid) if entry.pid else 0) for entry in self._running)
        return self._free() - sum(max(0, bytes_) for bytes_ in due)


def free_bytes() -> int:
    """Return the bytes that can be had without swapping: of the machine, or of the container when that is less."""
    import psutil

    free: int = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no cgroup v2, or one without a limit ("max")
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat["inactive_file"]))
    return free


def resident_bytes(pid: int) -> int:
    """Return the resident bytes of a process; 0 when it is gone."""
    import psutil

    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return resident
