"""TensorRT-RTX, ahead of time: an ONNX file and shape profiles in, one `.engine` for the chosen GPU generations out.

Builds on a machine without a GPU, strongly typed (the types are the graph's), through Polygraphy, which must be told
by an environment variable, before it is imported, that TensorRT means TensorRT-RTX.
"""

from __future__ import annotations

import logging
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.spec import Backend, BuildRequest, Json

# What release 1.7 compiles for. A test holds this against the installed library.
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True)
class TensorRTRTXOptions:
    """What a manifest says about a TensorRT-RTX target: the GPU generations, such as "8.9" for Ada, of one engine."""

    compute_capabilities: tuple[str, ...]


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Build `<stem>.engine` for all compute capabilities of the options; return what it is made for.

    TF32 is off, though this builder has it on by default: what the graph calls FP32 is computed in FP32.
    The bytes of a large engine differ from process to process (the builder orders things by address), so nothing
    may be keyed by them.
    Raises BuildError with TensorRT's own words and the nodes that they name.
    """
    from polygraphy import config as polygraphy_config

    if not polygraphy_config.USE_TENSORRT_RTX:
        raise BuildError(f"Polygraphy was imported without {BACKEND.env}: set it before the process starts")

    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath, Profile
    from polygraphy.exception import PolygraphyException
    from tensorrt_rtx import BuilderFlag

    capabilities = _capabilities(request.options)
    profiles = []
    for shapes in request.profiles:
        profile = Profile()
        for tensor, (low, usual, high) in shapes.items():
            profile.add(tensor, min=low, opt=usual, max=high)
        profiles.append(profile)
    create = CreateConfigRTX(compute_capabilities=[_pair(c) for c in capabilities], profiles=profiles)

    def configure(builder: object, network: object) -> object:
        settings = create(builder, network)
        settings.clear_flag(BuilderFlag.TF32)
        return settings

    with _complaints() as said:
        try:
            network = NetworkFromOnnxPath(str(request.onnx), strongly_typed=True)
            engine = EngineBytesFromNetwork(network, config=configure)()
        except PolygraphyException as error:
            where = f"{request.onnx.name} for compute capabilities {', '.join(capabilities)}"
            raise BuildError(_told(where, [*said, str(error)], request.onnx)) from error
    (out / f"{request.stem}.engine").write_bytes(memoryview(engine))
    return {"compute_capabilities": capabilities, "profiles": len(profiles)}


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Send Polygraphy's and TensorRT's messages through `logging`; yield the list that the errors among them enter."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.colors, G_LOGGER.letter, G_LOGGER.use_python_logging_system = False, False, True
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().strip())

    listener = Listener(level=logging.ERROR)
    logger = logging.getLogger("Polygraphy")
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


def _told(where: str, said: list[str], onnx_file: Path) -> str:
    """Return the message of a failed build: the nodes that TensorRT names, then its own words."""
    import onnx

    words = "\n".join(dict.fromkeys(said))
    tokens = set(re.findall(r"[^\s'\"\[\](),;]+", words))
    graph = onnx.load(str(onnx_file), load_external_data=False).graph
    nodes = [f"{node.name} ({node.op_type})" for node in graph.node if node.name in tokens]
    at = f", at {', '.join(nodes)}" if nodes else ""
    return f"{where}: TensorRT-RTX cannot build it{at}. It says:\n{words}"


def _capabilities(options: Mapping[str, Json]) -> list[str]:
    """Return the options' compute capabilities, in ascending order (their order changes nothing in the engine)."""
    given = options["compute_capabilities"]
    assert isinstance(given, list | tuple)
    return sorted(map(str, given), key=lambda c: _pair(c) if re.fullmatch(r"\d+\.\d+", c) else (0, 0))


def _pair(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def _impossible(options: Mapping[str, Json], precision: str) -> str | None:
    """Say why no machine can build this, or None."""
    capabilities = _capabilities(options)
    takes = f"this release takes {', '.join(COMPUTE_CAPABILITIES)}"
    if not capabilities:
        return f"compute_capabilities is empty; {takes}"
    if repeated := sorted({c for c in capabilities if capabilities.count(c) > 1}):
        return f"compute capability {', '.join(repeated)} is listed twice"
    if unknown := [c for c in capabilities if c not in COMPUTE_CAPABILITIES]:
        return f"TensorRT-RTX cannot build for compute capability {', '.join(unknown)}; {takes}"
    if precision == "fp32" and "7.5" in capabilities:
        return (
            "TensorRT-RTX has no FP32 matrix multiplication on compute capability 7.5; leave it out, or build fp16 only"
        )
    return None


def _missing() -> str | None:
    """Say which library is not installed here, or None."""
    for package in ("tensorrt_rtx", "polygraphy"):
        if find_spec(package) is None or not _is_installed(package):
            return f"the Python package {package} is not installed (pip install {package.replace('_', '-')})"
    return None


def _is_installed(distribution: str) -> bool:
    """Tell whether the distribution is there whose version enters the key; its libraries can be there without it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _cannot_run(options: Mapping[str, Json]) -> str | None:
    """Say why an engine cannot run here. There always is a reason: this version builds engines and has no runner."""
    if not _has_gpu():
        return "running TensorRT-RTX engines needs a CUDA GPU; none found on this machine"
    return "this version of sam3_build builds TensorRT-RTX engines but cannot run them yet"


def _has_gpu() -> bool:
    """Tell whether an NVIDIA driver is loaded: its own files on Linux, the bridge of WSL, its library on Windows."""
    if sys.platform == "win32":
        return Path("C:/Windows/System32/nvcuda.dll").exists()
    return any(Path(p).exists() for p in ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1"))


def _device_fields(options: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what an ahead-of-time engine is bound to, beside the exact release, which the tools carry."""
    return {
        "os": f"{platform.system().lower()}-{platform.machine().lower()}",
        "compute_capabilities": _capabilities(options),
    }


BACKEND = Backend(
    name="tensorrt_rtx",
    summary="TensorRT-RTX engines, built ahead of time for GPU generations; building needs no GPU",
    extension=".engine",
    options=TensorRTRTXOptions,
    tools=("tensorrt_rtx", "polygraphy"),
    uses_profiles=True,
    env={"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    impossible=_impossible,
    missing=_missing,
    cannot_run=_cannot_run,
    device_fields=_device_fields,
    build=build,
)
