"""Stand-in for TensorRT's Python module: its engine reads and writes at the addresses that it is given.

It computes `sums`, the sum of each row of `x`, and `more`, what `offset` (a scalar) adds to `ids`. Its classes have no
method that the library's do not have, which a test holds against the installed library.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math

import numpy as np

Shape = tuple[int, ...]
STRUCT = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BOOL": np.bool_, "BF16": np.uint16}

TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4")
LayerInformationFormat = enum.Enum("LayerInformationFormat", "ONELINE JSON")


class ILogger:
    """Its messages go to `log` of a subclass."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


LOGGERS: list[ILogger] = []
CONTEXTS: list[Context] = []


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    return True


class Runtime:
    """Loads what `engine` below describes."""

    engine_host_code_allowed = False

    def __init__(self, logger: ILogger) -> None:
        LOGGERS.append(logger)

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        described = json.loads(data)
        if "refused" in described:
            say(ILogger.ERROR, described["refused"])
            say(ILogger.VERBOSE, "a long story")
            return None
        return Engine(described)


def say(severity: int, message: str) -> None:
    LOGGERS[-1].log(severity, message)


class Engine:
    """Tensors are (name, mode, type, dims); profiles map an input to its smallest, usual and largest shape."""

    def __init__(self, described: dict[str, object]) -> None:
        self.tensors = {name: (mode, kind, tuple(dims)) for name, mode, kind, dims in described["tensors"]}
        self.profiles, self.faults = described["profiles"], described.get("faults", ())
        self.num_io_tensors, self.num_optimization_profiles = len(self.tensors), len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self.tensors[name][0]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.tensors[name][1]]

    def get_tensor_shape(self, name: str) -> Shape:
        return self.tensors[name][2]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return [tuple(shape) for shape in self.profiles[profile_index][name]]

    def is_shape_inference_io(self, name: str) -> bool:
        return f"{name} decides shapes" in self.faults

    def create_execution_context(self) -> Context | None:
        if "no context" in self.faults:
            say(ILogger.ERROR, "no memory for the context")
            return None
        CONTEXTS.append(Context(self))
        return CONTEXTS[-1]

    def create_engine_inspector(self) -> Inspector:
        return Inspector()


class Inspector:
    def get_engine_information(self, form: LayerInformationFormat) -> str:
        return json.dumps({"Layers": [], "form": form.name})


class Context:
    """Refuses what TensorRT refuses: shapes outside the active profile, a run without shapes or addresses."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.active_optimization_profile = engine, 0
        self._shapes: dict[str, Shape] = {}
        self._places: dict[str, int] = {}
        self._ran: list[int] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle
        self.active_optimization_profile = profile_index
        self._shapes.clear()
        return "no change of profile" not in self.engine.faults

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        assert type(shape) is tuple
        low, _, high = self.engine.get_tensor_profile_shape(name, self.active_optimization_profile)
        if len(low) != len(shape) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            say(ILogger.ERROR, f"Static dimension mismatch: {name} {shape}")
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._places[name] = memory
        return memory > 0

    def get_tensor_shape(self, name: str) -> Shape:
        if "sizes depend on values" in self.engine.faults:
            return (-1,)
        return {"sums": self._shapes["x"][:1], "more": self._shapes["ids"]}[name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle
        if "fails" in self.engine.faults:
            say(ILogger.ERROR, "IExecutionContext::enqueueV3: Error Code 1: myelin")
            return False
        self._ran.append(self.active_optimization_profile)
        x, ids, offset = (self._at(name) for name in ("x", "ids", "offset"))
        self._at("sums")[...] = x.sum(axis=1)
        self._at("more")[...] = ids + offset
        return True

    def _at(self, name: str) -> np.ndarray:
        shape = self._shapes[name] if name in self._shapes else self.get_tensor_shape(name)
        kind = np.dtype(STRUCT[self.engine.tensors[name][1]])
        buffer = (ctypes.c_char * max(math.prod(shape) * kind.itemsize, 1)).from_address(self._places[name])
        return np.frombuffer(buffer, kind, math.prod(shape)).reshape(shape)
