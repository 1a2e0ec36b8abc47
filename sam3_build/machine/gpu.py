"""This machine's GPU: its fingerprint, which keys take fields from, and how one differs from a plan's."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import NoDeviceError
from sam3_build.machine import nvidia
from sam3_build.spec import DeviceFingerprint, Json

NONE_FOUND = "none found on this machine"


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
