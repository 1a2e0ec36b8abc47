"""BFLOAT16: the range of FP32 with eight bits of precision. Operators whose schema lacks it stay FP32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from sam3_build.plugins import Precision
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir


def _keep(model: object, options: Mapping[str, Json]) -> Mapping[str, str]:
    """Keep ConvTranspose, which ONNX allows from opset 22 on and TensorRT builds in no release."""
    nodes = cast("ir.Model", model).graph
    return {node.name or "": "ConvTranspose" for node in nodes if node.op_type == "ConvTranspose"}


PRECISION = Precision(
    name="bf16",
    summary="BFLOAT16 inside, FP32 inputs and outputs; ConvTranspose, and what has no BFLOAT16 schema, stays FP32",
    onnx_type="BFLOAT16",
    # It rounds eight times as coarsely as FP16.
    gates={"cosine": 0.995, "max_abs_over_range": 0.16, "std_ratio": (0.9, 1.1), "rows": 0.16},
    keep=_keep,
)
