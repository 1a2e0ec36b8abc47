"""TensorRT-RTX, ahead of time: takes an ONNX file and shape profiles, builds one engine for the chosen GPU generations.

Builds on a machine without a GPU, strongly typed: the types are the graph's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sam3_build.backends import _tensorrt
from sam3_build.plugins import Backend, BuildRequest, Precision, RunRequest, Session
from sam3_build.spec import Device, DeviceFingerprint, Json

# What release 1.7 compiles for. A test holds this against the installed library.
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

# The types that it multiplies matrices in, and those of them that it lacks for GPUs of the first generation.
TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "INT8")
_NOT_ON_TURING = {"FLOAT": "FP32 matrix multiplication", "BFLOAT16": "BFLOAT16"}

LIBRARY = _tensorrt.Library("tensorrt_rtx", "TensorRT-RTX", ("tensorrt_rtx",), "pip install tensorrt-rtx")


@dataclass(frozen=True)
class TensorRTRTXOptions:
    """What a manifest says about a TensorRT-RTX target: the GPU generations, such as "8.9" for Ada, of one engine."""

    compute_capabilities: tuple[str, ...]


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Build `<stem>.engine` for all compute capabilities of the options; return what it is made for.

    No timing cache is loaded or saved: it has no effect here, and asking for one needs a GPU.
    The bytes of a large engine differ from process to process (the builder orders things by address), so nothing
    may be keyed by them.
    """
    capabilities = _capabilities(request.options)

    def make_config(
        trt: ModuleType, profiles: list[object], monitor: object
    ) -> Callable[[object, object], _tensorrt.BuilderConfig]:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        pairs = [_pair(c) for c in capabilities]
        create: Callable[[object, object], _tensorrt.BuilderConfig] = CreateConfigRTX(
            compute_capabilities=pairs, profiles=profiles, progress_monitor=monitor
        )
        return create

    where = f"{request.onnx.name} for compute capabilities {', '.join(capabilities)}"
    profiles = _tensorrt.build_engine(request, out, LIBRARY, where, make_config)
    return {"compute_capabilities": capabilities, "profiles": profiles}


def _session(request: RunRequest) -> AbstractContextManager[Session]:
    from sam3_build.backends import _engine_session  # no build imports it: see layers.RUN_ONLY

    return _engine_session.session(request, LIBRARY)


def _capabilities(options: Mapping[str, Json]) -> list[str]:
    """Return the options' compute capabilities, in ascending order (their order changes nothing in the engine)."""
    given = options["compute_capabilities"]
    assert isinstance(given, list | tuple)
    return sorted(map(str, given), key=lambda c: _pair(c) if re.fullmatch(r"\d+\.\d+", c) else (0, 0))


def _pair(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def _impossible(options: Mapping[str, Json], precision: Precision) -> str | None:
    """Say why no machine can build this, or None."""
    capabilities = _capabilities(options)
    takes = f"this release takes {', '.join(COMPUTE_CAPABILITIES)}"
    if not capabilities:
        return f"compute_capabilities is empty; {takes}"
    if repeated := sorted({c for c in capabilities if capabilities.count(c) > 1}):
        return f"compute capability {', '.join(repeated)} is listed twice"
    if unknown := [c for c in capabilities if c not in COMPUTE_CAPABILITIES]:
        return f"TensorRT-RTX cannot build for compute capability {', '.join(unknown)}; {takes}"
    if unknown := [kind for kind in precision.gemm_types if kind not in TYPES]:
        return f"{precision.name}: TensorRT-RTX has no {unknown[0]} matrix multiplication; it has {', '.join(TYPES)}"
    lacking = [kind for kind in precision.gemm_types if kind in _NOT_ON_TURING]
    if lacking and "7.5" in capabilities:
        lacks = f"TensorRT-RTX has no {_NOT_ON_TURING[lacking[0]]} on compute capability 7.5"
        return f"{lacks}; leave it out, or build precisions that multiply in FLOAT16 only, such as fp16"
    return None


def _missing(options: Mapping[str, Json], device: Device | None) -> str | None:
    """Say which library is not installed here, or None."""
    return LIBRARY.missing()


def _cannot_run(options: Mapping[str, Json], device: Device | None) -> str | None:
    """Say why this GPU does not run an engine for these generations, or None."""
    assert isinstance(device, DeviceFingerprint)
    actual, made_for = str(device.gpu_class["compute_capability"]), _capabilities(options)
    if actual not in made_for:
        return f"its engine is for compute capability {', '.join(made_for)}; this machine's GPU has {actual}"
    return None


def _device_fields(options: Mapping[str, Json], device: Device | None) -> Mapping[str, Json]:
    """Return what an ahead-of-time engine is bound to, beside the exact release, which the tools carry."""
    return {"os": _system(), "compute_capabilities": _capabilities(options)}


def _system() -> str:
    """Return the operating system and the processor: `linux-x86_64`."""
    if hasattr(os, "uname"):
        return f"{os.uname().sysname}-{os.uname().machine}".lower()
    import platform  # takes a millisecond of a no-op

    return f"{platform.system()}-{platform.machine()}".lower()


BACKEND = Backend(
    name="tensorrt_rtx",
    summary="TensorRT-RTX engines, built ahead of time for GPU generations; building needs no GPU",
    product="TensorRT-RTX engines",
    extension=".engine",
    options=TensorRTRTXOptions,
    tools=lambda options: ("tensorrt_rtx", "polygraphy"),
    uses_profiles=True,
    env={"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    needs_gpu=lambda options: ("run",),
    runs=lambda options: True,
    impossible=_impossible,
    missing=_missing,
    cannot_run=_cannot_run,
    device_fields=_device_fields,
    build=build,
    session=_session,
    polygraphy=_tensorrt.polygraphy_options,
    variants=(
        (f"for compute capability {', '.join(COMPUTE_CAPABILITIES)}", {"compute_capabilities": COMPUTE_CAPABILITIES}),
    ),
)
