"""ONNX Runtime, on a CPU or with CUDA: runs the precision stage's ONNX; building proves that a session opens on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sam3_build.backends import _onnxruntime
from sam3_build.plugins import Backend, BuildRequest, Precision, RunRequest, Session
from sam3_build.spec import Device, DeviceFingerprint, Json


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """What a manifest says about an ONNX Runtime target: where it runs. The ONNX file itself is what runs."""

    provider: Literal["cpu", "cuda"] = "cpu"


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Open a session on the ONNX file and write what it shows of itself to `<stem>.json`; return the same facts."""
    session = _onnxruntime.open_session(request.onnx, _provider(request.options))
    facts: dict[str, Json] = {
        "onnx": request.onnx.name,
        "providers": session.get_providers(),
        "inputs": [_described(tensor) for tensor in session.get_inputs()],
        "outputs": [_described(tensor) for tensor in session.get_outputs()],
    }
    (out / f"{request.stem}.json").write_text(json.dumps(facts, indent=1) + "\n")
    logging.getLogger(__name__).info("a session opens on %s", request.onnx.name)
    return facts


def _described(tensor: _onnxruntime.TensorInfo) -> dict[str, Json]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


def _session(request: RunRequest) -> AbstractContextManager[Session]:
    """Open the ONNX file, which is what this backend's product runs."""
    return _onnxruntime.session(request.onnx / f"{request.stem}.onnx", _provider(request.options))


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


def _missing(options: Mapping[str, Json], device: Device | None) -> str | None:
    wanted = "onnxruntime-gpu" if _on_gpu(options) else "onnxruntime"
    if find_spec("onnxruntime") is None or (_on_gpu(options) and not _is_installed(wanted)):
        return f"the Python package {wanted} is not installed (pip install {wanted})"
    return None


def _is_installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _device_fields(options: Mapping[str, Json], device: Device | None) -> Mapping[str, Json]:
    """Return what the proof that a session opens is bound to: with CUDA, the kind of GPU."""
    if not isinstance(device, DeviceFingerprint) or not _on_gpu(options):
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
    session=_session,
    polygraphy=lambda options, stem: (f"{stem}.onnx", "--onnxrt", "--providers", _provider(options)),
    variants=(("on a CPU", {"provider": "cpu"}), ("with provider: cuda", {"provider": "cuda"})),
)
