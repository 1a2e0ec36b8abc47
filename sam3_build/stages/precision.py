"""Takes a component's ONNX and a precision recipe, returns `<component>.<precision>.onnx` with its types written in.

Inputs and outputs keep names, types and dims, whatever the recipe: callers see one contract.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.params import PrecisionParams
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir

    from sam3_build.graph.casts import CastCounts

logger = logging.getLogger(__name__)


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write the recipe's types and return what became low, what stayed FP32 and why.

    document: PrecisionParams. inputs: onnx.
    """
    from sam3_build.graph import keep_fp32
    from sam3_build.graph.casts import write_types

    params = PrecisionParams.of(document)
    component, recipe = params.component, registry.precision(params.precision)
    model = files.load(inputs["onnx"])
    keep = keep_fp32.kept(model, recipe, params)
    weights_before = files.weight_bytes(model)
    if recipe.onnx_type == "FLOAT":
        facts: dict[str, Json] = {"fp32_tensors": _require_fp32(model, component)}
    else:
        done = write_types(model, recipe.onnx_type, keep.get)
        if params.require_low:
            _require_low(done, params.stem)
        facts = {**asdict(done)}
    facts |= {
        "nodes": len(model.graph),
        "weight_bytes_before": weights_before,
        "weight_bytes": files.weight_bytes(model),
    }
    target = out / f"{params.stem}.onnx"
    files.save(model, target)
    del model
    files.check(target, params.stem)
    logger.info("%s: %s", params.stem, facts)
    return facts


def _require_low(done: CastCounts, what: str) -> None:
    """Refuse a precision that lowers nothing, or none of the matrix multiplications that it is for."""
    if done.low and (done.low_gemms or not done.gemms):
        return
    nothing = f"none of the {done.gemms} matrix multiplications is" if done.low else "no node is"
    raise BuildError(
        f"{what}: {nothing} in the low type, so this would be FP32 under another name; kept in FP32: "
        f"{_in_words(done.kept)}; for want of a schema: {_in_words(done.kept_by_schema)}. Keep less, or leave it out"
    )


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in counts.items()) or "none"


def _require_fp32(model: ir.Model, component: str) -> int:
    """Return the number of floating tensors; BuildError when one of them is not FP32."""
    files.infer_types(model)
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(o for n in model.graph for o in n.outputs)]
    floating = [value for value in values if value.dtype is not None and value.dtype.is_floating_point()]
    for value in floating:
        if value.dtype is not None and value.dtype.name != "FLOAT":
            producer = value.producer()
            origin = f"written by node {producer.name!r}" if producer else "an input or a weight"
            raise BuildError(
                f"{component}: tensor {value.name!r} ({origin}) is {value.dtype.name}, but every floating tensor of an "
                "exported graph must be FLOAT; cast it in the family's `modules.py`"
            )
    return len(floating)


STAGE = Stage(
    name="precision",
    summary="Write each precision's types into graphs",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-ir"),
    run=run,
    memory=Memory(base=400_000_000, weights=2.0),
    imports=ONNX,
)
