"""FLOAT16 matrix multiplications in an FP32 graph: every GEMM is an island, and the residual stream stays FP32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from sam3_build.graph.schemas import GEMMS
from sam3_build.plugins import SIXTEEN_BIT, Precision
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir


def _keep(model: object, options: Mapping[str, Json]) -> Mapping[str, str]:
    nodes = cast("ir.Model", model).graph
    return {node.name or "": "not a GEMM" for node in nodes if node.op_type not in GEMMS}


PRECISION = Precision(
    name="fp16_islands",
    summary="FLOAT16 matrix multiplications and convolutions; everything between them in FP32",
    onnx_type="FLOAT16",
    gates=SIXTEEN_BIT,
    keep=_keep,
)
