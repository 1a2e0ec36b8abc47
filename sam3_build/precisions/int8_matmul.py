"""INT8 products with weights, between explicit Q/DQ pairs; everything else in FP32, attention's products too."""

from __future__ import annotations

from sam3_build.plugins import Precision

PRECISION = Precision(
    name="int8_matmul",
    summary="INT8 MatMuls by constant weights, calibrated on the samples; everything else in FP32",
    onnx_type="FLOAT",
    # A step is a 127th of a range.
    gates={"cosine": 0.99, "max_abs_over_range": 0.25, "std_ratio": (0.8, 1.25), "rows": 0.25},
    quantizes=("MatMul",),
)
