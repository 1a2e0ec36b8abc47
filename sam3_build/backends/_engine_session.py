"""Runs an engine of TensorRT or TensorRT-RTX: takes arrays by name, returns arrays by name. No Polygraphy.

One execution context and one buffer per tensor serve all runs, so that nothing is compiled or allocated anew for
shapes that were seen. No test has run it on a GPU: see `_engines` and `_cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sam3_build.backends._cuda import Buffer, Device
from sam3_build.backends._engines import Context, Engine, LoadedEngine
from sam3_build.backends._tensorrt import Library
from sam3_build.errors import BuildError
from sam3_build.pipeline import arrays as feeds
from sam3_build.pipeline import profiles
from sam3_build.plugins import RunRequest
from sam3_build.spec import Profile, Range, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.plugins import Arrays

# What the library calls an element type -> numpy's dtype.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class EngineSession:
    """A `plugins.Session` on an engine that is loaded on a GPU."""

    def __init__(self, loaded: LoadedEngine, device: Device) -> None:
        """Take both. `close` lets go of the engine and leaves the device to its owner."""
        engine = loaded.engine
        self._loaded: LoadedEngine | None = loaded
        self._device, self._file = device, loaded.file
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {name: self._spec(engine, name) for name in names}
        self.inputs = {n: spec for n, spec in specs.items() if engine.get_tensor_mode(n).name == "INPUT"}
        self._outputs = {name: spec.dtype for name, spec in specs.items() if name not in self.inputs}
        self._profiles = [self._profile(engine, index) for index in range(engine.num_optimization_profiles)]
        self._buffers = {name: Buffer(device) for name in names}
        self._context = engine.create_execution_context()
        if self._context is None:
            raise loaded.error("makes no context for it")

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs by name, as `plugins.Session` says."""
        if not self._loaded or not self._context:
            raise BuildError(f"{self._file}: its session is closed")
        if why := feeds.unsuitable(self.inputs, arrays):
            raise BuildError(f"{self._file}: {why}")
        profile = self._fitting(arrays)
        self._device.activate()
        return self._run(self._loaded, self._context, profile, arrays)

    def close(self) -> None:
        """Free what runs need on the GPU, and the engine, unless another holds it."""
        for buffer in self._buffers.values():
            buffer.free()
        self._context = self._loaded = None

    def _run(self, loaded: LoadedEngine, context: Context, profile: int, arrays: Arrays) -> Arrays:
        import numpy as np

        device = self._device
        if context.active_optimization_profile != profile:
            loaded.require(
                f"cannot change to shape profile {profile + 1}",
                context.set_optimization_profile_async(profile, device.stream),
            )
        # They are held until the stream has read them. A scalar stays one.
        fed = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        for name, array in fed.items():
            loaded.require(f"takes no {list(array.shape)} for {name!r}", context.set_input_shape(name, array.shape))
            device.upload(self._place(loaded, context, name, array.nbytes), array)
        outputs: dict[str, NDArray[np.generic]] = {}
        for name, dtype in self._outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise BuildError(f"{self._file}: the shape of output {name!r} depends on values: no session runs it")
            outputs[name] = np.empty(shape, dtype)
            self._place(loaded, context, name, outputs[name].nbytes)
        loaded.require("cannot run it", context.execute_async_v3(device.stream))
        for name, array in outputs.items():
            device.download(array, self._buffers[name].address)
        device.synchronize()
        return outputs

    def _place(self, loaded: LoadedEngine, context: Context, name: str, size: int) -> int:
        """Give a tensor `size` bytes on the GPU, and return where."""
        address = self._buffers[name].reserve(size)
        loaded.require(f"takes no memory for {name!r}", context.set_tensor_address(name, address))
        return address

    def _fitting(self, arrays: Arrays) -> int:
        """Return the first profile that takes the shapes."""
        sizes = {f"{name}[{axis}]": size for name, array in arrays.items() for axis, size in enumerate(array.shape)}
        fitting = profiles.first_fit(self._profiles, sizes)
        if fitting is None:
            numbered = {str(number): profile for number, profile in enumerate(self._profiles, start=1)}
            raise BuildError(f"{self._file}: {profiles.misfit(numbered, sizes, None)}")
        return fitting

    def _spec(self, engine: Engine, name: str) -> TensorSpec:
        kind = engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise BuildError(f"{self._file}: {name!r} is {kind}, which no session takes or gives")
        if engine.is_shape_inference_io(name):
            raise BuildError(f"{self._file}: values of {name!r} decide shapes, and no session feeds such a tensor")
        return TensorSpec(
            name, _DTYPES[kind], tuple(size if size >= 0 else "" for size in engine.get_tensor_shape(name))
        )

    def _profile(self, engine: Engine, index: int) -> Profile:
        """Return what a profile takes, by the input and axis of each open dim."""
        ranges: dict[str, Range] = {}
        for name, spec in self.inputs.items():
            if "" in spec.dims:
                low, usual, high = engine.get_tensor_profile_shape(name, index)
                ranges |= {
                    f"{name}[{axis}]": (low[axis], usual[axis], high[axis])
                    for axis, dim in enumerate(spec.dims)
                    if dim == ""
                }
        return ranges


@contextmanager
def session(request: RunRequest, library: Library) -> Iterator[EngineSession]:
    """Yield a session on `<stem>.engine` in the folder `built`. BuildError when there is no GPU for it."""
    device = Device()
    try:
        opened = EngineSession(LoadedEngine(request.built / f"{request.stem}.engine", library), device)
        try:
            yield opened
        finally:
            opened.close()
    finally:
        device.close()
