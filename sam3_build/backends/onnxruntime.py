"""ONNX Runtime, on a CPU or with CUDA: runs the precision stage's ONNX; building proves that a session opens on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from sam3_build.errors import BuildError
from sam3_build.plugins import Backend, BuildRequest, Precision, RunRequest
from sam3_build.spec import DeviceFingerprint, Json

# What a session is asked for. TF32 is off: what the graph calls FP32 is computed in FP32.
PROVIDERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}


class _TensorInfo(Protocol):
    name: str
    type: str
    shape: list[int | str]


class InferenceSession(Protocol):
    """As much of an inference session as is used here."""

    def get_providers(self) -> list[str]:
        """Return the execution providers that it really uses, the first one first."""

    def get_inputs(self) -> list[_TensorInfo]:
        """Return its inputs."""

    def get_outputs(self) -> list[_TensorInfo]:
        """Return its outputs."""


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """What a manifest says about an ONNX Runtime target: where it runs. The ONNX file itself is what runs."""

    provider: Literal["cpu", "cuda"] = "cpu"


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Open a session on the ONNX file and write what it shows of itself to `<stem>.json`; return the same facts."""
    session = open_session(request.onnx, _provider(request.options))
    facts: dict[str, Json] = {
        "onnx": request.onnx.name,
        "providers": session.get_providers(),
        "inputs": [_described(tensor) for tensor in session.get_inputs()],
        "outputs": [_described(tensor) for tensor in session.get_outputs()],
    }
    (out / f"{request.stem}.json").write_text(json.dumps(facts, indent=1) + "\n")
    logging.getLogger(__name__).info("a session opens on %s", request.onnx.name)
    return facts


def _described(tensor: _TensorInfo) -> dict[str, Json]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


def _runner(request: RunRequest) -> object:
    from polygraphy.backend.onnxrt import OnnxrtRunner

    model = request.onnx / f"{request.stem}.onnx"
    return OnnxrtRunner(open_session(model, _provider(request.options)), name="onnxruntime")


def open_session(onnx: Path, provider: str) -> InferenceSession:
    """Return a session on an ONNX file. BuildError, quoting ONNX Runtime, when it cannot run the file there."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state

    kinds = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
    refusals = tuple(kind for kind in kinds if issubclass(kind, Exception))
    name, settings = PROVIDERS[provider]
    have = onnxruntime.get_available_providers()
    if name not in have:
        raise BuildError(f"this ONNX Runtime has no {name}, only {', '.join(have)} (pip install onnxruntime-gpu)")
    try:
        session: InferenceSession = onnxruntime.InferenceSession(str(onnx), providers=[(name, dict(settings))])
    except refusals as error:
        raise BuildError(f"{onnx.name}: ONNX Runtime cannot open it: {error}") from error
    return require_provider(name, session, onnx.name)


def require_provider(provider: str, session: InferenceSession, file: str) -> InferenceSession:
    """Return `session`; BuildError when it fell back to another provider, which ONNX Runtime does in silence."""
    used = session.get_providers()
    if used[:1] != [provider]:
        raise BuildError(
            f"{file}: ONNX Runtime was asked for {provider} and fell back to {', '.join(used)}; its log says why "
            "(CUDA and cuDNN libraries that it cannot load, most often)"
        )
    return session


def _provider(options: Mapping[str, Json]) -> str:
    return str(options.get("provider", "cpu"))


def _on_gpu(options: Mapping[str, Json]) -> bool:
    return _provider(options) == "cuda"


def _needs_gpu(options: Mapping[str, Json]) -> tuple[str, ...]:
    return ("build", "run") if _on_gpu(options) else ()


# The types that its kernels compute matrix products in, or that it casts to FP32 and back without a change of the file.
TYPES = {"cpu": ("FLOAT", "FLOAT16", "INT8"), "cuda": ("FLOAT", "FLOAT16", "BFLOAT16", "INT8")}


def _impossible(options: Mapping[str, Json], precision: Precision) -> str | None:
    """Say why ONNX Runtime can never run this precision, or None."""
    provider = _provider(options)
    lacking = [kind for kind in precision.gemm_types if kind not in TYPES[provider]]
    where = "with CUDA" if _on_gpu(options) else "on a CPU"
    return f"{precision.name}: ONNX Runtime has no {lacking[0]} kernels {where}" if lacking else None


def _missing(options: Mapping[str, Json], device: DeviceFingerprint | None) -> str | None:
    wanted = "onnxruntime-gpu" if _on_gpu(options) else "onnxruntime"
    if find_spec("onnxruntime") is None or (_on_gpu(options) and not _is_installed(wanted)):
        return f"the Python package {wanted} is not installed (pip install {wanted})"
    return None


def _is_installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _device_fields(options: Mapping[str, Json], device: DeviceFingerprint | None) -> Mapping[str, Json]:
    """Return what the proof that a session opens is bound to: with CUDA, the kind of GPU."""
    if device is None or not _on_gpu(options):
        return {}
    return {name: device.gpu_class[name] for name in ("os", "name", "compute_capability")}


BACKEND = Backend(
    name="onnxruntime",
    summary="ONNX Runtime on a CPU or with CUDA; runs the precision stage's ONNX as it is",
    product="ONNX Runtime sessions",
    extension=".json",
    options=OnnxRuntimeOptions,
    tools=lambda options: ("onnxruntime",),
    uses_profiles=False,
    env={},
    needs_gpu=_needs_gpu,
    # On the CPU, `verify` runs the same graph with the same library, or what emulates it: see the card of such a file.
    runs=_on_gpu,
    impossible=_impossible,
    missing=_missing,
    cannot_run=_missing,
    device_fields=_device_fields,
    build=build,
    runner=_runner,
    polygraphy=lambda options, stem: (f"{stem}.onnx", "--onnxrt", "--providers", _provider(options)),
    variants=(("on a CPU", {"provider": "cpu"}), ("with provider: cuda", {"provider": "cuda"})),
)
