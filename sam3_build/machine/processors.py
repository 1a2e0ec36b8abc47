"""Devices that a backend's own library finds on this machine, remembered.

They are kept in `artifacts/.<backend>.json` for one start of the machine and one release of the library, so that a
no-op does not import it; before anything is built or run on one of them it is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sam3_build.digest import digest
from sam3_build.machine import remembered
from sam3_build.spec import Processors

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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
