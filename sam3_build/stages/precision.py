"""A component's ONNX and a precision recipe in; `<component>.<precision>.onnx` out, its types written into the graph.

Inputs and outputs keep names, types and dims, whatever the recipe: callers see one contract.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import graph, registry
from sam3_build.errors import BuildError
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import Json
from sam3_build.structure import locked_nodes
from sam3_build.typed_edges import write_types

if TYPE_CHECKING:
    import onnx_ir as ir

logger = logging.getLogger(__name__)


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write the recipe's types and return what became low, what stayed FP32 and why.

    params: component, precision, keep_fp32 (the manifest's patterns) and fp32_nodes (the family's, for coordinate
    arithmetic); each of these must match a node; locked, what a search found (see structure.py). inputs: onnx.
    """
    component, precision = str(params["component"]), str(params["precision"])
    recipe = registry.precision(precision)
    model = graph.load(inputs["onnx"])
    names = [node.name or "" for node in model.graph]
    patterns = list(recipe.keep_fp32)  # of any component: these need not match
    for origin in ("keep_fp32", "fp32_nodes"):
        for pattern in _patterns(params, origin):
            if not _matching(pattern, names):
                raise BuildError(
                    f"{component}.{precision}: {origin} pattern {pattern!r} matches none of the {len(names)} nodes"
                    f"{_nearest(pattern, names)}"
                )
            patterns.append(pattern)

    locked = locked_nodes(model, params.get("locked"), f"{component}.{precision}")
    weights_before = _weights(model)
    if recipe.onnx_type == "FLOAT":
        facts: dict[str, Json] = {"fp32_tensors": _require_fp32(model, component)}
    else:
        keep = locked.union(name for pattern in patterns for name in _matching(pattern, names))
        facts = {**asdict(write_types(model, recipe.onnx_type, keep.__contains__))}
    facts |= {
        "nodes": len(model.graph),
        "weight_bytes_before": weights_before,
        "weight_bytes": _weights(model),
    }
    target = out / f"{component}.{precision}.onnx"
    graph.save(model, target)
    del model
    graph.check(target, f"{component}.{precision}")
    logger.info("%s.%s: %s", component, precision, facts)
    return facts


def _patterns(params: Mapping[str, Json], key: str) -> tuple[str, ...]:
    given = params.get(key, ())
    assert isinstance(given, Sequence)
    return tuple(str(pattern) for pattern in given)


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Return a hint: nodes with a part that looks like a part of `pattern`."""
    parts = {part for name in names for part in re.split(r"[./]", name)}
    for wanted in sorted(re.split(r"[./*?\[\]]+", pattern), key=len, reverse=True):
        near = get_close_matches(wanted, sorted(parts), n=1)
        if near:
            examples = [name for name in names if near[0] in re.split(r"[./]", name)][:3]
            return f"; did you mean {near[0]!r}, as in {', '.join(examples)}?"
    return f"; node names look like {', '.join(names[:3])}"


def _weights(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _require_fp32(model: ir.Model, component: str) -> int:
    """Return the number of floating tensors; BuildError when one of them is not FP32."""
    graph.infer_types(model)
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(o for n in model.graph for o in n.outputs)]
    floating = [value for value in values if value.dtype is not None and value.dtype.is_floating_point()]
    for value in floating:
        if value.dtype is not None and value.dtype.name != "FLOAT":
            producer = value.producer()
            origin = f"written by node {producer.name!r}" if producer else "an input or a weight"
            raise BuildError(
                f"{component}: tensor {value.name!r} ({origin}) is {value.dtype.name}, but every floating tensor of an "
                "exported graph must be FLOAT; cast it in the family's forward code"
            )
    return len(floating)


STAGE = Stage(
    name="precision",
    summary="Write each precision's types into graphs",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-ir"),
    run=run,
    memory=Memory(base=400_000_000, weights=2.0),
)
