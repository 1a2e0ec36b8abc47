"""FLOAT16, except for the roles that public reports of wrong 16-bit engines found to need FP32."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from sam3_build.errors import BuildError
from sam3_build.plugins import SIXTEEN_BIT, Precision
from sam3_build.precisions import _roles
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir

logger = logging.getLogger(__name__)


# What those roles consist of where an exporter or a rewrite took them apart.
PARTS = ("Cos", "Exp", "ReduceMean", "ReduceSum", "Sin", "Sqrt")


def _keep(model: object, options: Mapping[str, Json]) -> Mapping[str, str]:
    graph = cast("ir.Model", model)
    found = {
        **dict.fromkeys(_roles.residual_adds(graph), "residual add"),
        **dict.fromkeys(_roles.normalizations(graph), "normalization"),
        **dict.fromkeys(_roles.softmaxes(graph), "softmax"),
        **dict.fromkeys(_roles.rotary(graph), "rope"),
    }
    if not found:
        if part := next((node for node in graph.graph if node.op_type in PARTS), None):
            raise BuildError(
                "no normalization, softmax, rotary embedding or residual add was recognized, though the graph has the "
                f"{part.op_type} {part.name!r}: name what should stay FP32 with keep_fp32, or choose fp16"
            )
        logger.info("the graph has no normalization, softmax, rotary embedding or residual add: this is fp16")
    return found


PRECISION = Precision(
    name="fp16_safe",
    summary="FLOAT16 inside; rotary embeddings, normalizations, softmax and residual adds in FP32",
    onnx_type="FLOAT16",
    gates=SIXTEEN_BIT,
    keep=_keep,
)
