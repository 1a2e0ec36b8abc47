"""Devices of this machine, remembered: its GPU, and what a backend's own library finds.

They are kept in `artifacts/.device.json` and `artifacts/.<backend>.json` for one start of the machine, one driver and
one release of the library, so that a no-op asks neither; before anything is built or run on one of them it is asked
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from sam3_build.digest import digest
from sam3_build.documents import value_of
from sam3_build.errors import BuildError, NoDeviceError
from sam3_build.machine import gpu, nvidia, remembered
from sam3_build.spec import DeviceFingerprint, Processors

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def cached_fingerprint(environ: Mapping[str, str], path: Path) -> DeviceFingerprint:
    """Return this machine's GPU as remembered at `path`, else by asking. NoDeviceError says why there is none."""
    state = nvidia.state(environ)
    if state is None:
        raise NoDeviceError(gpu.NONE_FOUND)
    guard = digest(state)
    known = remembered.read(path, guard)
    if isinstance(known, dict):
        with suppress(BuildError):  # another version of this package wrote it
            return value_of(DeviceFingerprint, known)
    actual = gpu.probe(environ)
    remembered.write(path, guard, asdict(actual))
    return actual


def cached(probe: Callable[[], Processors], releases: tuple[str, ...], path: Path) -> Processors:
    """Return what is remembered at `path` of these releases, else what `probe` finds. A problem is not remembered."""
    try:
        boot = _BOOT_ID.read_text()
    except OSError:
        return probe()  # nothing tells one start of the machine from the next
    guard = digest([boot, list(releases)])
    known = remembered.read(path, guard)
    if isinstance(known, dict):
        return Processors({name: fields for name, fields in known.items() if isinstance(fields, dict)})
    found = probe()
    if found.problem is None:
        remembered.write(path, guard, {name: dict(fields) for name, fields in found.devices.items()})
    return found
