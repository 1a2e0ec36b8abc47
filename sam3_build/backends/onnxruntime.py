"""ONNX Runtime on a CPU: the precision stage's ONNX in, proof that a session opens on it out; no second model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from sam3_build.errors import BuildError
from sam3_build.spec import Backend, BuildRequest, Json

PROVIDERS = ("CPUExecutionProvider",)


class _Tensor(Protocol):
    name: str
    type: str
    shape: list[int | str]


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """ONNX Runtime on a CPU takes no option: the ONNX file itself is what runs."""


def build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    """Open a session on the ONNX file and write what it shows of itself to `<stem>.json`; return the same facts.

    Raises BuildError, quoting ONNX Runtime, when the file is not a model that it can run.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state

    kinds = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
    refusals = tuple(kind for kind in kinds if issubclass(kind, Exception))
    try:
        session = onnxruntime.InferenceSession(str(request.onnx), providers=list(PROVIDERS))
    except refusals as error:
        raise BuildError(f"{request.onnx.name}: ONNX Runtime cannot open it: {error}") from error
    facts: dict[str, Json] = {
        "onnx": request.onnx.name,
        "providers": session.get_providers(),
        "inputs": [_described(tensor) for tensor in session.get_inputs()],
        "outputs": [_described(tensor) for tensor in session.get_outputs()],
    }
    (out / f"{request.stem}.json").write_text(json.dumps(facts, indent=1) + "\n")
    logging.getLogger(__name__).info("a session opens on %s", request.onnx.name)
    return facts


def _described(tensor: _Tensor) -> dict[str, Json]:
    return {"name": tensor.name, "type": tensor.type, "shape": list(tensor.shape)}


def _impossible(options: Mapping[str, Json], precision: str) -> str | None:
    """Say why ONNX Runtime's CPU kernels can never run this precision, or None."""
    if precision == "bf16":
        return "ONNX Runtime has no bf16 kernels on a CPU"
    return None


def _missing() -> str | None:
    if find_spec("onnxruntime") is None:
        return "the Python package onnxruntime is not installed (pip install onnxruntime)"
    return None


def _cannot_run(options: Mapping[str, Json]) -> str | None:
    return _missing()


def _device_fields(options: Mapping[str, Json]) -> Mapping[str, Json]:
    return {}


BACKEND = Backend(
    name="onnxruntime",
    summary="ONNX Runtime on a CPU; runs the precision stage's ONNX as it is",
    extension=".json",
    options=OnnxRuntimeOptions,
    tools=("onnxruntime",),
    uses_profiles=False,
    env={},
    impossible=_impossible,
    missing=_missing,
    cannot_run=_cannot_run,
    device_fields=_device_fields,
    build=build,
)
