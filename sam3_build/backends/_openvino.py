"""What builds and what runs OpenVINO blobs share: the settings, the devices, and the terms that a blob is held to."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from sam3_build.documents import value_of
from sam3_build.errors import BuildError
from sam3_build.plugins import BuildRequest, RunRequest
from sam3_build.spec import Json, Processors, Shapes, TensorSpec, first_difference

# The only hint that is used: layers keep the types of the file. A blob forgets it, so that it is given at import too.
HINT = "f32"

# The extension of the file beside a blob, which says what it was built for.
TERMS = ".built_for.json"

# Smallest and largest size of an open dim.
Bounds = tuple[int, int]


class Dimension(Protocol):
    """One dim of a port; `max_length` is -1 where nothing bounds it."""

    is_dynamic: bool
    min_length: int
    max_length: int

    def get_length(self) -> int:
        """Return its size when it has only one."""


class Port(Protocol):
    """An input or output of a model. One whose casts were optimized away bears their names beside its own."""

    names: set[str]
    partial_shape: Sequence[Dimension]


class InferRequest(Protocol):
    """What runs a compiled model, one run after another."""

    def infer(self, inputs: Mapping[int, object], *, share_inputs: bool, share_outputs: bool) -> Mapping[int, object]:
        """Return the outputs by position. Without `share_outputs` they are arrays of the caller's own."""


class CompiledModel(Protocol):
    """As much of a compiled model as is used here."""

    inputs: Sequence[Port]
    outputs: Sequence[Port]

    def get_property(self, name: str) -> object:
        """Return a setting that it really has."""

    def export_model(self) -> io.BytesIO:
        """Return the blob."""

    def create_infer_request(self) -> InferRequest:
        """Return what runs it."""

    def get_runtime_model(self) -> object:
        """Return the graph of the layers that run."""


@dataclass(frozen=True)
class Terms:
    """What a blob was built for.

    device:   release, device, name, capabilities and the instruction sets that OpenVINO made it for
    inputs:   as the ONNX has them, in its order; an open dim is ""
    outputs:  their names, in order
    profiles: input -> (min, opt, max) shapes, one mapping per shape profile
    """

    device: Mapping[str, Json]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    profiles: tuple[Mapping[str, Shapes], ...]

    def bounds(self, tensor: TensorSpec) -> tuple[int | Bounds | None, ...]:
        """Return a size, or smallest and largest size over all profiles, of each dim; None for one that is open."""
        shapes = [profile[tensor.name] for profile in self.profiles]
        return tuple(
            dim
            if isinstance(dim, int)
            else (min(low[axis] for low, _, _ in shapes), max(high[axis] for _, _, high in shapes))
            if shapes
            else None
            for axis, dim in enumerate(tensor.dims)
        )


# ------------------------------------------------------------------ devices


def probe() -> Processors:
    """Return the devices that OpenVINO finds here; one that cannot be asked is a problem in words."""
    try:
        import openvino

        return Processors({name: fields(name) for name in openvino.Core().available_devices})
    except (ImportError, OSError, RuntimeError) as error:
        return Processors(problem=f"OpenVINO cannot be asked for its devices: {brief(error)}")


def fields(device: str) -> Mapping[str, Json]:
    """Return what a blob for `device` is bound to. RuntimeError where OpenVINO has no such device."""
    import openvino

    core = openvino.Core()
    found: dict[str, Json] = {
        "openvino": str(openvino.get_version()),
        "device": device,
        "name": str(core.get_property(device, "FULL_DEVICE_NAME")).strip(),
        "capabilities": sorted(map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES"))),
    }
    # Capabilities do not tell AMX from AVX-512, and OpenVINO refuses a blob for the other one: it says which it needs
    # of any model that it has compiled.
    model = openvino.Model([parameter := openvino.opset13.parameter([1])], [parameter])
    compiled = core.compile_model(model, device, settings(device, None))
    if "RUNTIME_REQUIREMENTS" in compiled.get_property("SUPPORTED_PROPERTIES"):
        found["requirements"] = str(compiled.get_property("RUNTIME_REQUIREMENTS"))
    return found


def settings(device: str, threads: Json) -> dict[str, object]:
    """Return what a model is compiled and imported with, so that no type is lowered that the file does not lower."""
    chosen: dict[str, object] = {"INFERENCE_PRECISION_HINT": HINT}
    if device == "CPU":
        # Activations stay what the file says; and no thread is bound to a CPU that another process works on.
        chosen |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "ENABLE_CPU_PINNING": False}
    return chosen | ({"INFERENCE_NUM_THREADS": threads} if isinstance(threads, int) else {})


def require_hint(compiled: CompiledModel, file: str) -> None:
    """Raise BuildError when a model does not have the hint that it was compiled or imported with."""
    import openvino

    actual = compiled.get_property("INFERENCE_PRECISION_HINT")
    if actual != getattr(openvino.Type, HINT):
        name = actual.to_string() if isinstance(actual, openvino.Type) else str(actual)
        raise BuildError(f"{file}: OpenVINO computes it with the hint {name}, and was given {HINT}: types would differ")


def brief(error: BaseException) -> str:
    """Return what OpenVINO says, without the places in its own sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(("Exception from ", "Check '")))


# ------------------------------------------------------------------ building


def build_blob(request: BuildRequest, out: Path) -> Terms:
    """Write `<stem>.blob` and its terms into `out`; BuildError, quoting OpenVINO, when it cannot be built."""
    import openvino

    device, threads = str(request.options["device"]), request.options["threads"]
    try:
        core = openvino.Core()
        model = core.read_model(str(request.onnx))
        terms = Terms(
            device=fields(device),
            inputs=tuple(_spec(port) for port in model.inputs),
            outputs=tuple(min(port.names) for port in model.outputs),
            profiles=request.profiles,
        )
        if request.profiles:
            model.reshape({tensor.name: _partial_shape(terms, tensor) for tensor in terms.inputs})
        compiled: CompiledModel = core.compile_model(model, device, settings(device, threads))
        require_hint(compiled, request.onnx.name)
        blob = compiled.export_model().getvalue()
    except RuntimeError as error:
        raise BuildError(f"{request.onnx.name}: OpenVINO cannot build it for {device}: {brief(error)}") from error
    (out / f"{request.stem}.blob").write_bytes(blob)
    (out / f"{request.stem}{TERMS}").write_text(json.dumps(asdict(terms), indent=1) + "\n")
    logging.getLogger(__name__).info("%s for %s", request.stem, terms.device["name"])
    return terms


def _spec(port: Port) -> TensorSpec:
    import openvino

    assert isinstance(port, openvino.Output)
    dims = tuple("" if dim.is_dynamic else dim.get_length() for dim in port.partial_shape)
    return TensorSpec(min(port.names), str(port.element_type.to_dtype().name), dims)


def _partial_shape(terms: Terms, tensor: TensorSpec) -> object:
    import openvino

    dims = (bound if bound is not None else -1 for bound in terms.bounds(tensor))
    return openvino.PartialShape([openvino.Dimension(*dim) if isinstance(dim, tuple) else dim for dim in dims])


# ------------------------------------------------------------------ loading


def load(request: RunRequest) -> tuple[CompiledModel, Terms]:
    """Return the blob in the folder `built`, held to its terms, and these.

    BuildError when it was built for another device or release, by the first field that differs; when OpenVINO does not
    keep the hint; and when the blob takes other shapes than its profiles.
    """
    import openvino

    file = f"{request.stem}.blob"
    path, terms = request.built / file, _terms(request.built / f"{request.stem}{TERMS}")
    device = str(request.options["device"])
    try:
        if wrong := first_difference(terms.device, fields(device)):
            raise BuildError(f"{file} was built for another device: {wrong}; build it here")
        compiled: CompiledModel = openvino.Core().import_model(
            io.BytesIO(path.read_bytes()), device, settings(device, request.options["threads"])
        )
    except RuntimeError as error:
        raise BuildError(f"{file}: OpenVINO cannot import it: {brief(error)}") from error
    require_hint(compiled, file)
    _require_interface(compiled, terms, file)
    return compiled, terms


def _terms(path: Path) -> Terms:
    try:
        return value_of(Terms, json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise BuildError(
            f"{path.name}: what the blob was built for cannot be read ({error}); build it again"
        ) from error


def _require_interface(compiled: CompiledModel, terms: Terms, file: str) -> None:
    """Raise BuildError when a blob has other inputs, outputs or bounds than its terms."""
    for kind, names, ports in (
        ("inputs", [tensor.name for tensor in terms.inputs], compiled.inputs),
        ("outputs", list(terms.outputs), compiled.outputs),
    ):
        if len(ports) != len(names) or not all(n in port.names for n, port in zip(names, ports, strict=True)):
            raise BuildError(f"{file} has the {kind} {[min(port.names) for port in ports]}, and {names} were built")
    for tensor, port in zip(terms.inputs, compiled.inputs, strict=True):
        for axis, (expected, dim) in enumerate(zip(terms.bounds(tensor), port.partial_shape, strict=True)):
            actual = (dim.min_length, dim.max_length) if dim.is_dynamic else dim.get_length()
            if expected is not None and actual != (expected if _is_open(expected) else _size(expected)):
                raise BuildError(
                    f"{file} takes {_shown(actual)} on axis {axis} of {tensor.name!r}, and its shape profiles "
                    f"{_shown(expected)}: a profile is missing; build it again"
                )


def _is_open(bound: int | Bounds) -> bool:
    return isinstance(bound, tuple) and bound[0] < bound[1]


def _size(bound: int | Bounds) -> int:
    return bound[0] if isinstance(bound, tuple) else bound


def _shown(bound: int | Bounds) -> str:
    return f"{bound[0]} to {bound[1]}" if isinstance(bound, tuple) and _is_open(bound) else str(_size(bound))
