"""A backend for tests that refuses what TensorRT refuses: ONNX Runtime's CPU behind profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from sam3_build import registry
from sam3_build.backends.onnxruntime import BACKEND as ONNXRUNTIME
from sam3_build.plugins import Backend, BuildRequest, RunRequest
from sam3_build.spec import Json


@dataclass(frozen=True)
class Options:
    """None of its own."""


class Runner(OnnxrtRunner):
    """Runs under the profile set last, takes only shapes of it, and gives the same buffers again each time."""

    def __init__(self, model: Path, profiles: list[dict[str, list[list[int]]]]) -> None:
        super().__init__(SessionFromOnnx(str(model), providers=["cpu"])())
        self.profiles, self.profile = profiles, 0
        self.fed: list[int] = []
        self._buffers: dict[str, np.ndarray] = {}

    def set_profile(self, index: int) -> None:
        self.profile = index

    def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in feed_dict.items():
            low, _, high = self.profiles[self.profile][name]
            assert len(low) == array.ndim, f"{name}: {array.shape}"
            if not all(lo <= n <= hi for lo, n, hi in zip(low, array.shape, high, strict=True)):
                raise RuntimeError(f"Static dimension mismatch: {name} is {array.shape}, profile takes {low} to {high}")
        self.fed.append(len(next(iter(feed_dict.values()))))
        found = super().infer_impl(feed_dict)
        for name, array in found.items():
            old = self._buffers.get(name)
            if old is not None and old.shape == array.shape:
                old[...] = array
            else:
                self._buffers[name] = np.array(array)
        return dict(self._buffers)


RUNNERS: list[Runner] = []


def _build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    (out / f"{request.stem}.engine").write_text(json.dumps([dict(profile) for profile in request.profiles]))
    return {}


def _runner(request: RunRequest) -> Runner:
    profiles = json.loads((request.built / f"{request.stem}.engine").read_bytes())
    RUNNERS.append(Runner(request.onnx / f"{request.stem}.onnx", profiles))
    return RUNNERS[-1]


BACKEND: Backend = replace(
    ONNXRUNTIME,
    name="profiled",
    product="profiled engines",
    extension=".engine",
    options=Options,
    uses_profiles=True,
    needs_gpu=lambda options: (),
    runs=lambda options: True,
    impossible=lambda options, precision: None,
    missing=lambda options, device: None,
    cannot_run=lambda options, device: None,
    device_fields=lambda options, device: {},
    build=_build,
    runner=_runner,
)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the backend known as `profiled`."""
    backend, names = registry.backend, registry.names
    monkeypatch.setattr(registry, "backend", lambda name: BACKEND if name == "profiled" else backend(name))
    monkeypatch.setattr(
        registry, "names", lambda folder: (*names(folder), *(["profiled"] if folder == "backends" else []))
    )
    RUNNERS.clear()
