"""Runners: a component's ONNX, or what a backend built of it, in; a Polygraphy runner, held against its feeds, out.

Polygraphy would rename and cast inputs in silence; here a feed that does not suit is an error.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from sam3_build import registry
from sam3_build.emulation import write_emulation
from sam3_build.errors import BuildError
from sam3_build.plugins import RunRequest
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.generic]"]


class _Tensor(Protocol):
    dtype: object
    shape: Sequence[int | str | None]


class Runner(AbstractContextManager["Runner"], Protocol):
    """A Polygraphy runner: a context in which it is active, and then infers."""

    def infer(self, feed_dict: Arrays) -> Arrays:
        """Return the outputs by name."""

    def get_input_metadata(self, *, use_numpy_dtypes: bool) -> Mapping[str, _Tensor]:
        """Return dtype and shape of every input by name."""


@runtime_checkable
class _Profiled(Protocol):
    """A runner that has shape profiles, and picks one for a feed."""

    def fit(self, feed: Arrays) -> None: ...


def open_runner(params: Mapping[str, Json], inputs: Mapping[str, Path]) -> Runner:
    """Return a runner of what was built, or of the ONNX itself on ONNX Runtime's CPU: emulated where it lacks kernels.

    params: component, precision; backend and options when what a backend built is to run
    inputs: onnx, the folder of `<component>.<precision>.onnx`; built, the folder that its build wrote
    """
    found: object
    if "backend" in params:
        found = registry.backend(str(params["backend"])).runner(request(params, inputs))
    else:
        found = _on_cpu(inputs["onnx"] / f"{_stem(params)}.onnx", emulated=is_emulated(params))
    return cast(Runner, found)


def request(params: Mapping[str, Json], inputs: Mapping[str, Path]) -> RunRequest:
    """Return what a backend is told of what it built; params and inputs as `open_runner` takes them."""
    options = params["options"]
    assert isinstance(options, Mapping)
    return RunRequest(inputs["built"], inputs["onnx"], _stem(params), options)


def is_emulated(params: Mapping[str, Json]) -> bool:
    """Tell whether `open_runner` runs an emulation in the place of a precision's own file."""
    return "backend" not in params and registry.precision(str(params["precision"])).emulated


def _on_cpu(shipped: Path, *, emulated: bool) -> object:
    """Open a session; when it is there, the emulation's file has been read and goes."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    with tempfile.TemporaryDirectory() as scratch:
        model = (write_emulation(shipped, Path(scratch)) if emulated else None) or shipped
        return OnnxrtRunner(SessionFromOnnx(str(model), providers=["cpu"])(), name="onnx")


def fit(feed: Arrays, runner: Runner, case: str) -> None:
    """Hold a feed against the inputs of an active runner, and let it pick a profile for it; BuildError when unfit."""
    import numpy as np
    from polygraphy.datatype import DataType

    wanted = runner.get_input_metadata(use_numpy_dtypes=False)
    if sorted(feed) != sorted(wanted):
        raise BuildError(f"case {case!r} records the inputs {sorted(feed)}, the model has {sorted(wanted)}")
    for name, array in feed.items():
        kind, shape = np.dtype(DataType.to_dtype(wanted[name].dtype, "numpy")).name, wanted[name].shape
        sizes = zip(array.shape, shape, strict=False)
        fixed = [size for size, dim in sizes if isinstance(dim, int) and 0 <= dim != size]
        if kind != array.dtype.name or len(shape) != array.ndim or fixed:
            raise BuildError(
                f"case {case!r}: input {name!r} is recorded as {array.dtype.name}{list(array.shape)}, "
                f"the model takes {kind}{list(shape)}"
            )
    if isinstance(runner, _Profiled):
        runner.fit(feed)


@contextmanager
def refusals(params: Mapping[str, Json]) -> Iterator[str]:
    """Turn what ONNX Runtime and Polygraphy raise about a model into a BuildError that quotes it.

    Yields what to call the model that `open_runner` opens.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    stem = _stem(params)
    what = f"{stem} built by {params['backend']}" if "backend" in params else f"{stem}.onnx"
    kinds = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
    refused = tuple(kind for kind in kinds if issubclass(kind, Exception))
    try:
        with G_LOGGER.verbosity(G_LOGGER.WARNING):
            yield what
    except (*refused, PolygraphyException) as error:
        raise BuildError(f"{what}: it cannot be run: {error}") from error


def _stem(params: Mapping[str, Json]) -> str:
    return f"{params['component']}.{params['precision']}"
