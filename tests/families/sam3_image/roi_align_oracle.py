"""ONNX's RoiAlign as ONNX Runtime implements it: what pooling is held against."""

from __future__ import annotations

from functools import cache

import onnxruntime
import torch
from onnx import TensorProto, helper


def roi_align(features: torch.Tensor, boxes: torch.Tensor, bins: int) -> torch.Tensor:
    """Pool [batch, channels, height, width] in [batch, boxes, 4] (corners, in cells)."""
    batch, count = boxes.shape[:2]
    feed = {
        "x": features.contiguous().numpy(),
        "rois": boxes.reshape(-1, 4).contiguous().numpy(),
        "batch": torch.arange(batch).repeat_interleave(count).numpy(),
    }
    return torch.from_numpy(_session(bins).run(None, feed)[0])


@cache
def _session(bins: int) -> onnxruntime.InferenceSession:
    node = helper.make_node(
        "RoiAlign",
        ["x", "rois", "batch"],
        ["y"],
        output_height=bins,
        output_width=bins,
        sampling_ratio=0,
        spatial_scale=1.0,
        coordinate_transformation_mode="output_half_pixel",
        mode="avg",
    )
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "c", "h", "w"]),
        helper.make_tensor_value_info("rois", TensorProto.FLOAT, ["n", 4]),
        helper.make_tensor_value_info("batch", TensorProto.INT64, ["n"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", bins, bins])
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
