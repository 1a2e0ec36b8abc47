"""Opens an ONNX file with ONNX Runtime: takes the file and where it runs, returns a session of arrays in and out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.errors import BuildError
from sam3_build.pipeline import arrays as feeds
from sam3_build.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.plugins import Arrays

# What a session is asked for. TF32 is off: what the graph calls FP32 is computed in FP32.
PROVIDERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}

# What ONNX Runtime calls an input's type -> numpy's dtype.
_DTYPES = {
    f"tensor({name})": dtype
    for name, dtype in (
        ("float", "float32"),
        ("double", "float64"),
        *((same, same) for same in ("float16", "bool", "int8", "int16", "int32", "int64")),
        *((same, same) for same in ("uint8", "uint16", "uint32", "uint64")),
    )
}


class TensorInfo(Protocol):
    """An input or output as ONNX Runtime describes it: an open dim is a symbol, or None where the file names none."""

    name: str
    type: str
    shape: Sequence[int | str | None]


class InferenceSession(Protocol):
    """As much of an inference session as is used here."""

    def get_providers(self) -> list[str]:
        """Return the execution providers that it really uses, the first one first."""

    def get_inputs(self) -> Sequence[TensorInfo]:
        """Return its inputs."""

    def get_outputs(self) -> Sequence[TensorInfo]:
        """Return its outputs."""

    def run(self, output_names: None, input_feed: Arrays) -> Sequence[NDArray[np.generic]]:
        """Return all outputs, in order."""


class OnnxRuntimeSession:
    """A `plugins.Session` on an ONNX file."""

    def __init__(self, session: InferenceSession, file: str) -> None:
        """Take an open session and the name of its file."""
        self._session: InferenceSession | None = session
        self._file = file
        self._outputs = [tensor.name for tensor in session.get_outputs()]
        self.inputs = {tensor.name: _spec(tensor, file) for tensor in session.get_inputs()}

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs by name, as `plugins.Session` says."""
        if self._session is None:
            raise BuildError(f"{self._file}: its session is closed")
        if why := feeds.unsuitable(self.inputs, arrays):
            raise BuildError(f"{self._file}: {why}")
        try:
            outputs = self._session.run(None, arrays)
        except _refusals() as error:
            raise BuildError(f"{self._file}: ONNX Runtime cannot run it: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        """Free what the session holds."""
        self._session = None


@contextmanager
def session(onnx: Path, provider: str) -> Iterator[OnnxRuntimeSession]:
    """Yield a session on an ONNX file, which is not read again once it is open. BuildError as `open_session`."""
    opened = OnnxRuntimeSession(open_session(onnx, provider), onnx.name)
    try:
        yield opened
    finally:
        opened.close()


def open_session(onnx: Path, provider: str) -> InferenceSession:
    """Return ONNX Runtime's session on an ONNX file. BuildError, quoting it, when it cannot run the file there.

    All optimizations are on, as is usual. It gets as many threads as this process may use CPUs: left to itself it binds
    one to every CPU of the machine, which fails where some are not for this process.
    """
    import onnxruntime

    name, settings = PROVIDERS[provider]
    have = onnxruntime.get_available_providers()
    if name not in have:
        raise BuildError(f"this ONNX Runtime has no {name}, only {', '.join(have)} (pip install onnxruntime-gpu)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = _usable_cpus()
    # Else the threads of one session spin for a while after it ran, and take the CPUs from the next one of a pipeline:
    # a prompt of the miniature took 14 to 21 ms on two CPUs, and 5 to 7 ms with this (benchmarks/runtime.py).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        opened: InferenceSession = onnxruntime.InferenceSession(
            str(onnx), sess_options=options, providers=[(name, dict(settings))]
        )
    except _refusals() as error:
        raise BuildError(f"{onnx.name}: ONNX Runtime cannot open it: {error}") from error
    return require_provider(name, opened, onnx.name)


def require_provider(provider: str, session: InferenceSession, file: str) -> InferenceSession:
    """Return `session`; BuildError when it fell back to another provider, which ONNX Runtime does in silence."""
    used = session.get_providers()
    if used[:1] != [provider]:
        raise BuildError(
            f"{file}: ONNX Runtime was asked for {provider} and fell back to {', '.join(used)}; its log says why "
            "(CUDA and cuDNN libraries that it cannot load, most often)"
        )
    return session


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refusals() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises, which has no common class."""
    from onnxruntime.capi import onnxruntime_pybind11_state

    kinds = (kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type))
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def _spec(tensor: TensorInfo, file: str) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise BuildError(f"{file}: input {tensor.name!r} is a {tensor.type}, which a session does not take")
    return TensorSpec(tensor.name, _DTYPES[tensor.type], tuple(dim if dim is not None else "" for dim in tensor.shape))
