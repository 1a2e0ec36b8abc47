"""FLOAT16, except for the roles that public reports of wrong 16-bit engines found to need FP32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from sam3_build.errors import BuildError
from sam3_build.plugins import SIXTEEN_BIT, Precision
from sam3_build.precisions import _roles
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir


def _keep(model: object, options: Mapping[str, Json]) -> Mapping[str, str]:
    graph = cast("ir.Model", model)
    found = {
        **dict.fromkeys(_roles.residual_adds(graph), "residual add"),
        **dict.fromkeys(_roles.normalizations(graph), "normalization"),
        **dict.fromkeys(_roles.softmaxes(graph), "softmax"),
        **dict.fromkeys(_roles.rotary(graph), "rope"),
    }
    if not found:
        raise BuildError(
            "the graph has no normalization, softmax, rotary embedding or residual add, and so nothing that this "
            "precision keeps; choose fp16"
        )
    return found


PRECISION = Precision(
    name="fp16_safe",
    summary="FLOAT16 inside; rotary embeddings, normalizations, softmax and residual adds in FP32",
    onnx_type="FLOAT16",
    gates=SIXTEEN_BIT,
    keep=_keep,
)
