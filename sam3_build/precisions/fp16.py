"""Half precision: weights and arithmetic in FLOAT16, inputs and outputs in FP32."""

from __future__ import annotations

from sam3_build.plugins import SIXTEEN_BIT, Precision

PRECISION = Precision(
    name="fp16",
    summary="FLOAT16 inside, FP32 inputs and outputs; whatever an operator's schema does not allow stays FP32",
    onnx_type="FLOAT16",
    gates=SIXTEEN_BIT,
)
