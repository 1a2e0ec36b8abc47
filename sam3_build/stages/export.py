"""A component's weights in; its ONNX file out: canonical, named after the PyTorch modules, held against its spec."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import save
from sam3_build.naming import name_from_scopes
from sam3_build.spec import Json, ModelFamily, Stage, TensorSpec

if TYPE_CHECKING:
    from onnx_ir import Model, Value
    from torch import Tensor, nn


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<component>.onnx` with the opset given."""
    component, family, opset = str(params["component"]), registry.family(str(params["family"])), params["opset"]
    assert isinstance(opset, int)
    package = f"sam3_build.families.{family.name}"
    config = json.loads(inputs["config"].read_bytes())
    forward = import_module(f"{package}.forward")
    tensors = import_module(f"{package}.weights").load(component, params["source"], config, inputs.get("weights"))
    module = forward.assemble(component, config, tensors)

    model = to_onnx(module, forward.examples(component, config), family, component, opset)
    name_from_scopes(model, component, frozenset(tensors))
    hold_against_spec(model, family, component, config)
    save(model, out / f"{component}.onnx")
    counts: dict[str, Json] = {"nodes": len(model.graph), "initializers": len(model.graph.initializers)}
    logging.getLogger(__name__).info("%s: %s", component, counts)
    return counts


def to_onnx(
    module: nn.Module, examples: Mapping[str, Tensor], family: ModelFamily, component: str, opset: int
) -> Model:
    """Trace `module` with `examples` and return its graph. All dims but the family's dynamic ones become constants."""
    import torch

    spec = family.component(component)
    dims = {name: torch.export.Dim(name) for name in family.dynamic_dims}
    shapes = {t.name: {axis: dims[d] for axis, d in enumerate(t.dims) if d in dims} for t in spec.inputs}
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            kwargs=dict(examples),
            dynamic_shapes=shapes,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model


def hold_against_spec(model: Model, family: ModelFamily, component: str, config: Mapping[str, Json]) -> None:
    """Refuse a graph whose inputs and outputs are not those of the family: the exporter fixes a dim without a word.

    Symbolic dims are written as the spec has them (`num_boxes+1` where the exporter says `num_boxes + 1`).
    """
    spec, static = family.component(component), family.static_dims(config)
    problems: list[str] = []
    for kind, tensors, values in (
        ("input", spec.inputs, model.graph.inputs),
        ("output", spec.outputs, model.graph.outputs),
    ):
        names, found = [t.name for t in tensors], [v.name for v in values]
        if names != found:
            problems.append(f"{kind}s are {found}, the family says {names}")
            continue
        for tensor, value in zip(tensors, values, strict=True):
            problems += [f"{kind} {tensor.name}: {p}" for p in _differences(tensor, value, family, static)]
    if problems:
        raise BuildError(f"the ONNX of {component!r} is not what its family declares:\n  " + "\n  ".join(problems))


def _differences(tensor: TensorSpec, value: Value, family: ModelFamily, static: Mapping[str, int]) -> list[str]:
    import onnx_ir

    problems: list[str] = []
    dtype = None if value.dtype is None else value.dtype.numpy().name
    if dtype != tensor.dtype:
        problems.append(f"type is {dtype}, the family says {tensor.dtype}")
    dims = [d if isinstance(d, int) else str(d.value).replace(" ", "") for d in value.shape or ()]
    wanted = [static.get(d, d) if isinstance(d, str) else d for d in tensor.dims]
    if dims != wanted:
        what = ", ".join(str(d) for d in tensor.dims)
        problems.append(
            f"dims are {dims}, the family says {wanted} ({what}); dynamic: {', '.join(family.dynamic_dims)}"
        )
    value.shape = onnx_ir.Shape(wanted)
    return problems


STAGE = Stage(
    "export",
    "export a component to ONNX",
    ("torch", "transformers", "safetensors", "onnx", "onnxscript", "onnx-ir"),
    run,
)
