"""Runs an engine of TensorRT or TensorRT-RTX: takes arrays by name, returns arrays by name. No Polygraphy.

One execution context and one buffer per tensor serve all runs, so that nothing is compiled or allocated anew for
shapes that were seen; outputs that stay on the GPU have memory of their own, and are fed to other sessions without a
copy. No test has run it on a GPU: see `_engines` and `_cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from sam3_build.backends._cuda import Buffer, Device, DeviceArray
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

    Array = NDArray[np.generic]

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

    def __init__(self, loaded: LoadedEngine, device: Device, on_device: bool = False) -> None:
        """Take both. `close` lets go of the engine and leaves the device to its owner.

        on_device: whether outputs stay on the GPU
        """
        engine = loaded.engine
        self._loaded: LoadedEngine | None = loaded
        self._device, self._file, self._on_device = device, loaded.file, on_device
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
        fed = {n: a if isinstance(a, DeviceArray) else np.asarray(a, order="C") for n, a in arrays.items()}
        for name, array in fed.items():
            loaded.require(f"takes no {list(array.shape)} for {name!r}", context.set_input_shape(name, array.shape))
            if isinstance(array, DeviceArray):
                self._place(loaded, context, name, array.address)
            else:
                address = self._buffers[name].reserve(array.nbytes)
                self._place(loaded, context, name, address)
                device.upload(address, array)
        outputs = {}
        for name, dtype in self._outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise BuildError(f"{self._file}: the shape of output {name!r} depends on values: no session runs it")
            outputs[name] = output = self._output(name, shape, np.dtype(dtype))
            address = output.address if isinstance(output, DeviceArray) else self._buffers[name].address
            self._place(loaded, context, name, address)
        loaded.require("cannot run it", context.execute_async_v3(device.stream))
        for name, output in outputs.items():
            if not isinstance(output, DeviceArray):
                device.download(output, self._buffers[name].address)
        device.synchronize()
        return cast("Arrays", outputs)

    def _output(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> DeviceArray | Array:
        """Return where an output is found after the run. On the host it comes through the tensor's buffer."""
        import numpy as np

        if self._on_device:
            return self._device.array(shape, dtype)
        output: Array = np.empty(shape, dtype)
        self._buffers[name].reserve(output.nbytes)
        return output

    def _place(self, loaded: LoadedEngine, context: Context, name: str, address: int) -> None:
        loaded.require(f"takes no memory for {name!r}", context.set_tensor_address(name, address))

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
        opened = EngineSession(
            LoadedEngine(request.built / f"{request.stem}.engine", library), device, request.on_device
        )
        try:
            yield opened
        finally:
            opened.close()
    finally:
        device.close()
