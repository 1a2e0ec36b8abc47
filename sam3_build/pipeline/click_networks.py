"""The networks of SAM 3's tracker on pictures: one object by points, a box, or an earlier mask; who feeds whom.

Names, dims and function of both networks are those of onnx-community's exports, which transformers.js and usls run: a
client may leave out points or boxes (a size of 0), or give one point labelled -1 beside a box. A family says what its
modules are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sam3_build.pipeline.click_cases import PREVIOUS_MASK, SEPARATE, Clicks
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.predictor_networks import COORDINATES, floats
from sam3_build.spec import ComponentSpec, Feed, Layout, Pipeline, ReferenceGap, Step, TensorSpec

EMBEDDINGS = (
    floats("image_embeddings.0", "batch", "hidden_8", "grid_4", "grid_4"),
    floats("image_embeddings.1", "batch", "hidden_4", "grid_2", "grid_2"),
    floats("image_embeddings.2", "batch", "hidden_size", "grid", "grid"),
)
PIXELS = floats("pixel_values", "batch", 3, "image_size", "image_size")

# Points of boxes and objects have a dim each: what clients leave out has size 0 there, or 1 for all objects.
PROMPTS = (
    floats("input_points", "batch", "point_objects", "points", 2),
    TensorSpec("input_labels", "int64", ("batch", "objects", "points")),
    floats("input_boxes", "batch", "num_boxes", 4),
)
# Of a prompt encoder alone: corners of boxes are points labelled 2 and 3. Names are those of Meta's code.
POINTS = (floats("point_coords", "batch", "points", 2), TensorSpec("point_labels", "int64", ("batch", "points")))
DENSE = floats("dense_embeddings", "batch", "hidden_size", "grid", "grid")
# Of a mask decoder alone -> which of the picture's maps each input is.
MAPS = dict(zip(("high_res_feats_0", "high_res_feats_1", "image_embeddings"), EMBEDDINGS, strict=True))
MASKS = (
    floats("input_masks", "batch", "objects", "grid_4", "grid_4"),
    TensorSpec("has_masks", "bool", ("batch", "objects")),
)

# What each network consists of.
ENCODER = ("vision_encoder", "mask_decoder.conv_s0", "mask_decoder.conv_s1", "no_memory_embedding")
PROMPT_ENCODER = tuple(
    f"prompt_encoder.{part}" for part in ("shared_embedding", "point_embed", "not_a_point_embed", "no_mask_embed")
)
MASK_DECODER = ("mask_decoder", "shared_image_embedding")

# What the code bases do differently: transformers 5.23 adds the embedding that stands for no memory to the neck's
# coarsest level, which nothing reads.
GAP = ReferenceGap(prompts="pictures", concerns=lambda prompts: True, network=("clicks", "vision_encoder"))
NETWORKS = {"meta": "vision_encoder_as_meta", "hf": "vision_encoder_as_hf"}


def layouts(prefix: str = "", shared: Sequence[str] = ()) -> dict[str, Layout]:
    """Return the layouts by name, for a family whose references are `meta` and `hf`.

    prefix: what the names of all modules begin with, but of those that are `shared` with other networks
    """

    def modules(*names: str) -> tuple[str, ...]:
        return tuple(f"{prefix}{name}" for name in names)

    encoder = ComponentSpec(
        name="vision_encoder",
        inputs=(PIXELS,),
        outputs=EMBEDDINGS,
        modules=(*shared, *modules(*ENCODER)),
        networks=NETWORKS,
    )
    heads = (*PROMPT_ENCODER, *MASK_DECODER)
    clicks = _decoder("clicks", modules(*heads), PROMPTS)
    previous_mask = _decoder(PREVIOUS_MASK, modules(*heads, "prompt_encoder.mask_embed"), (*PROMPTS, *MASKS))
    separate = _separate(encoder, modules(*PROMPT_ENCODER), modules(*MASK_DECODER))
    return {
        "clicks": _layout(Clicks, encoder, clicks),
        PREVIOUS_MASK: _layout(ObjectPrompts, encoder, previous_mask),
        SEPARATE: separate,
    }


def _decoder(network: str, modules: tuple[str, ...], prompts: tuple[TensorSpec, ...]) -> ComponentSpec:
    return ComponentSpec(
        name="prompt_encoder_mask_decoder",
        inputs=(*prompts, *EMBEDDINGS),
        outputs=(
            floats("iou_scores", "batch", "objects", "num_masks"),
            floats("pred_masks", "batch", "objects", "num_masks", "grid_4", "grid_4"),
            floats("object_score_logits", "batch", "objects", 1),
        ),
        modules=modules,
        fp32_nodes=COORDINATES,
        networks=dict.fromkeys(NETWORKS, network),
    )


def _layout(kind: type, encoder: ComponentSpec, decoder: ComponentSpec) -> Layout:
    feeds = tuple(Feed(tensor.name, ((encoder.name, tensor.name),)) for tensor in EMBEDDINGS)
    prompts = tuple(tensor.name for tensor in decoder.inputs if tensor not in EMBEDDINGS)
    steps = (Step(encoder.name), Step(decoder.name, feeds))
    return Layout(
        components=(encoder, decoder),
        pipelines=(Pipeline("interactive", kind, (PIXELS.name, *prompts), steps, result="masks"),),
        dynamic_dims=("batch", "point_objects", "objects", "points", "num_boxes"),
        reads_text=False,
        gap=GAP,
    )


def _separate(encoder: ComponentSpec, prompt_modules: tuple[str, ...], mask_modules: tuple[str, ...]) -> Layout:
    """Return the layout whose prompt encoder and mask decoder are a file each, with one prompt per row."""
    prompt_encoder = ComponentSpec(
        name="prompt_encoder",
        inputs=POINTS,
        outputs=(floats("sparse_embeddings", "batch", "points+1", "hidden_size"), DENSE),
        modules=prompt_modules,
        fp32_nodes=COORDINATES,
    )
    mask_decoder = ComponentSpec(
        name="mask_decoder",
        inputs=(
            replace(MAPS["image_embeddings"], name="image_embeddings"),
            floats("sparse_embeddings", "batch", "tokens", "hidden_size"),
            DENSE,
            *(replace(MAPS[name], name=name) for name in ("high_res_feats_0", "high_res_feats_1")),
        ),
        outputs=(
            floats("masks", "batch", "num_masks", "grid_4", "grid_4"),
            floats("iou_predictions", "batch", "num_masks"),
            floats("object_score_logits", "batch", 1),
        ),
        modules=mask_modules,
    )
    feeds = (
        *(Feed(name, ((encoder.name, tensor.name),)) for name, tensor in MAPS.items()),
        *(Feed(tensor.name, ((prompt_encoder.name, tensor.name),)) for tensor in prompt_encoder.outputs),
    )
    given = (PIXELS.name, *(tensor.name for tensor in POINTS))
    steps = (Step(encoder.name), Step(prompt_encoder.name), Step(mask_decoder.name, feeds))
    return Layout(
        components=(encoder, prompt_encoder, mask_decoder),
        pipelines=(Pipeline("interactive", Clicks, given, steps, result="masks"),),
        dynamic_dims=("batch", "points", "tokens"),
        note="the prompt encoder multiplies coordinates alone, which stay FP32: a lower precision refuses it",
        reads_text=False,
        gap=GAP,
    )
