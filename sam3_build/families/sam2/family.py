"""The declaration of SAM 2.1: its layouts, their tensors, and which output feeds which input.

`deepstream` keeps names, dims and function of NVIDIA's export for DeepStream's MaskTracker; `predictor` computes what
Meta's predictors do, on pictures and clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sam3_build.families.sam2.config import config_of, static_dims
from sam3_build.pipeline import predictor_networks as networks
from sam3_build.pipeline.predictor_cases import case_shapes
from sam3_build.pipeline.predictor_networks import floats
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import ComponentSpec, Json, Layout, Licence, Loop, ModelFamily


@dataclass(frozen=True)
class ObjectOnFrame:
    """One object on a frame, by points, a box around it, or both."""

    frame: int
    object: int | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class TrackerPrompts:
    """What may be asked of a clip in the layout `deepstream`: each object on one frame."""

    prompts: tuple[ObjectOnFrame, ...] = ()


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    That of the memory attention are its scores: each cell looks at every cell of all memories.
    """
    dims = static_dims(config)
    keys = dims["cells"] * dims["time_codes"] if component == "memory_attention" else 0
    return 4 * max(dims["cells"] * keys, 16 * dims["image_size"] ** 2)


# ------------------------------------------------------------------ layout deepstream

IMAGE_ENCODER = ComponentSpec(
    name="image_encoder",
    inputs=(floats("image", 1, 3, "image_size", "image_size"),),
    outputs=(
        floats("pix_feat", 1, "hidden_size", "grid", "grid"),
        floats("high_res_feat0", 1, "hidden_8", "grid_4", "grid_4"),
        floats("high_res_feat1", 1, "hidden_4", "grid_2", "grid_2"),
        floats("vision_feats", 1, "hidden_size", "grid", "grid"),
        floats("vision_pos_embed", "cells", 1, "hidden_size"),
    ),
    modules=networks.VISION_ENCODER.modules,
)
MASK_DECODER = ComponentSpec(
    name="mask_decoder",
    inputs=(
        floats("point_coords", "batch", "num_points", 2),
        floats("point_labels", "batch", "num_points"),
        floats("image_embed", "batch", "hidden_size", "grid", "grid"),
        floats("high_res_feats_0", 1, "hidden_8", "grid_4", "grid_4"),
        floats("high_res_feats_1", 1, "hidden_4", "grid_2", "grid_2"),
    ),
    outputs=(
        floats("obj_ptr", "batch", "hidden_size", meaningful_where="occ_logit"),
        floats("mask_for_mem", "batch", 1, "image_size", "image_size", meaningful_where="occ_logit"),
        floats("pred_mask", "batch", 1, "grid_4", "grid_4", meaningful_where="occ_logit"),
        floats("iou", "batch", 1),
        floats("occ_logit", "batch", 1),
    ),
    modules=networks.MASK_DECODER.modules,
    fp32_nodes=networks.COORDINATES,
)
MEMORY_ATTENTION = ComponentSpec(
    name="memory_attention",
    inputs=(
        floats("current_vision_feat", 1, "hidden_size", "grid", "grid"),
        floats("current_vision_pos_embed", "cells", 1, "hidden_size"),
        floats("memory_0", "batch", "num", "hidden_size"),
        floats("memory_1", "batch", "buff_size", "memory_size", "grid", "grid"),
        floats("memory_pos_embed", "batch", "buff_size_embed", "memory_size"),
        floats("cond_frame_id_diff"),
    ),
    outputs=(floats("image_embed", "batch", "hidden_size", "grid", "grid"),),
    modules=("memory_attention", "temporal_positional_encoding_projection_layer", "no_memory_embedding"),
    fp32_nodes=networks.COORDINATES,
)
MEMORY_ENCODER = ComponentSpec(
    name="memory_encoder",
    inputs=(
        floats("mask_for_mem", "batch", 1, "image_size", "image_size"),
        floats("pix_feat", 1, "hidden_size", "grid", "grid"),
        floats("occ_logit", "batch", 1),
    ),
    outputs=(
        floats("maskmem_features", "batch", "memory_size", "grid", "grid"),
        floats("maskmem_pos_enc", "batch", "cells", "memory_size"),
        floats("temporal_code", "time_codes", 1, 1, "memory_size"),
    ),
    modules=("memory_encoder", "occlusion_spatial_embedding_parameter", "memory_temporal_positional_encoding"),
    row_dim="batch",
)
DEEPSTREAM = Layout(
    components=(IMAGE_ENCODER, MASK_DECODER, MEMORY_ATTENTION, MEMORY_ENCODER),
    pipelines=(
        networks.followed(
            TrackerPrompts,
            IMAGE_ENCODER,
            Loop(
                "mask_tracker",
                components=("memory_attention", "mask_decoder", "memory_encoder"),
                outputs=networks.TRACKED,
                given=networks.CLICKS,
                feeds=networks.of_frames(IMAGE_ENCODER),
                frames=tuple(tensor.name for tensor in IMAGE_ENCODER.outputs),
            ),
        ),
    ),
    dynamic_dims=("batch", "num_points", "num", "buff_size", "buff_size_embed"),
    published_as="deepstream",
)


# Networks that bear the names of those of the layout deepstream.
PREDICTOR = networks.layout(
    (
        networks.VISION_ENCODER,
        networks.MASK_PROMPT,
        replace(networks.MASK_DECODER, networks={"meta": "predictor_decoder"}),
        replace(networks.MEMORY_ATTENTION, networks={"meta": "predictor_attention"}),
        replace(networks.MEMORY_ENCODER, networks={"meta": "predictor_memory"}),
    )
)


FAMILY = ModelFamily(
    name="sam2",
    layouts={"deepstream": DEEPSTREAM, "predictor": PREDICTOR},
    references={"meta": "Meta's code"},
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    weight_names=tuple(f"sam2.1_hiera_{size}.pt" for size in ("tiny", "small", "base_plus", "large")),
    official_config=config_of,
    cases=case_shapes,
    usual_static=static_dims({}),
    licence=Licence("Apache-2.0", "https://github.com/facebookresearch/sam2/blob/main/LICENSE"),
    layout="deepstream",
)
