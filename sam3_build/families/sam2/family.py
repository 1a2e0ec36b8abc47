"""The declaration of SAM 2.1: its layouts, their tensors, and which output feeds which input.

`deepstream` keeps names, dims and function of NVIDIA's export for DeepStream's MaskTracker; `predictor` computes what
Meta's predictors do, on pictures and clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sam3_build.families.sam2.config import config_of, static_dims
from sam3_build.pipeline.interactive import ObjectPrompts, clicks
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import (
    CaseRequest,
    CaseShape,
    ComponentSpec,
    Feed,
    Json,
    Layout,
    Licence,
    Loop,
    ModelFamily,
    Per,
    Pipeline,
    Step,
    TensorSpec,
)

# Positions of points and times of pointers run in modules named `coordinates`: FP16 is off by
# half a pixel at 1024 pixels.
COORDINATES = ("*coordinates/*",)

# Counts of pixels pass what FP16 holds.
STABILITY = ("stability/*",)


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


@dataclass(frozen=True)
class ObjectPrompt:
    """One object on a frame, by points, a box around it, or both; or by a mask of it."""

    frame: int
    object: int | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: str | None = None


@dataclass(frozen=True)
class ClipPrompts:
    """What may be asked of a clip: objects, each on as many frames as one likes; more on a frame refine it."""

    prompts: tuple[ObjectPrompt, ...] = ()


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    That of the memory attention are its scores: each cell looks at every cell of all memories.
    """
    dims = static_dims(config)
    keys = dims["cells"] * dims["time_codes"] if component == "memory_attention" else 0
    return 4 * max(dims["cells"] * keys, 16 * dims["image_size"] ** 2)


def _float(name: str, *dims: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", dims)


# ------------------------------------------------------------------ layout deepstream

IMAGE_ENCODER = ComponentSpec(
    name="image_encoder",
    inputs=(_float("image", 1, 3, "image_size", "image_size"),),
    outputs=(
        _float("pix_feat", 1, "hidden_size", "grid", "grid"),
        _float("high_res_feat0", 1, "hidden_8", "grid_4", "grid_4"),
        _float("high_res_feat1", 1, "hidden_4", "grid_2", "grid_2"),
        _float("vision_feats", 1, "hidden_size", "grid", "grid"),
        _float("vision_pos_embed", "cells", 1, "hidden_size"),
    ),
    modules=("vision_encoder", "mask_decoder.conv_s0", "mask_decoder.conv_s1", "no_memory_embedding"),
)
MASK_DECODER = ComponentSpec(
    name="mask_decoder",
    inputs=(
        _float("point_coords", "batch", "num_points", 2),
        _float("point_labels", "batch", "num_points"),
        _float("image_embed", "batch", "hidden_size", "grid", "grid"),
        _float("high_res_feats_0", 1, "hidden_8", "grid_4", "grid_4"),
        _float("high_res_feats_1", 1, "hidden_4", "grid_2", "grid_2"),
    ),
    outputs=(
        _float("obj_ptr", "batch", "hidden_size"),
        _float("mask_for_mem", "batch", 1, "image_size", "image_size"),
        _float("pred_mask", "batch", 1, "grid_4", "grid_4"),
        _float("iou", "batch", 1),
        _float("occ_logit", "batch", 1),
    ),
    modules=("prompt_encoder", "mask_decoder", "object_pointer_proj", "no_object_pointer", "shared_image_embedding"),
    fp32_nodes=COORDINATES,
)
MEMORY_ATTENTION = ComponentSpec(
    name="memory_attention",
    inputs=(
        _float("current_vision_feat", 1, "hidden_size", "grid", "grid"),
        _float("current_vision_pos_embed", "cells", 1, "hidden_size"),
        _float("memory_0", "batch", "num", "hidden_size"),
        _float("memory_1", "batch", "buff_size", "memory_size", "grid", "grid"),
        _float("memory_pos_embed", "batch", "buff_size_embed", "memory_size"),
        _float("cond_frame_id_diff"),
    ),
    outputs=(_float("image_embed", "batch", "hidden_size", "grid", "grid"),),
    modules=("memory_attention", "temporal_positional_encoding_projection_layer", "no_memory_embedding"),
    fp32_nodes=COORDINATES,
)
MEMORY_ENCODER = ComponentSpec(
    name="memory_encoder",
    inputs=(
        _float("mask_for_mem", "batch", 1, "image_size", "image_size"),
        _float("pix_feat", 1, "hidden_size", "grid", "grid"),
        _float("occ_logit", "batch", 1),
    ),
    outputs=(
        _float("maskmem_features", "batch", "memory_size", "grid", "grid"),
        _float("maskmem_pos_enc", "batch", "cells", "memory_size"),
        _float("temporal_code", "time_codes", 1, 1, "memory_size"),
    ),
    modules=("memory_encoder", "occlusion_spatial_embedding_parameter", "memory_temporal_positional_encoding"),
    row_dim="batch",
)
CLICKS = ("prompt_frames", "prompt_objects", "prompt_counts", "point_coords", "point_labels")
TRACKED = ("ids", "masks", "visible", "scores")


def _video(prompts: type, encoder: ComponentSpec, loop: Loop) -> Pipeline:
    gives = (*(tensor.name for tensor in encoder.inputs), *loop.given)
    return Pipeline("video", prompts, gives, (Step(encoder.name, per=Per.FRAME), loop), result="tracks")


def _of(encoder: ComponentSpec) -> tuple[tuple[Feed, ...], tuple[str, ...]]:
    """Return what a loop gets of each frame: all that the encoder gives."""
    names = tuple(tensor.name for tensor in encoder.outputs)
    return tuple(Feed(name, ((encoder.name, name),)) for name in names), names


OF_ENCODER, OF_FRAME = _of(IMAGE_ENCODER)
DEEPSTREAM = Layout(
    components=(IMAGE_ENCODER, MASK_DECODER, MEMORY_ATTENTION, MEMORY_ENCODER),
    pipelines=(
        _video(
            TrackerPrompts,
            IMAGE_ENCODER,
            Loop(
                "mask_tracker",
                components=("memory_attention", "mask_decoder", "memory_encoder"),
                outputs=TRACKED,
                given=CLICKS,
                feeds=OF_ENCODER,
                frames=OF_FRAME,
            ),
        ),
    ),
    dynamic_dims=("batch", "num_points", "num", "buff_size", "buff_size_embed"),
    published_as="deepstream",
)


# ------------------------------------------------------------------ layout predictor

FINER = (
    _float("image_embeddings.0", 1, "hidden_8", "grid_4", "grid_4"),
    _float("image_embeddings.1", 1, "hidden_4", "grid_2", "grid_2"),
)
FEATURES = _float("vision_features", 1, "hidden_size", "grid", "grid")
CONDITIONED = _float("conditioned_features", "objects", "hidden_size", "grid", "grid")
MASK = _float("input_masks", "objects", "grid_4", "grid_4")
SCORE = _float("object_score_logits", "objects", 1)
PROMPTS = (
    _float("input_points", "objects", "points", 2),
    TensorSpec("input_labels", "int64", ("objects", "points")),
    MASK,
    TensorSpec("has_masks", "bool", ("objects",)),
    TensorSpec("multimask", "bool", ("objects",)),
)
VISION_ENCODER = ComponentSpec(
    name="vision_encoder",
    inputs=(_float("pixel_values", 1, 3, "image_size", "image_size"),),
    outputs=(*FINER, _float("image_embeddings.2", 1, "hidden_size", "grid", "grid"), FEATURES),
    modules=IMAGE_ENCODER.modules,
)
MASK_PROMPT = ComponentSpec(
    name="mask_prompt",
    inputs=(_float("masks", "objects", "image_size", "image_size"),),
    outputs=(MASK,),
    modules=("mask_downsample",),
)
PREDICTOR_DECODER = ComponentSpec(
    name="mask_decoder",
    inputs=(*FINER, CONDITIONED, *PROMPTS),
    outputs=(
        _float("pred_masks", "objects", "grid_4", "grid_4"),
        _float("iou_scores", "objects", 1),
        _float("object_pointer", "objects", "hidden_size"),
        SCORE,
        _float("high_res_masks", "objects", "image_size", "image_size"),
    ),
    modules=MASK_DECODER.modules,
    fp32_nodes=(*COORDINATES, *STABILITY),
    networks={"meta": "predictor_decoder"},
)
PREDICTOR_ATTENTION = ComponentSpec(
    name="memory_attention",
    inputs=(
        FEATURES,
        _float("memory_features", "objects", "memories", "cells", "memory_size"),
        TensorSpec("memory_offsets", "int64", ("objects", "memories")),
        _float("object_pointers", "objects", "pointers", "hidden_size"),
        _float("pointer_times", "objects", "pointers"),
    ),
    outputs=(CONDITIONED,),
    modules=(*MEMORY_ATTENTION.modules, "memory_temporal_positional_encoding"),
    fp32_nodes=COORDINATES,
    networks={"meta": "predictor_attention"},
)
PREDICTOR_MEMORY = ComponentSpec(
    name="memory_encoder",
    inputs=(FEATURES, _float("mask_for_memory", "objects", "image_size", "image_size"), SCORE),
    outputs=(_float("memory_features", "objects", "cells", "memory_size"),),
    modules=("memory_encoder", "occlusion_spatial_embedding_parameter"),
    networks={"meta": "predictor_memory"},
)
FEEDS, FRAMES = _of(VISION_ENCODER)
PREDICTOR = Layout(
    components=(VISION_ENCODER, MASK_PROMPT, PREDICTOR_DECODER, PREDICTOR_ATTENTION, PREDICTOR_MEMORY),
    pipelines=(
        Pipeline(
            "interactive",
            ObjectPrompts,
            tuple(tensor.name for tensor in (*VISION_ENCODER.inputs, *PROMPTS)),
            (
                Step("vision_encoder"),
                Step(
                    "mask_decoder",
                    (
                        *(Feed(tensor.name, (("vision_encoder", tensor.name),)) for tensor in FINER),
                        Feed(CONDITIONED.name, (("vision_encoder", "image_embeddings.2"),)),
                    ),
                ),
            ),
            result="masks",
        ),
        _video(
            ClipPrompts,
            VISION_ENCODER,
            Loop(
                "track",
                components=("memory_attention", "mask_prompt", "mask_decoder", "memory_encoder"),
                outputs=TRACKED,
                given=(*CLICKS, "prompt_masks", "masked_prompts"),
                feeds=FEEDS,
                frames=FRAMES,
            ),
        ),
    ),
    dynamic_dims=("objects", "points", "memories", "pointers"),
)


def case_shapes(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return a case for each sample. What calls of a clip's components are as large as, the loop alone knows."""
    if request.pipeline == "video":
        return tuple(CaseShape(f"clip{number}", (i,), {}) for i, number in enumerate(request.numbers))
    counts = [max(1, len(clicks(prompts))) for prompts in request.prompts if isinstance(prompts, ObjectPrompts)]
    return tuple(
        CaseShape(f"sample{number}", (i,), {"objects": 1, "points": points})
        for i, (number, points) in enumerate(zip(request.numbers, counts, strict=True))
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
