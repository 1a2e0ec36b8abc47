"""INT8 products with weights, between explicit Q/DQ pairs; everything else in FP32, attention's products too."""

from __future__ import annotations

from sam3_build.plugins import Precision

PRECISION = Precision(
    name="int8_matmul",
    summary="INT8 MatMuls by constant weights, calibrated on the samples; everything else in FP32",
    onnx_type="FLOAT",
    quantizes=("MatMul",),
)
