"""Takes a component's weights, returns its ONNX: canonical, named after PyTorch modules, checked against its spec."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.graph.files import save
from sam3_build.graph.names import name_from_scopes
from sam3_build.params import ExportParams
from sam3_build.plugins import EXPORTER, Memory, Stage
from sam3_build.spec import Json, TensorSpec

if TYPE_CHECKING:
    from onnx_ir import Model, Value
    from torch import nn

# Of the exporter's own rewrites, those that find something in a traced network: sizes that are computed though they
# are known, slices that take everything, moves that one move can do, a bias of zeros. All are exact. The others find
# nothing there, and one of them took most of an export: `slice_split_rule` looks for two nodes at once, and so walks
# the whole graph for every node of it.
REWRITES = (
    "mul_by_1_rule",
    "collapse_slice_rule",
    "materialize_reshape_shape_rule",
    "max_min_rule",
    "reshape_reshape_rule",
    "transpose_transpose_rule",
    "unsqueeze_unsqueeze_rule",
    "squeeze_reshape_1d_rule",
    "remove_optional_bias_from_conv_rule",
)


@dataclass(frozen=True)
class Interface:
    """What a component promises: its inputs and outputs, which dims stay symbolic, and every dim's size in tracing."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    dynamic: Sequence[str]
    sizes: Mapping[str, int]

    def dims(self, tensor: TensorSpec) -> list[int | str]:
        """Return the dims that `tensor` has in the ONNX: static ones as sizes, all others by their symbolic names."""
        return [d if d in self.dynamic or isinstance(d, int) else self.sizes.get(d, d) for d in tensor.dims]


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<component>.onnx` with the opset given.

    document: ExportParams
    """
    from sam3_build.stages._torch import open_network, read_config

    params = ExportParams.of(document)
    component, code = params.component, registry.family_code(params.family)
    sizes = {**code.family.static_dims(read_config(inputs)), **code.modules.DYNAMIC_SIZES}
    interface = Interface(params.spec.inputs, params.spec.outputs, params.dynamic_dims, sizes)

    with _collector_paused():
        network = open_network(code, params, inputs)
        tensors = frozenset(network.state_dict())
        model = to_onnx(network, interface, params.opset)
        optimize(model)
    name_from_scopes(model, component, tensors)
    hold_against(interface, model, component)
    save(model, out / f"{component}.onnx")
    counts: dict[str, Json] = {"nodes": len(model.graph), "initializers": len(model.graph.initializers)}
    logging.getLogger(__name__).info("%s: %s", component, counts)
    return counts


def to_onnx(module: nn.Module, interface: Interface, opset: int) -> Model:
    """Trace `module` with inputs of ones and return its graph. All dims but the dynamic ones become constants.

    Its arguments bear the names of the inputs, `_` for each dot; the graph has the inputs' own names.
    """
    import torch

    from sam3_build.torch_modules.assemble import arguments

    sizes = interface.sizes
    for t in interface.inputs:
        if unsized := [d for d in t.dims if isinstance(d, str) and d not in sizes]:
            raise BuildError(
                f"input {t.name!r} has a dim {unsized[0]!r} that is neither in the layout's dynamic_dims nor in the "
                f"family's static_dims{did_you_mean(unsized[0], sizes)}"
            )
    examples = {
        t.name: torch.ones([sizes[d] if isinstance(d, str) else d for d in t.dims], dtype=getattr(torch, t.dtype))
        for t in interface.inputs
    }
    dims = {name: torch.export.Dim(name) for name in interface.dynamic}
    shapes = {
        t.name: {axis: dims[d] for axis, d in enumerate(t.dims) if isinstance(d, str) and d in dims}
        for t in interface.inputs
    }
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            kwargs=arguments(examples),
            dynamic_shapes=arguments(shapes),
            input_names=[t.name for t in interface.inputs],
            output_names=[t.name for t in interface.outputs],
            opset_version=opset,
            dynamo=True,
            verbose=False,
            optimize=False,  # its optimizer is quadratic; `optimize` gives the same graph
        )
    assert program is not None
    return program.model


def optimize(model: Model) -> None:
    """Fold constants into initializers, and remove what computes nothing or the same again; linear in the graph's size.

    The passes of the exporter's own optimizer in their order, with REWRITES for all of its rewrites.
    """
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules import common as rules

    rewrite = RewritePass([getattr(rules, name) for name in REWRITES])
    for _ in range(2):  # what is rewritten may leave constants
        fold_constants(model, onnx_shape_inference=True)
        rewrite(model)
        common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.OutputFixPass()(model)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's collector of cycles: it walks torch's modules and all that is traced again and again, for nothing.

    Graphs are cycles that live until the export ends; the walks took a tenth of a small network's export.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def hold_against(interface: Interface, model: Model, component: str) -> None:
    """Refuse a graph whose inputs and outputs are not those of the family: the exporter fixes a dim without a word.

    Symbolic dims are written as the spec has them (`num_boxes+1` where the exporter says `num_boxes + 1`).
    """
    problems: list[str] = []
    for kind, tensors, values in (
        ("input", interface.inputs, model.graph.inputs),
        ("output", interface.outputs, model.graph.outputs),
    ):
        names, found = [t.name for t in tensors], [v.name for v in values]
        if names != found:
            problems.append(f"{kind}s are {found}, the family says {names}")
            continue
        for tensor, value in zip(tensors, values, strict=True):
            problems += [f"{kind} {tensor.name}: {p}" for p in _differences(interface, tensor, value)]
    if problems:
        raise BuildError(f"the ONNX of {component!r} is not what its family declares:\n  " + "\n  ".join(problems))


def _differences(interface: Interface, tensor: TensorSpec, value: Value) -> list[str]:
    import onnx_ir

    problems: list[str] = []
    dtype = None if value.dtype is None else value.dtype.numpy().name
    if dtype != tensor.dtype:
        problems.append(f"type is {dtype}, the family says {tensor.dtype}")
    dims = [d if isinstance(d, int) else str(d.value).replace(" ", "") for d in value.shape or ()]
    wanted = interface.dims(tensor)
    if dims != wanted:
        what = ", ".join(str(d) for d in tensor.dims)
        problems.append(f"dims are {dims}, the family says {wanted} ({what}); dynamic: {', '.join(interface.dynamic)}")
    value.shape = onnx_ir.Shape(wanted)
    return problems


STAGE = Stage(
    name="export",
    summary="Export components from PyTorch to ONNX",
    tools=("torch", "transformers", "onnx", "onnxscript", "onnx-ir"),
    run=run,
    memory=Memory(base=900_000_000, weights=1.0),
    imports=EXPORTER,
)
