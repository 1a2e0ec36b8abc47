"""Which nodes of a component's FP32 graph a precision keeps in FP32, and the type that each GEMM must compute in.

Three parties keep nodes: the recipe by their role, family and manifest by patterns, a lock by names. The precision
stage writes this into the file, and `verify` compares the file that runs with it. Models are `onnx_ir`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.graph.files import infer_types
from sam3_build.graph.fingerprint import locked_nodes
from sam3_build.graph.schemas import GEMMS, is_float, signature
from sam3_build.params import PrecisionParams
from sam3_build.plugins import Precision

if TYPE_CHECKING:
    import onnx_ir as ir

# Who keeps a node, as facts and tables call it; a recipe says it in its own words.
MANIFEST, FAMILY, LOCK = "manifest", "family", "lock"


def kept(model: ir.Model, recipe: Precision, params: PrecisionParams) -> dict[str, str]:
    """Return node name -> why it stays FP32, of all nodes of an FP32 graph that must.

    params: those of the precision action. Each of its patterns must match a node.
    """
    names = [node.name or "" for node in model.graph]
    where = params.stem
    found: dict[str, str] = {}
    for origin, patterns, why in (
        ("keep_fp32", params.keep_fp32, MANIFEST),
        ("fp32_nodes", params.fp32_nodes, FAMILY),
    ):
        for pattern in patterns:
            matching = [name for name in names if fnmatchcase(name, pattern)]
            if not matching:
                raise BuildError(
                    f"{where}: {origin} pattern {pattern!r} matches none of the {len(names)} nodes"
                    f"{_nearest(pattern, names)}"
                )
            found |= dict.fromkeys(matching, why)
    for name in locked_nodes(model, params.locked, where):
        found.setdefault(name, LOCK)
    try:
        own = recipe.keep(model, params.options)
    except BuildError as error:
        raise BuildError(f"{where}: {error}") from error
    return found | dict(own)


def gemm_types(model: ir.Model, recipe: Precision, params: PrecisionParams) -> dict[str, str]:
    """Return GEMM node name -> the ONNX element type that it must compute in; INT8 between Q/DQ pairs.

    What an operator's schema does not admit is FLOAT, kept or not. `model` is the FP32 graph; its types are inferred.
    """
    import onnx_ir as ir

    infer_types(model)
    keep = kept(model, recipe, params)
    low = ir.DataType[recipe.onnx_type]
    types: dict[str, str] = {}
    for node in model.graph:
        if node.op_type not in GEMMS or not any(map(is_float, node.outputs)):
            continue
        name = node.name or ""
        if name not in keep and is_quantizable(node, recipe.quantizes):
            types[name] = "INT8"
        elif name in keep or signature(node, low, model.graph.opset_imports.get(node.domain, 0)) is None:
            types[name] = "FLOAT"
        else:
            types[name] = recipe.onnx_type
    return types


def is_quantizable(node: ir.Node, operators: Sequence[str]) -> bool:
    """Tell whether `node` is one of `operators` and multiplies an activation by a constant matrix."""
    if node.op_type not in operators or len(node.inputs) < 2:
        return False
    activation, weight = node.inputs[0], node.inputs[1]
    if activation is None or weight is None or activation.is_initializer() or not weight.is_initializer():
        return False
    return weight.const_value is not None and len(weight.const_value.shape) == 2


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Return a hint: nodes with a part that looks like a part of `pattern`."""
    from difflib import get_close_matches

    parts = {part for name in names for part in re.split(r"[./]", name)}
    for wanted in sorted(re.split(r"[./*?\[\]]+", pattern), key=len, reverse=True):
        near = get_close_matches(wanted, sorted(parts), n=1)
        if near:
            examples = [name for name in names if near[0] in re.split(r"[./]", name)][:3]
            return f"; did you mean {near[0]!r}, as in {', '.join(examples)}?"
    return f"; node names look like {', '.join(names[:3])}"
