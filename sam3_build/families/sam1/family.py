"""The declaration of SAM 1: its layouts, their tensors, and which output feeds which input.

Tensors of the decoder are those of `SamOnnxModel` in facebookresearch/segment-anything, without `orig_im_size` and the
masks of that size: what runs the files enlarges `low_res_masks`. All of them have a batch of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.config_values import integer, published, require
from sam3_build.pipeline.interactive import ObjectPrompts, case_shapes, clicks
from sam3_build.spec import (
    CaseRequest,
    CaseShape,
    ComponentSpec,
    Feed,
    Json,
    Layout,
    Licence,
    ModelFamily,
    Pipeline,
    Step,
    TensorSpec,
)

# The picture's side in cells of its features; masks have four cells in each direction for each of them.
PATCH, FINER = 16, 4

# Positions of points run in a module of the name `coordinates`: FP16 is off by half a pixel at 1024 pixels. Counts of
# pixels, in `stability`, pass what FP16 holds.
COORDINATES = "prompt_encoder.coordinates/*"
STABILITY = "stability/*"


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a SamConfig (as JSON) fixes, by the names that tensor specs use; BuildError if unfit.

    What the config leaves out is as in all published models.
    """
    size = integer(config, "vision_config", "image_size", usual=1024)
    hidden = integer(config, "vision_config", "output_channels", usual=256)
    require(config, PATCH, "vision_config", "patch_size")
    require(config, PATCH, "prompt_encoder_config", "patch_size")
    require(config, size, "prompt_encoder_config", "image_size")
    require(config, hidden, "prompt_encoder_config", "hidden_size")
    require(config, hidden, "mask_decoder_config", "hidden_size")
    require(config, hidden // 2, "vision_config", "num_pos_feats")
    if size % PATCH:
        raise BuildError(f"model config: vision_config.image_size is {size}, no multiple of patch_size, {PATCH}")
    grid = size // PATCH
    several = integer(config, "mask_decoder_config", "num_multimask_outputs", usual=3)
    return {
        "image_size": size,
        "hidden_size": hidden,
        "grid": grid,
        "mask_size": FINER * grid,
        "num_masks": several + 1,
    }


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Json]:
    """Return the config of an official file, read from shapes of its tensors by our names; BuildError without one."""
    layers = "vision_encoder.layers."
    if not any(name.startswith(layers) for name in shapes):
        raise BuildError("the file has no image encoder of SAM 1; MobileSAM, for one, has another one")
    known = {name: size[:2] for name, size in SIZES.items()}
    name = published(shapes, "vision_encoder.patch_embed.projection.weight", layers, known)
    width, count, heads, attend_globally = SIZES[name]
    return {
        "model_type": "sam",
        "vision_config": {
            "model_type": "sam_vision_model",
            "hidden_size": width,
            "num_hidden_layers": count,
            "num_attention_heads": heads,
            "global_attn_indexes": list(attend_globally),
        },
    }


# Width, layers, heads, and the layers that look at the whole picture. Source: segment_anything/build_sam.py.
SIZES = {
    "ViT-B": (768, 12, 12, (2, 5, 8, 11)),
    "ViT-L": (1024, 24, 16, (5, 11, 17, 23)),
    "ViT-H": (1280, 32, 16, (7, 15, 23, 31)),
}


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    Of the image encoder these are attention scores: in every head each cell looks at every other one.
    """
    dims = static_dims(config)
    if component == "image_encoder":
        return 4 * integer(config, "vision_config", "num_attention_heads", usual=12) * dims["grid"] ** 4
    return 4 * (dims["hidden_size"] // 8) * dims["mask_size"] ** 2


# ------------------------------------------------------------------ prompts


def point_count(prompts: ObjectPrompts) -> int:
    """Return how many points a prompt becomes: without a box, one that is no point stands where the corners would."""
    return len(clicks(prompts)) + (0 if prompts.boxes else 1)


def cases(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return every sample alone, and a batch."""
    return case_shapes(request, point_count)


# ------------------------------------------------------------------ tensors

EMBEDDINGS = TensorSpec("image_embeddings", "float32", ("batch", "hidden_size", "grid", "grid"))
PROMPTS = (
    TensorSpec("point_coords", "float32", ("batch", "num_points", 2)),
    TensorSpec("point_labels", "float32", ("batch", "num_points")),
    TensorSpec("mask_input", "float32", ("batch", 1, "mask_size", "mask_size")),
    TensorSpec("has_mask_input", "float32", ("batch",)),
)
IMAGE_ENCODER = ComponentSpec(
    name="image_encoder",
    inputs=(TensorSpec("images", "float32", ("batch", 3, "image_size", "image_size")),),
    outputs=(EMBEDDINGS,),
    modules=("vision_encoder",),
)


def _layout(name: str, masks: int | str, *more_fp32: str) -> Layout:
    """Return a layout: its decoder gives so many masks, and its networks are called after it."""
    decoder = ComponentSpec(
        name="mask_decoder",
        inputs=(EMBEDDINGS, *PROMPTS),
        outputs=(
            TensorSpec("iou_predictions", "float32", ("batch", masks)),
            TensorSpec("low_res_masks", "float32", ("batch", masks, "mask_size", "mask_size")),
        ),
        modules=("prompt_encoder", "mask_decoder"),
        fp32_nodes=(COORDINATES, *more_fp32),
        networks={reference: f"{name}_as_{reference}" for reference in REFERENCES},
    )
    steps = (
        Step("image_encoder"),
        Step("mask_decoder", (Feed("image_embeddings", (("image_encoder", "image_embeddings"),)),)),
    )
    given = tuple(tensor.name for tensor in (*IMAGE_ENCODER.inputs, *PROMPTS))
    return Layout(
        components=(IMAGE_ENCODER, decoder),
        pipelines=(Pipeline("interactive", ObjectPrompts, given, steps, result="masks"),),
        dynamic_dims=("batch", "num_points"),
    )


# They differ in the epsilon of the decoder's layer norms: 1e-5 in Meta's code, 1e-6 in transformers' configs.
REFERENCES = {"meta": "Meta's code", "hf": "transformers"}

FAMILY = ModelFamily(
    name="sam1",
    layouts={
        # All masks and their predicted IoUs; the one that Meta picks of them, by the number of points; all masks with
        # how stable each is.
        "multi": _layout("multi", "num_masks"),
        "single": _layout("single", 1),
        "stability": _layout("stability", "num_masks", STABILITY),
    },
    references=REFERENCES,
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    weight_names=("sam_vit_b_01ec64.pth", "sam_vit_l_0b3195.pth", "sam_vit_h_4b8939.pth"),
    official_config=config_of,
    cases=cases,
    usual_static=static_dims({}),
    licence=Licence("Apache-2.0", "https://github.com/facebookresearch/segment-anything/blob/main/LICENSE"),
    layout="multi",
)
