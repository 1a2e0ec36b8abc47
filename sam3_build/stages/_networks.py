"""Takes a component's ONNX, or what a backend built of it; returns a network that runs cases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from sam3_build import registry
from sam3_build.backends import _onnxruntime
from sam3_build.graph.emulation import emulates, write_emulation
from sam3_build.graph.interface import input_dims
from sam3_build.params import NetworkParams
from sam3_build.pipeline import profiles
from sam3_build.pipeline.network import Network
from sam3_build.plugins import RunRequest, Session


@contextmanager
def open_network(params: NetworkParams, inputs: Mapping[str, Path]) -> Iterator[Network]:
    """Yield what runs a component, by what was built or by the ONNX itself on ONNX Runtime's CPU.

    inputs: onnx, the folder of `<component>.<precision>.onnx`; built, the folder that its build wrote
    """
    with network_session(params, inputs) as session:
        if not params.profiles:
            dims_of = {name: tensor.dims for name, tensor in session.inputs.items()}
            yield Network(session, dims_of, row_axes=params.row_axes)
            return
        dims = input_dims(inputs["onnx"] / f"{params.stem}.onnx")
        own = {dim for of_input in dims.values() for dim in of_input if isinstance(dim, str)}
        yield Network(session, dims, profiles.restricted(params.profiles, own), params.row_dim, params.row_axes)


def network_session(params: NetworkParams, inputs: Mapping[str, Path]) -> AbstractContextManager[Session]:
    """Return a session of what was built, or of the ONNX itself on ONNX Runtime's CPU: emulated where it lacks kernels.

    params, inputs: as `open_network` takes them
    """
    if params.backend:
        request = RunRequest(inputs["built"], inputs["onnx"], params.stem, params.options)
        return registry.backend(params.backend).session(request)
    return _on_cpu(inputs["onnx"] / f"{params.stem}.onnx", emulated=is_emulated(params))


def is_emulated(params: NetworkParams) -> bool:
    """Tell whether `network_session` runs an emulation in the place of a precision's own file."""
    return params.backend is None and emulates(registry.precision(params.precision).onnx_type)


@contextmanager
def _on_cpu(shipped: Path, *, emulated: bool) -> Iterator[Session]:
    """Open a session; when it is there, the emulation's file has been read and goes."""
    with ExitStack() as stack:
        with tempfile.TemporaryDirectory() as scratch:
            model = (write_emulation(shipped, Path(scratch)) if emulated else None) or shipped
            session = stack.enter_context(_onnxruntime.session(model, "cpu"))
        yield session
