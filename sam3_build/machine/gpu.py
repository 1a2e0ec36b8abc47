"""This machine's GPU: its fingerprint, cached and compared with a plan's, and its lock.

A fingerprint is what keys take fields from. It is kept in `artifacts/.device.json` with the state of the machine that
it was read in, so that a no-op asks neither NVML nor CUDA; before anything is built on the GPU it is asked again.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from sam3_build.digest import digest
from sam3_build.documents import value_of
from sam3_build.errors import BuildError, NoDeviceError
from sam3_build.machine import nvidia, remembered
from sam3_build.machine.locks import take
from sam3_build.spec import DeviceFingerprint, Json

# One place for all users and checkouts of a machine. It is not TMPDIR, which may differ between them.
LOCKS = Path("/tmp")  # noqa: S108  (opened without following links, never written)

NONE_FOUND = "none found on this machine"


def cached_fingerprint(environ: Mapping[str, str], path: Path) -> DeviceFingerprint:
    """Return this machine's GPU as remembered at `path`, else by asking. NoDeviceError says why there is none."""
    state = nvidia.state(environ)
    if state is None:
        raise NoDeviceError(NONE_FOUND)
    guard = digest(state)
    known = remembered.read(path, guard)
    if isinstance(known, dict):
        with suppress(BuildError):  # another version of this package wrote it
            return value_of(DeviceFingerprint, known)
    actual = probe(environ)
    remembered.write(path, guard, asdict(actual))
    return actual


def probe(environ: Mapping[str, str]) -> DeviceFingerprint:
    """Ask the driver for the GPU that CUDA would use first. NoDeviceError says why there is none."""
    if nvidia.state(environ) is None:
        raise NoDeviceError(NONE_FOUND)
    return fingerprint(nvidia.read(), operating_system())


def fingerprint(reading: nvidia.Reading, system: str) -> DeviceFingerprint:
    """Return the fingerprint of a GPU. Memory is in whole MiB, so that a few reserved pages make no other class."""
    attributes = dict(reading.attributes)
    capability = f"{attributes.pop('capability_major')}.{attributes.pop('capability_minor')}"
    flags = {name: bool(attributes.pop(name)) for name in ("integrated", "ecc")}
    gpu_class: dict[str, Json] = {
        "os": system,
        "name": reading.name,
        "compute_capability": capability,
        **attributes,
        **flags,
        "memory_mib": reading.memory_bytes >> 20,
    }
    return DeviceFingerprint(gpu_class, reading.driver, reading.cuda, reading.uuid, reading.index)


def operating_system() -> str:
    """Return the system and processor that engines are bound to: `linux-x86_64`."""
    import platform

    return f"{platform.system().lower()}-{platform.machine().lower()}"


def difference(fields: Mapping[str, Json], live: DeviceFingerprint) -> str | None:
    """Return the first of the key's device `fields` that `live` does not have, in words, or None.

    Fields that are no reading of a GPU (the capabilities that an engine is made for) are not compared.
    """
    actual = live.fields
    for name, expected in fields.items():
        if name in actual and actual[name] != expected:
            return f"its {name} is {actual[name]!r}, and {expected!r} was planned for"
    return None


# ------------------------------------------------------------------ locked


@contextmanager
def lock(uuid: str, waiting: Callable[[], None]) -> Iterator[int]:
    """Hold the machine-wide lock of the GPU `uuid` and yield its descriptor (a child that inherits it holds it too).

    `waiting` is called once when somebody else builds or measures there; then this waits.
    """
    path = LOCKS / f"sam3_build.{uuid}.lock"
    descriptor = _open(path)
    try:
        try:
            take(descriptor, fcntl.LOCK_EX, waiting)
        except OSError as error:
            why = (
                "runs take a GPU one after another, and need a file system with locks there: mount a local one (tmpfs)"
            )
            raise BuildError(f"{path.parent}: the GPU's lock cannot be taken: {error.strerror}; {why}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open a lock file for reading, which is enough to lock it; make it, for everybody, only where there is none.

    Linux refuses O_CREAT on another user's file in a shared folder, so it is used for new files only.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            return _regular_file(os.open(path, flags))
        except FileNotFoundError:
            with suppress(FileExistsError):
                created = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
                os.fchmod(created, 0o444)  # whatever the umask: the next one may be another user's
                os.close(created)
            return _regular_file(os.open(path, flags))
    except OSError as error:
        raise BuildError(f"{path}: the GPU's lock file cannot be opened: {error.strerror}") from error


def _regular_file(descriptor: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file")
    return descriptor
