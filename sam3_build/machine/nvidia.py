"""What the NVIDIA driver reports of one GPU, unprocessed. Nothing else asks the driver.

CUDA decides which GPU is meant (it is the first that CUDA_VISIBLE_DEVICES leaves); NVML, asked for the same UUID, gives
the driver's version, the memory and the number that nvidia-smi shows. Neither makes a context or takes GPU memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import NoDeviceError

if TYPE_CHECKING:
    import ctypes

# CUdevice_attribute of cuda.h: what NVML has no call for, and what it would not give for every kind of GPU.
ATTRIBUTES = {
    "texture_alignment": 14,
    "sm_count": 16,
    "integrated": 18,
    "ecc": 32,
    "memory_bus_bits": 37,
    "l2_bytes": 38,
    "capability_major": 75,
    "capability_minor": 76,
    "shared_memory_per_sm": 81,
    "shared_memory_per_block_optin": 97,
    "reserved_shared_memory_per_block": 111,
}
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_PROC = Path("/proc/driver/nvidia")
_WSL = Path("/usr/lib/wsl/lib/libcuda.so.1")


@dataclass(frozen=True)
class Reading:
    """One GPU. `cuda` is the newest CUDA that the driver runs, such as "13.0"; attributes are those of ATTRIBUTES."""

    name: str
    uuid: str
    index: int
    memory_bytes: int
    driver: str
    cuda: str
    attributes: Mapping[str, int]


def state(environ: Mapping[str, str]) -> list[str] | None:
    """Return what a reading holds for: this start of the machine, this driver, these GPUs, this choice among them.

    None when no driver is loaded. Reads a few small files; asks neither NVML nor CUDA.
    """
    if not any(path.exists() for path in (_PROC / "version", _WSL)):
        return None
    files = [Path("/proc/sys/kernel/random/boot_id"), _PROC / "version", *sorted(_PROC.glob("gpus/*/information"))]
    return [*(_text(file) for file in files), environ.get("CUDA_VISIBLE_DEVICES", "all")]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def read(library: str = "libcuda.so.1") -> Reading:
    """Return the readings of the GPU that CUDA would use first. NoDeviceError says why there is none."""
    cuda = _Cuda(library)
    device = cuda.first()
    identity = cuda.uuid(device)
    with _nvml() as handle_of:
        import pynvml

        handle = handle_of(identity)
        return Reading(
            name=pynvml.nvmlDeviceGetName(handle),
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            index=_index(handle),
            memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            driver=pynvml.nvmlSystemGetDriverVersion(),
            cuda=cuda.version(),
            attributes={name: cuda.attribute(device, number) for name, number in ATTRIBUTES.items()},
        )


def free_bytes(identity: str) -> int:
    """Return how much memory of the GPU with this UUID is free now."""
    with _nvml() as handle_of:
        import pynvml

        return int(pynvml.nvmlDeviceGetMemoryInfo(handle_of(identity.partition("-")[2])).free)


# ------------------------------------------------------------------ CUDA


class _Cuda:
    """The few calls of the CUDA driver that need no context; each raises NoDeviceError with CUDA's own word."""

    def __init__(self, library: str) -> None:
        import ctypes

        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise NoDeviceError(f"the driver's CUDA library cannot be loaded ({error})") from error
        self._call("cuInit", ctypes.c_uint(0))

    def _call(self, function: str, *args: object) -> None:
        import ctypes

        code = getattr(self._library, function)(*args)
        if code == _NO_DEVICE:
            chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
            hidden = "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen!r} may hide it)"
            raise NoDeviceError(f"the NVIDIA driver is loaded, but CUDA finds no GPU{hidden}")
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            message = (text.value or b"unknown").decode()
            raise NoDeviceError(f"CUDA does not answer: {function} says {message!r} ({code}); does `nvidia-smi` work?")

    def first(self) -> ctypes.c_int:
        import ctypes

        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        return device

    def uuid(self, device: ctypes.c_int) -> str:
        import ctypes
        import uuid

        raw = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetUuid_v2", raw, device)
        return str(uuid.UUID(bytes=bytes(raw)))

    def attribute(self, device: ctypes.c_int, number: int) -> int:
        import ctypes

        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    def version(self) -> str:
        import ctypes

        value = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(value))
        return f"{value.value // 1000}.{value.value % 1000 // 10}"


# ------------------------------------------------------------------ NVML


@contextmanager
def _nvml() -> Iterator[_HandleOf]:
    """Hold NVML open and yield a function from UUID to handle; what NVML raises becomes one sentence."""
    try:
        import pynvml
    except ImportError as error:
        raise NoDeviceError("the Python package nvidia-ml-py is not installed (pip install nvidia-ml-py)") from error

    try:
        pynvml.nvmlInit()
        try:
            yield _HandleOf()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise NoDeviceError(
            f"the NVIDIA driver does not answer: {str(error).rstrip('.')}; does `nvidia-smi` work?"
        ) from error


class _HandleOf:
    def __call__(self, identity: str) -> object:
        """Return NVML's handle of a GPU, or of the slice of one (MIG), that has this UUID."""
        import pynvml

        try:
            return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}")
        except pynvml.NVMLError_NotFound:
            return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{identity}")


def _index(handle: object) -> int:
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetIndex(handle))
    except pynvml.NVMLError:  # a slice has none of its own
        return 0
