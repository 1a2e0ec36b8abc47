"""Loads and inspects what TensorRT and TensorRT-RTX build: takes an engine's file, returns the library's object.

Needs a GPU and the library alone, no Polygraphy. No test has loaded an engine on a GPU: without one the libraries load
none, so that stand-ins of their classes are used, and what those are asked for is held against the installed library.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

from sam3_build.backends._tensorrt import Library
from sam3_build.errors import BuildError
from sam3_build.plugins import RunRequest
from sam3_build.spec import Json


class Named(Protocol):
    """A member of one of the library's enumerations."""

    name: str


class Inspector(Protocol):
    """Tells what layers an engine has."""

    def get_engine_information(self, form: object) -> str:
        """Return a text in one of the library's forms."""


class Context(Protocol):
    """What runs an engine: shapes and addresses of its tensors, under one optimization profile at a time."""

    active_optimization_profile: int

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Change the profile, which forgets the shapes."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Say which shape an input has."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where an input lies or an output goes."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape; -1 for what is not known."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue a run."""


class Engine(Protocol):
    """A built network, loaded."""

    num_io_tensors: int
    num_optimization_profiles: int

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""

    def get_tensor_mode(self, name: str) -> Named:
        """Return INPUT or OUTPUT."""

    def get_tensor_dtype(self, name: str) -> Named:
        """Return its element type."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Return its dims; -1 for open ones."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]:
        """Return the smallest, usual and largest shape of an input under a profile."""

    def is_shape_inference_io(self, name: str) -> bool:
        """Tell whether its values decide shapes, so that it lies in the host's memory."""

    def create_execution_context(self) -> Context | None:
        """Return what runs it, with memory for the largest shapes of all profiles."""

    def create_engine_inspector(self) -> Inspector:
        """Return what tells of its layers."""


class Log:
    """What a library says: passed on to `logging`, and of the errors a list to quote from."""

    def __init__(self, trt: ModuleType) -> None:
        """Make `logger`, which the library writes to and which must live as long as what it made with it."""
        self._errors: list[str] = []
        errors, log = self._errors, logging.getLogger(__name__)
        severe = {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]  # the library ships no types
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: object, message: str) -> None:
                if severity in severe:
                    errors.append(message.strip())
                loud = severity in severe or severity == trt.ILogger.WARNING
                log.log(logging.WARNING if loud else logging.DEBUG, "%s", message)

        self.logger = Logger()

    def quoted(self) -> str:
        """Return the errors since the last time, one a line, and forget them."""
        text = "\n".join(dict.fromkeys(self._errors))
        self._errors.clear()
        return text or "it did not say why"


class LoadedEngine:
    """An engine and what must live as long as it does."""

    def __init__(self, path: Path, library: Library) -> None:
        """Load `path`. BuildError, quoting the library, when it refuses."""
        self.trt, self.file, self._title = import_module(library.module), path.name, library.title
        self._log = Log(self.trt)
        self.trt.init_libnvinfer_plugins(self._log.logger, "")
        self._runtime = self.trt.Runtime(self._log.logger)
        if hasattr(self._runtime, "engine_host_code_allowed"):  # an engine that later releases may run brings code
            self._runtime.engine_host_code_allowed = True
        engine: Engine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise self.error("cannot load it")
        self.engine = engine

    def require(self, what: str, done: object) -> None:
        """Raise `error` unless the library answered that it is done."""
        if not done:
            raise self.error(what)

    def error(self, what: str) -> BuildError:
        """Return an error that quotes what the library said."""
        return BuildError(f"{self.file}: {self._title} {what}: {self._log.quoted()}")


def inspect_engine(request: RunRequest, library: Library) -> Mapping[str, Json]:
    """Return what the library's inspector says of `<stem>.engine` in the folder `built`."""
    loaded = LoadedEngine(request.built / f"{request.stem}.engine", library)
    text = loaded.engine.create_engine_inspector().get_engine_information(loaded.trt.LayerInformationFormat.JSON)
    document: Mapping[str, Json] = json.loads(text)
    return document
