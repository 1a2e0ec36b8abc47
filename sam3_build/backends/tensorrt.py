"""TensorRT 10 and 11: takes an ONNX file and shape profiles, builds one engine for this machine's GPU, which it needs.

Strongly typed in both releases, so that the types are the graph's: 11 has no other networks, 10 takes the flag.
docs/tensorrt-flags.md lists each flag with the releases that have it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from sam3_build.backends import _tensorrt
from sam3_build.backends._engine_layers import layer_types
from sam3_build.folders import write_atomically
from sam3_build.plugins import Backend, BuildRequest, Precision, RunRequest, Session
from sam3_build.spec import Device, DeviceFingerprint, Json

LIBRARY = _tensorrt.Library(
    "tensorrt", "TensorRT", ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "pip install 'sam3-build[tensorrt]'"
)

# Of the free memory, what tactics may take while they are tried; weights and activations need the rest.
_SHARE = 0.75
_GIB = 1 << 30
_MIB = 1 << 20

# The oldest GPU generation of each level: what is left of the GPU class when an engine may run on others.
_AMPERE = (8, 0)


@dataclass(frozen=True)
class TensorRTOptions:
    """What a manifest says about a TensorRT target.

    hardware_compatibility: which other GPUs the engine may run on: none, those of the same compute capability, or
    all from Ampere on (slower). version_compatible: later releases of TensorRT may run it (slower). driver: how much
    of the driver's version belongs to the engine. workspace_gib: memory for tactics, else most of what is free.
    optimization_level: 0 (fast build) to 5 (fast engine), else TensorRT's own default.
    """

    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"] = "none"
    version_compatible: bool = False
    driver: Literal["ignore", "major", "exact"] = "major"
    workspace_gib: float | None = None
    optimization_level: int | None = None


# ------------------------------------------------------------------ building


@dataclass(frozen=True)
class BuilderSettings:
    """What TensorRT's builder is given; `level` is a name of its HardwareCompatibilityLevel, None for none."""

    workspace_bytes: int | None
    level: str | None
    version_compatible: bool
    optimization_level: int | None


def settings(options: Mapping[str, Json], free_bytes: int | None) -> BuilderSettings:
    """Return what a target's options ask for on a GPU with so much free memory."""
    workspace, optimization = options["workspace_gib"], options["optimization_level"]
    given = workspace * _GIB if isinstance(workspace, int | float) else None
    automatic = free_bytes * _SHARE if free_bytes else None
    size = given or automatic
    compatibility = str(options["hardware_compatibility"])
    assert optimization is None or isinstance(optimization, int)
    return BuilderSettings(
        workspace_bytes=int(size) // _MIB * _MIB if size else None,
        level=None if compatibility == "none" else compatibility.upper(),
        version_compatible=bool(options["version_compatible"]),
        optimization_level=optimization,
    )


def config_arguments(trt: ModuleType, chosen: BuilderSettings) -> dict[str, object]:
    """Return `chosen` as Polygraphy's CreateConfig takes it; only what differs from the library's own defaults.

    Detailed profiling keeps the layers' names and types in the engine, for `layer_types`; it changes no kernel.
    """
    arguments: dict[str, object] = {"profiling_verbosity": trt.ProfilingVerbosity.DETAILED}
    if chosen.workspace_bytes:
        arguments["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: chosen.workspace_bytes}
    if chosen.level:
        arguments["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, chosen.level)
    if chosen.version_compatible:
        arguments["version_compatible"] = True
    if chosen.optimization_level is not None:
        arguments["builder_optimization_level"] = chosen.optimization_level
    return arguments


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Build `<stem>.engine` on the GPU of the request; return what it was made with."""
    assert request.device
    chosen = settings(request.options, request.free_bytes)
    release = _release()
    with timing_cache(request.scratch, request.device, release) as cache:

        def configure(
            trt: ModuleType, profiles: list[object], monitor: object
        ) -> Callable[[object, object], _tensorrt.BuilderConfig]:
            from polygraphy.backend.trt import CreateConfig

            loaded = str(cache) if cache and cache.stat().st_size else None
            create: Callable[[object, object], _tensorrt.BuilderConfig] = CreateConfig(
                profiles=profiles, progress_monitor=monitor, load_timing_cache=loaded, **config_arguments(trt, chosen)
            )
            return create

        where = f"{request.onnx.name} on {request.device.gpu_class['name']}"
        profiles = _tensorrt.build_engine(request, out, LIBRARY, where, configure, cache)
    return {
        "tensorrt": release,
        "gpu": str(request.device.gpu_class["name"]),
        "workspace_bytes": chosen.workspace_bytes,
        "profiles": profiles,
    }


def _release() -> str:
    """Return the release of the library that is loaded: four numbers."""
    from importlib import import_module

    return str(import_module(LIBRARY.module).__version__)


def _session(request: RunRequest) -> AbstractContextManager[Session]:
    from sam3_build.backends import _engine_session  # no build imports it: see layers.RUN_ONLY

    return _engine_session.session(request, LIBRARY)


def _layer_types(request: RunRequest) -> Mapping[str, str]:
    """Return ONNX node name -> element type, as the engine's inspector reports."""
    from sam3_build.backends import _engines

    return layer_types(_engines.inspect_engine(request, LIBRARY))


# ------------------------------------------------------------------ timing cache


@contextmanager
def timing_cache(folder: Path | None, device: DeviceFingerprint, release: str) -> Iterator[Path | None]:
    """Yield a file that holds the timings of this GPU, driver and release, to load and to add to; keep what was added.

    It lies outside the store and in no key: it makes builds faster and, as the library says itself, not reproducible.
    The first line of what is kept is the sha256 of the rest: one that is damaged is set aside, with a warning.
    """
    if folder is None:
        yield None
        return
    kept = folder / f"{cache_name(device, release)}.timing"
    with tempfile.TemporaryDirectory(prefix="sam3_build.") as scratch:
        work = Path(scratch) / "timing.cache"
        work.write_bytes(_read_timings(kept))
        yield work
        _write_timings(kept, work.read_bytes())


def cache_name(device: DeviceFingerprint, release: str) -> str:
    """Return a readable name that no other class of GPU, driver or release has."""
    whole = repr([release, *sorted(device.fields.items())])
    name = re.sub(r"[^a-z0-9]+", "-", str(device.gpu_class["name"]).lower()).strip("-")
    return f"tensorrt-{release}.{name}.{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _read_timings(path: Path) -> bytes:
    """Return the timings at `path`, none when there are none or they are damaged."""
    try:
        checksum, _, data = path.read_bytes().partition(b"\n")
    except OSError:
        return b""
    if checksum == _checksum(data):
        return data
    aside = path.with_suffix(".damaged")
    logging.getLogger(__name__).warning("%s is damaged: set aside as %s, timing anew", path.name, aside.name)
    with suppress(OSError):
        path.replace(aside)
    return b""


def _write_timings(path: Path, data: bytes) -> None:
    """Write timings to `path` in one step. Where that is impossible, only time is lost."""
    try:
        write_atomically(path, _checksum(data) + b"\n" + data, durable=False)
    except OSError as error:
        logging.getLogger(__name__).warning("the timing cache %s cannot be kept: %s", path.name, error.strerror)


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


# ------------------------------------------------------------------ what a target asks for


def _tools(options: Mapping[str, Json]) -> tuple[str, ...]:
    """Return what enters the key: an engine that later releases may run belongs to the major release only."""
    return ("tensorrt:major" if options["version_compatible"] else "tensorrt", "polygraphy")


# The types that graphs of ours multiply matrices in, and that TensorRT 10 and 11 have kernels for.
TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "INT8")


def _impossible(options: Mapping[str, Json], precision: Precision) -> str | None:
    """Say why no machine can build this, or None."""
    if unknown := [kind for kind in precision.gemm_types if kind not in TYPES]:
        return f"{precision.name}: TensorRT has no {unknown[0]} matrix multiplication; it has {', '.join(TYPES)}"
    workspace, level = options["workspace_gib"], options["optimization_level"]
    if isinstance(workspace, int | float) and workspace <= 0:
        return f"workspace_gib is {workspace}: it must be above 0; leave it out to use most of the free memory"
    if isinstance(level, int) and not 0 <= level <= 5:
        return f"optimization_level is {level}: TensorRT has 0 to 5"
    return None


def _missing(options: Mapping[str, Json], device: Device | None) -> str | None:
    """Say what this machine lacks to build, or None."""
    assert isinstance(device, DeviceFingerprint)
    capability = str(device.gpu_class["compute_capability"])
    if options["hardware_compatibility"] == "ampere_plus" and _pair(capability) < _AMPERE:
        return f"hardware_compatibility ampere_plus needs compute capability 8.0; this machine's GPU has {capability}"
    return LIBRARY.missing()


def _cannot_run(options: Mapping[str, Json], device: Device | None) -> str | None:
    return None  # what is built here, for this GPU, runs here


def _pair(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def _device_fields(options: Mapping[str, Json], device: Device | None) -> Mapping[str, Json]:
    """Return what the engine is bound to: the whole class of the GPU, or what its compatibility leaves of it."""
    if not isinstance(device, DeviceFingerprint):
        return {}
    compatibility, driver = str(options["hardware_compatibility"]), str(options["driver"])
    bound = {
        "none": dict(device.gpu_class),
        "same_compute_capability": {name: device.gpu_class[name] for name in ("os", "compute_capability")},
        "ampere_plus": {"os": device.gpu_class["os"], "minimum_compute_capability": "8.0"},
    }[compatibility]
    policy = {"ignore": (), "major": ("driver_major",), "exact": ("driver",)}[driver]
    return {**bound, **{name: device.fields[name] for name in policy}}


BACKEND = Backend(
    name="tensorrt",
    summary="TensorRT engines, built on this machine for its own GPU",
    product="TensorRT engines",
    extension=".engine",
    options=TensorRTOptions,
    tools=_tools,
    uses_profiles=True,
    env={"POLYGRAPHY_USE_TENSORRT_RTX": "0"},
    needs_gpu=lambda options: ("build", "run"),
    runs=lambda options: True,
    impossible=_impossible,
    missing=_missing,
    cannot_run=_cannot_run,
    device_fields=_device_fields,
    build=build,
    session=_session,
    polygraphy=_tensorrt.polygraphy_options,
    layer_types=_layer_types,
    variants=(("", asdict(TensorRTOptions())),),
)
