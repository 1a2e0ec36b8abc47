"""Takes a component's ONNX, or what a backend built of it; returns a network that runs cases and checks its feeds.

Polygraphy would rename and cast inputs in silence; here a feed that does not suit is an error. What was built for shape
profiles gets a case's rows in groups that a profile takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph.emulation import emulates, write_emulation
from sam3_build.graph.interface import input_dims
from sam3_build.params import NetworkParams
from sam3_build.pipeline import profiles
from sam3_build.plugins import RunRequest
from sam3_build.spec import Profile

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
    """A runner of an engine, which runs under the optimization profile that was set last."""

    def set_profile(self, index: int) -> None: ...


@dataclass(frozen=True)
class Network:
    """What runs a component: an active runner, and for an engine the profiles it was built for, in its order.

    dims:    of each input, its dims as the ONNX has them
    row_dim: the dim whose rows are independent, where inputs and outputs have one in common
    """

    runner: Runner
    dims: Mapping[str, Sequence[int | str | None]]
    profiles: Sequence[Profile] = ()
    row_dim: str | None = None

    @property
    def fixed_input(self) -> str | None:
        """An input whose first dim has one size, so that no rows can be added; None when there is none."""
        fixed = (name for name, dims in self.dims.items() if not dims or (isinstance(dims[0], int) and dims[0] >= 0))
        return next(fixed, None)

    def misfit(self, feed: Arrays) -> str | None:
        """Say why no shape profile takes a feed, however its rows are grouped; None when one does."""
        numbered = {str(number): profile for number, profile in enumerate(self.profiles, start=1)}
        return profiles.misfit(numbered, self._sizes(feed), self.row_dim)

    def fitting_rows(self, feed: Arrays, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Return rows of a feed, at least two of them, as they can be fed at once; empty when no two can."""
        if not self.profiles:
            return rows
        return profiles.fitting_rows(self.profiles, self._sizes(feed), self.row_dim, rows)

    def split(self, feed: Arrays, case: str) -> tuple[tuple[int, ...], ...]:
        """Return the rows of a feed in groups that can be fed; BuildError when it does not suit."""
        self._hold(feed, case)
        found = profiles.groups(self.profiles, self._sizes(feed), self.row_dim)
        if found is None:
            raise BuildError(f"case {case!r} fits no shape profile: {self.misfit(feed)}")
        return found

    def run(self, feed: Arrays, case: str) -> Arrays:
        """Return the outputs by name. BuildError when the feed does not suit. They may change with the next run."""
        import numpy as np

        groups = self.split(feed, case)
        if len(groups) == 1 and len(groups[0]) == self._rows(feed):
            return self._infer(feed)
        parts: dict[str, list[NDArray[np.generic]]] = {}
        for rows in groups:
            outputs = self._infer({name: array[list(rows)] for name, array in feed.items()})
            for name, array in outputs.items():
                parts.setdefault(name, []).append(np.array(array[: len(set(rows))]))
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _infer(self, feed: Arrays) -> Arrays:
        if len(self.profiles) > 1 and isinstance(self.runner, _Profiled):
            fitting = profiles.first_fit(self.profiles, self._sizes(feed))
            assert fitting is not None, "its rows were grouped so that one takes it"
            self.runner.set_profile(fitting)
        return self.runner.infer(feed)

    def _rows(self, feed: Arrays) -> int:
        return self._sizes(feed).get(self.row_dim, 1) if self.row_dim else 1

    def _sizes(self, feed: Arrays) -> dict[str, int]:
        return {
            dim: size
            for name, array in feed.items()
            for dim, size in zip(self.dims.get(name, ()), array.shape, strict=False)
            if isinstance(dim, str)
        }

    def _hold(self, feed: Arrays, case: str) -> None:
        """Refuse a feed of other names, types or fixed sizes than the model's inputs."""
        import numpy as np
        from polygraphy.datatype import DataType

        wanted = self.runner.get_input_metadata(use_numpy_dtypes=False)
        if sorted(feed) != sorted(wanted):
            raise BuildError(f"case {case!r} records the inputs {sorted(feed)}, the model has {sorted(wanted)}")
        for name, array in feed.items():
            kind, shape = np.dtype(DataType.to_dtype(wanted[name].dtype, "numpy")).name, wanted[name].shape
            sizes = zip(array.shape, self.dims[name], strict=False)
            fixed = [size for size, dim in sizes if isinstance(dim, int) and 0 <= dim != size]
            if kind != array.dtype.name or len(shape) != array.ndim or fixed:
                raise BuildError(
                    f"case {case!r}: input {name!r} is recorded as {array.dtype.name}{list(array.shape)}, "
                    f"the model takes {kind}{list(self.dims[name])}"
                )


@contextmanager
def open_network(params: NetworkParams, inputs: Mapping[str, Path]) -> Iterator[Network]:
    """Yield what runs a component, by what was built or by the ONNX itself on ONNX Runtime's CPU.

    inputs: onnx, the folder of `<component>.<precision>.onnx`; built, the folder that its build wrote
    """
    with open_runner(params, inputs) as runner:
        if not params.profiles:
            inputs_of = runner.get_input_metadata(use_numpy_dtypes=False)
            yield Network(runner, {name: tuple(tensor.shape) for name, tensor in inputs_of.items()})
            return
        dims = input_dims(inputs["onnx"] / f"{params.stem}.onnx")
        own = {dim for of_input in dims.values() for dim in of_input if isinstance(dim, str)}
        yield Network(runner, dims, profiles.restricted(params.profiles, own), params.row_dim)


def open_runner(params: NetworkParams, inputs: Mapping[str, Path]) -> Runner:
    """Return a runner of what was built, or of the ONNX itself on ONNX Runtime's CPU: emulated where it lacks kernels.

    params, inputs: as `open_network` takes them
    """
    found: object
    if params.backend:
        request = RunRequest(inputs["built"], inputs["onnx"], params.stem, params.options)
        found = registry.backend(params.backend).runner(request)
    else:
        found = _on_cpu(inputs["onnx"] / f"{params.stem}.onnx", emulated=is_emulated(params))
    return cast(Runner, found)


def is_emulated(params: NetworkParams) -> bool:
    """Tell whether `open_runner` runs an emulation in the place of a precision's own file."""
    return params.backend is None and emulates(registry.precision(params.precision).onnx_type)


def _on_cpu(shipped: Path, *, emulated: bool) -> object:
    """Open a session; when it is there, the emulation's file has been read and goes."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    with tempfile.TemporaryDirectory() as scratch:
        model = (write_emulation(shipped, Path(scratch)) if emulated else None) or shipped
        return OnnxrtRunner(SessionFromOnnx(str(model), providers=["cpu"])(), name="onnx")


@contextmanager
def refusals(params: NetworkParams) -> Iterator[str]:
    """Turn what ONNX Runtime and Polygraphy raise about a model into a BuildError that quotes it.

    Yields what to call the model that `open_runner` opens.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    what = f"{params.stem} built by {params.backend}" if params.backend else f"{params.stem}.onnx"
    kinds = [kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type)]
    refused = tuple(kind for kind in kinds if issubclass(kind, Exception))
    try:
        with G_LOGGER.verbosity(G_LOGGER.WARNING):
            yield what
    except (*refused, PolygraphyException) as error:
        raise BuildError(f"{what}: it cannot be run: {error}") from error
