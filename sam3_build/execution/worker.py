"""The worker: a request on stdin, one stage run in this process, one JSON result on a descriptor of its own.

It dies with the process that started it, and it alone imports the heavy packages.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from sam3_build import registry
from sam3_build.errors import BuildError, InputError, NoDeviceError
from sam3_build.machine import gpu, remembered
from sam3_build.spec import Json, first_difference

_PR_SET_PDEATHSIG = 1


def run(request: Mapping[str, object]) -> dict[str, Json]:
    """Run the stage that the request names; return `{"facts", "peak_bytes"}` or `{"error"}` (and `"problems"`)."""
    stage, params, inputs, out = (request[k] for k in ("stage", "params", "inputs", "out"))
    assert isinstance(stage, str) and isinstance(params, dict) and isinstance(inputs, dict) and isinstance(out, str)
    try:
        if planned := request.get("gpu"):
            assert isinstance(planned, dict)
            _hold_to_plan(planned)
        if planned := request.get("processor"):
            assert isinstance(planned, dict)
            _hold_processor_to_plan(planned)
        # Temporary files can be as large as weights. Beside `out` they go with the action's folder, whatever happens.
        with tempfile.TemporaryDirectory(dir=Path(out).parent, ignore_cleanup_errors=True) as tempfile.tempdir:
            facts = registry.stage(stage).run(params, {role: Path(p) for role, p in inputs.items()}, Path(out))
    except InputError as error:
        return {"error": str(error), "problems": [[list(keys), text] for keys, text in error.problems]}
    except BuildError as error:
        return {"error": str(error)}
    except OSError as error:
        if error.errno is None:
            raise
        return {"error": f"{error.filename or out}: {os.strerror(error.errno)}"}
    return {"facts": dict(facts), "peak_bytes": _peak_bytes()}


def _hold_to_plan(planned: Mapping[str, Json]) -> None:
    """Ask the driver for the GPU that is there now: BuildError when the key says another one."""
    uuid, fields, file = planned["uuid"], planned["fields"], planned["file"]
    assert isinstance(fields, dict) and isinstance(file, str)
    try:
        live = gpu.probe(os.environ)
        wrong = gpu.difference(fields, live)
        if wrong is None and live.uuid != uuid:
            wrong = f"it is {live.uuid}, and {uuid} was planned for"
    except NoDeviceError as error:
        wrong = str(error)
    if wrong:
        remembered.drop(Path(file))
        raise BuildError(f"this machine's GPU is not what it was: {wrong}; nothing was done, run it again")


def _hold_processor_to_plan(planned: Mapping[str, Json]) -> None:
    """Ask a backend's library for its device again: BuildError when the key says another one."""
    name, fields, file = planned["backend"], planned["fields"], planned["file"]
    assert isinstance(name, str) and isinstance(fields, dict) and isinstance(file, str)
    probe = registry.backend(name).probe
    assert probe, "only such a backend's actions name it"
    live = probe()
    wrong = live.problem or first_difference(fields, live.devices.get(str(fields.get("device")), {}))
    if wrong:
        remembered.drop(Path(file))
        raise BuildError(f"{name} does not find what was planned for: {wrong}; nothing was done, run it again")


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _FromSource(SourceFileLoader):
    """Loads a module from its source, never from bytecode.

    Python takes bytecode for current when the source has the size and the time, in whole seconds, that it had; a key
    covers the source itself, so that an output of older code would be kept under it for ever.
    """

    def path_stats(self, path: str) -> NoReturn:
        """Say that nothing is known of the source's age: Python then compiles it anew."""
        raise OSError(path)


class _FromSourceFinder(PathFinder):
    """Finds the plug-ins of this package, ahead of Python's own finder, and nothing else."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's specification, with a loader that reads its source."""
        spec = super().find_spec(fullname, path, target) if fullname.startswith("sam3_build.") else None
        if spec and spec.origin and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _FromSource(fullname, spec.origin)
        return spec


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the process `parent` ends (Linux); leave at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(argv: list[str]) -> int:
    """Entry point: `worker <result descriptor> <parent pid>`; the request comes on stdin."""
    descriptor, parent = (int(a) for a in argv)
    die_with(parent)
    os.set_inheritable(descriptor, False)
    return answer(json.load(sys.stdin), descriptor)


def answer(request: Mapping[str, object], descriptor: int) -> int:
    """Run the stage that the request names, write its result to `descriptor` as JSON and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    sys.meta_path.insert(0, _FromSourceFinder)
    try:
        result = run(request)
        message = json.dumps(result, allow_nan=False)
    except Exception as error:
        logging.getLogger(__name__).exception("the stage failed")
        result = {"error": f"{type(error).__name__}: {error}"}
        message = json.dumps(result)
    os.write(descriptor, message.encode())
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
