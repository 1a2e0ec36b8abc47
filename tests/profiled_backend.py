"""A backend for tests that refuses what TensorRT refuses: ONNX Runtime's CPU behind profiles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from sam3_build import registry
from sam3_build.backends.onnxruntime import BACKEND as ONNXRUNTIME
from sam3_build.errors import BuildError
from sam3_build.plugins import Backend, BuildRequest, RunRequest, Session
from sam3_build.spec import Json, TensorSpec


@dataclass(frozen=True)
class Options:
    """None of its own."""


Profiles = list[dict[str, list[list[int]]]]


@dataclass
class Profiled:
    """A session that takes only shapes of a profile; `fed` notes how many rows it got each time."""

    session: Session
    profiles: Profiles
    fed: list[int] = field(default_factory=list)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self.session.inputs

    def run(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        shapes = {name: array.shape for name, array in arrays.items()}
        if not any(all(takes(*one[name], shape) for name, shape in shapes.items()) for one in self.profiles):
            raise BuildError(f"no profile takes {shapes}")
        self.fed.append(len(next(iter(arrays.values()))))
        return self.session.run(arrays)


def takes(low: list[int], _: list[int], high: list[int], shape: tuple[int, ...]) -> bool:
    return len(low) == len(shape) and all(lo <= n <= hi for lo, n, hi in zip(low, shape, high, strict=True))


SESSIONS: list[Profiled] = []


def _build(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    (out / f"{request.stem}.engine").write_text(json.dumps([dict(profile) for profile in request.profiles]))
    return {}


@contextmanager
def _session(request: RunRequest) -> Iterator[Profiled]:
    profiles = json.loads((request.built / f"{request.stem}.engine").read_bytes())
    with ONNXRUNTIME.session(request) as session:
        SESSIONS.append(Profiled(session, profiles))
        yield SESSIONS[-1]


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
    session=_session,
)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the backend known as `profiled`."""
    backend, names = registry.backend, registry.names
    monkeypatch.setattr(registry, "backend", lambda name: BACKEND if name == "profiled" else backend(name))
    monkeypatch.setattr(
        registry, "names", lambda folder: (*names(folder), *(["profiled"] if folder == "backends" else []))
    )
    SESSIONS.clear()
