"""The networks of SAM 3's tracker on pictures: one object by points, a box, or an earlier mask; who feeds whom.

Names, dims and function of both networks are those of onnx-community's exports, which transformers.js and usls run: a
client may leave out points or boxes (a size of 0), or give one point labelled -1 beside a box. A family says what its
modules are called.
"""

from __future__ import annotations

from collections.abc import Sequence

from sam3_build.pipeline.click_cases import PREVIOUS_MASK, Clicks
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
    return {
        "clicks": _layout(Clicks, encoder, clicks),
        PREVIOUS_MASK: _layout(ObjectPrompts, encoder, previous_mask),
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
