"""GPUs as their drivers describe them, from published figures: test data for everything that is bound to a device."""

from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

from sam3_build.machine.gpu import fingerprint
from sam3_build.machine.nvidia import Reading
from sam3_build.spec import DeviceFingerprint


def reading(
    name: str,
    capability: tuple[int, int],
    *,
    sms: int,
    l2_mib: float,
    bus: int,
    shared_kib: tuple[int, int, int],
    ecc: bool,
    memory_mib: int,
) -> Reading:
    """Return what the driver says; `shared_kib` is per block (opted in), per multiprocessor and reserved per block."""
    optin, per_sm, reserved = (kib * 1024 for kib in shared_kib)
    attributes = {
        "texture_alignment": 512,
        "sm_count": sms,
        "integrated": 0,
        "ecc": int(ecc),
        "memory_bus_bits": bus,
        "l2_bytes": int(l2_mib * 1024 * 1024),
        "capability_major": capability[0],
        "capability_minor": capability[1],
        "shared_memory_per_sm": per_sm,
        "shared_memory_per_block_optin": optin,
        "reserved_shared_memory_per_block": reserved,
    }
    uuid = f"GPU-{uuid5(NAMESPACE_OID, name)}"
    return Reading(name, uuid, 0, memory_mib << 20, "580.65.06", "13.0", attributes)


ADA_SHARED, TURING_SHARED = (99, 100, 1), (64, 64, 0)
READINGS = {
    "rtx_4090": reading(
        "NVIDIA GeForce RTX 4090", (8, 9), sms=128, l2_mib=72, bus=384, shared_kib=ADA_SHARED, ecc=False,
        memory_mib=24564,
    ),
    "l4": reading("NVIDIA L4", (8, 9), sms=58, l2_mib=48, bus=192, shared_kib=ADA_SHARED, ecc=True, memory_mib=23034),
    "a10": reading("NVIDIA A10", (8, 6), sms=72, l2_mib=6, bus=384, shared_kib=ADA_SHARED, ecc=True, memory_mib=23028),
    "t4": reading("Tesla T4", (7, 5), sms=40, l2_mib=4, bus=256, shared_kib=TURING_SHARED, ecc=True, memory_mib=15360),
}  # fmt: skip


def _gpu(name: str) -> DeviceFingerprint:
    return fingerprint(READINGS[name], "linux-x86_64")


RTX_4090, L4, A10, T4 = (_gpu(name) for name in READINGS)
