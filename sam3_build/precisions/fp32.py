"""Full precision: the graph as exported, after a check that every floating tensor in it is FP32."""

from __future__ import annotations

from sam3_build.plugins import Precision

PRECISION = Precision(
    name="fp32",
    summary="every floating tensor in FP32; the graph is checked, not changed",
    onnx_type="FLOAT",
    gates={"max_abs_over_std": 1e-3, "rows": 2e-4},
)
