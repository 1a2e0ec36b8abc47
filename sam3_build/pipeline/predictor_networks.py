"""The networks of predictors of SAM 2's kind: their tensors, and who feeds whom on pictures and clips.

A family takes the components as they are, or with what it has in addition, and names its sizes with `sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.predictor_cases import ClipPrompts
from sam3_build.spec import ComponentSpec, Feed, Layout, Loop, Per, Pipeline, Step, TensorSpec

# Positions of points and times of pointers run in modules named `coordinates`: FP16 is off by
# half a pixel at 1024 pixels.
COORDINATES = ("*coordinates/*",)

# Counts of pixels pass what FP16 holds.
STABILITY = ("stability/*",)

# What a loop reads of prompts, but for masks, and what it returns.
CLICKS = ("prompt_frames", "prompt_objects", "prompt_counts", "point_coords", "point_labels")
TRACKED = ("ids", "masks", "visible", "scores")


def floats(
    name: str, *dims: int | str, meaningful_where: str | None = None, chosen_by: str | None = None
) -> TensorSpec:
    """Return a tensor of float32."""
    return TensorSpec(name, "float32", dims, meaningful_where, chosen_by)


def sizes(image_size: int, grid: int, hidden_size: int) -> dict[str, int]:
    """Return sizes of tensors by name. grid: the side of the coarsest map, each of the finer ones having twice as much.

    Masks have the finest map's side, 4 times the grid's, and memories are made of masks of 16 times the grid's side.
    """
    return {
        "image_size": image_size,
        "grid": grid,
        "grid_2": 2 * grid,
        "grid_4": 4 * grid,
        "grid_16": 16 * grid,
        "cells": grid * grid,
        "hidden_size": hidden_size,
        "hidden_4": hidden_size // 4,
        "hidden_8": hidden_size // 8,
    }


FINER = (
    floats("image_embeddings.0", 1, "hidden_8", "grid_4", "grid_4"),
    floats("image_embeddings.1", 1, "hidden_4", "grid_2", "grid_2"),
)
FEATURES = floats("vision_features", 1, "hidden_size", "grid", "grid")
CONDITIONED = floats("conditioned_features", "objects", "hidden_size", "grid", "grid")
MASK = floats("input_masks", "objects", "grid_4", "grid_4")
SCORE = floats("object_score_logits", "objects", 1)
# Scores of the four masks of which one is given, the one with the largest score. Those of the last three masks are
# their predicted IoUs. That of the first, the mask of precise prompts, is the best of these plus what the mask is more
# stable than it must be; plus 1 when it is empty; and minus 1 where several objects may be meant.
CHOICE = floats("choice_scores", "objects", 4)
PROMPTS = (
    floats("input_points", "objects", "points", 2),
    TensorSpec("input_labels", "int64", ("objects", "points")),
    MASK,
    TensorSpec("has_masks", "bool", ("objects",)),
    TensorSpec("multimask", "bool", ("objects",)),
)


def _chosen(name: str, *dims: int | str) -> TensorSpec:
    """Return an output of the mask that is taken, of a visible object."""
    return floats(name, *dims, meaningful_where=SCORE.name, chosen_by=CHOICE.name)


VISION_ENCODER = ComponentSpec(
    name="vision_encoder",
    inputs=(floats("pixel_values", 1, 3, "image_size", "image_size"),),
    outputs=(*FINER, floats("image_embeddings.2", 1, "hidden_size", "grid", "grid"), FEATURES),
    modules=("vision_encoder", "mask_decoder.conv_s0", "mask_decoder.conv_s1", "no_memory_embedding"),
)
MASK_PROMPT = ComponentSpec(
    name="mask_prompt",
    inputs=(floats("masks", "objects", "image_size", "image_size"),),
    outputs=(MASK,),
    modules=("mask_downsample",),
)
MASK_DECODER = ComponentSpec(
    name="mask_decoder",
    inputs=(*FINER, CONDITIONED, *PROMPTS),
    outputs=(
        _chosen("pred_masks", "objects", "grid_4", "grid_4"),
        floats("iou_scores", "objects", 1, chosen_by=CHOICE.name),
        _chosen("object_pointer", "objects", "hidden_size"),
        SCORE,
        _chosen("high_res_masks", "objects", "grid_16", "grid_16"),
        CHOICE,
    ),
    modules=("prompt_encoder", "mask_decoder", "object_pointer_proj", "no_object_pointer", "shared_image_embedding"),
    fp32_nodes=(*COORDINATES, *STABILITY),
)
MEMORY_ATTENTION = ComponentSpec(
    name="memory_attention",
    inputs=(
        FEATURES,
        floats("memory_features", "objects", "memories", "cells", "memory_size"),
        TensorSpec("memory_offsets", "int64", ("objects", "memories")),
        floats("object_pointers", "objects", "pointers", "hidden_size"),
        floats("pointer_times", "objects", "pointers"),
    ),
    outputs=(CONDITIONED,),
    modules=(
        "memory_attention",
        "temporal_positional_encoding_projection_layer",
        "memory_temporal_positional_encoding",
    ),
    fp32_nodes=COORDINATES,
)
MEMORY_ENCODER = ComponentSpec(
    name="memory_encoder",
    inputs=(FEATURES, floats("mask_for_memory", "objects", "grid_16", "grid_16"), SCORE),
    outputs=(floats("memory_features", "objects", "cells", "memory_size"),),
    modules=("memory_encoder", "occlusion_spatial_embedding_parameter"),
)
DYNAMIC_DIMS = ("objects", "points", "memories", "pointers")


def layout(components: Sequence[ComponentSpec]) -> Layout:
    """Return the layout of these components, named as those above, which they may have more outputs than.

    Its pipelines: `interactive` on pictures, and `video`, whose loop is `track` of the family's `loops.py`.
    """
    return Layout(tuple(components), (interactive(), video()), DYNAMIC_DIMS, reads_text=False)


def interactive() -> Pipeline:
    """Return the pipeline of one object on a picture."""
    finer = (Feed(tensor.name, (("vision_encoder", tensor.name),)) for tensor in FINER)
    return Pipeline(
        "interactive",
        ObjectPrompts,
        tuple(tensor.name for tensor in (*VISION_ENCODER.inputs, *PROMPTS)),
        (
            Step("vision_encoder"),
            Step("mask_decoder", (*finer, Feed(CONDITIONED.name, (("vision_encoder", "image_embeddings.2"),)))),
        ),
        result="masks",
    )


def video() -> Pipeline:
    """Return the pipeline of objects that are followed through a clip."""
    return followed(
        ClipPrompts,
        VISION_ENCODER,
        Loop(
            "track",
            components=("memory_attention", "mask_prompt", "mask_decoder", "memory_encoder"),
            outputs=TRACKED,
            given=(*CLICKS, "prompt_masks", "masked_prompts"),
            feeds=of_frames(VISION_ENCODER),
            frames=tuple(tensor.name for tensor in VISION_ENCODER.outputs),
        ),
    )


def followed(prompts: type, encoder: ComponentSpec, loop: Loop) -> Pipeline:
    """Return the pipeline `video`: an encoder of frames, and a loop."""
    gives = (*(tensor.name for tensor in encoder.inputs), *loop.given)
    return Pipeline("video", prompts, gives, (Step(encoder.name, per=Per.FRAME), loop), result="tracks")


def of_frames(encoder: ComponentSpec) -> tuple[Feed, ...]:
    """Return what a loop gets of each frame: all that the encoder gives."""
    return tuple(Feed(tensor.name, ((encoder.name, tensor.name),)) for tensor in encoder.outputs)
