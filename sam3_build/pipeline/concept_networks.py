"""The networks of models that segment what words and boxes mean, as SAM 3's: their tensors, and who feeds whom.

In v1 and v2 names, shapes and conventions are those of usls' exports: runtimes made for those run these. A family adds
its vision encoder, and says what its modules are called.
"""

from __future__ import annotations

from sam3_build.pipeline.concept_cases import ImagePrompts
from sam3_build.spec import ComponentSpec, Feed, Layout, Pipeline, ReferenceGap, Step, TensorSpec

FEATURES = tuple(
    TensorSpec(f"fpn_feat_{level}", "float32", ("batch", "hidden_size", f"feat_{level}_height", f"feat_{level}_width"))
    for level in range(3)
)
POSITIONS = TensorSpec("fpn_pos_2", "float32", ("batch", "hidden_size", "feat_2_height", "feat_2_width"))

# The label of a box that counts as absent: it pads a row, or is the one box of a prompt without boxes.
IGNORED_LABEL = -10

# Box edges, sine encodings, relative positions and box refinement run in modules named `coordinates`:
# a half-precision coordinate is off by a quarter of a pixel at 1008 pixels.
COORDINATES = ("*.coordinates.*",)

VISION_ENCODER = ComponentSpec(
    name="vision_encoder",
    inputs=(TensorSpec("images", "float32", ("batch", 3, "image_height", "image_width")),),
    outputs=(*FEATURES, POSITIONS),
    modules=("vision_encoder",),
)
TEXT = (
    TensorSpec("text_features", "float32", ("batch", "text_len", "hidden_size")),
    TensorSpec("text_mask", "bool", ("batch", "text_len")),
)
TEXT_ENCODER = ComponentSpec(
    name="text_encoder",
    inputs=(
        TensorSpec("input_ids", "int64", ("batch", "text_len")),
        TensorSpec("attention_mask", "int64", ("batch", "text_len")),
    ),
    outputs=TEXT,
    modules=("text_encoder", "text_projection"),
)
BOXES = (
    TensorSpec("input_boxes", "float32", ("batch", "num_boxes", 4)),
    TensorSpec("input_boxes_labels", "int64", ("batch", "num_boxes")),
)
GEOMETRY_ENCODER = ComponentSpec(
    name="geometry_encoder",
    inputs=(*BOXES, FEATURES[2], POSITIONS),
    outputs=(
        TensorSpec("geometry_features", "float32", ("batch", "num_boxes+1", "hidden_size")),
        TensorSpec("geometry_mask", "bool", ("batch", "num_boxes+1")),
    ),
    modules=("geometry_encoder",),
    fp32_nodes=COORDINATES,
)
DECODER = ComponentSpec(
    name="decoder",
    inputs=(
        *FEATURES,
        POSITIONS,
        TensorSpec("prompt_features", "float32", ("batch", "prompt_len", "hidden_size")),
        TensorSpec("prompt_mask", "bool", ("batch", "prompt_len")),
    ),
    outputs=(
        TensorSpec("pred_masks", "float32", ("batch", "num_queries", "feat_0_height", "feat_0_width")),
        TensorSpec("pred_boxes", "float32", ("batch", "num_queries", 4)),
        TensorSpec("pred_logits", "float32", ("batch", "num_queries")),
        TensorSpec("presence_logits", "float32", ("batch", 1)),
    ),
    modules=("detr_encoder", "detr_decoder", "mask_decoder", "dot_product_scoring"),
    fp32_nodes=COORDINATES,
)
# The geometry encoder and the decoder as one: without boxes it gets one ignored box, and whether CLS counts then is
# the reference's business and no longer the caller's.
WHOLE_DECODER = ComponentSpec(
    name="decoder",
    inputs=(*FEATURES, POSITIONS, *TEXT, *BOXES),
    outputs=DECODER.outputs,
    modules=(*GEOMETRY_ENCODER.modules, *DECODER.modules),
    fp32_nodes=COORDINATES,
    networks={"meta": "whole_decoder_as_meta", "hf": "whole_decoder_as_hf"},
)
# All that reads a prompt as one.
DETECTOR = ComponentSpec(
    name="detector",
    inputs=(*FEATURES, POSITIONS, *TEXT_ENCODER.inputs, *BOXES),
    outputs=DECODER.outputs,
    modules=(*TEXT_ENCODER.modules, *WHOLE_DECODER.modules),
    fp32_nodes=COORDINATES,
    networks={"meta": "detector_as_meta", "hf": "detector_as_hf"},
)


def _step(component: ComponentSpec, *feeds: Feed) -> Step:
    """Return a step whose inputs are outputs of an encoder, where they have its names, and made of `feeds`."""
    inputs = {tensor.name for tensor in component.inputs}
    own = [
        Feed(tensor.name, ((source.name, tensor.name),))
        for source in (VISION_ENCODER, TEXT_ENCODER)
        for tensor in source.outputs
        if tensor.name in inputs
    ]
    return Step(component.name, (*own, *feeds))


def _pipeline(*steps: Step) -> Pipeline:
    given = (*VISION_ENCODER.inputs, *TEXT_ENCODER.inputs, *BOXES)
    return Pipeline("image", ImagePrompts, tuple(tensor.name for tensor in given), steps, result="instances")


def _has_no_boxes(prompts: object) -> bool:
    return isinstance(prompts, ImagePrompts) and not prompts.boxes


# What the code bases do differently: without boxes, Meta's still feeds the geometry encoder's CLS token.
GAP = ReferenceGap(
    prompts="text-only prompts",
    concerns=_has_no_boxes,
    network=("v2", "decoder"),
    absent={"input_boxes": ((0.0, 0.0, 0.0, 0.0),), "input_boxes_labels": (IGNORED_LABEL,)},
)

V1 = Layout(
    components=(VISION_ENCODER, TEXT_ENCODER, GEOMETRY_ENCODER, DECODER),
    pipelines=(
        _pipeline(
            Step("vision_encoder"),
            Step("text_encoder"),
            _step(GEOMETRY_ENCODER),
            _step(
                DECODER,
                Feed("prompt_features", (("text_encoder", "text_features"), ("geometry_encoder", "geometry_features"))),
                Feed("prompt_mask", (("text_encoder", "text_mask"), ("geometry_encoder", "geometry_mask"))),
            ),
        ),
    ),
    dynamic_dims=("batch", "num_boxes", "prompt_len"),
    gap=GAP,
)
V2 = Layout(
    components=(VISION_ENCODER, TEXT_ENCODER, WHOLE_DECODER),
    pipelines=(_pipeline(Step("vision_encoder"), Step("text_encoder"), _step(WHOLE_DECODER)),),
    dynamic_dims=("batch", "num_boxes"),
    gap=GAP,
)
TWO_FILES = Layout(
    components=(VISION_ENCODER, DETECTOR),
    pipelines=(_pipeline(Step("vision_encoder"), _step(DETECTOR)),),
    dynamic_dims=("batch", "num_boxes"),
    note="the detector holds the text encoder, and encodes the text again for every picture and every prompt; "
    "layouts v1 and v2 have a file for it, whose output can be kept",
    gap=GAP,
)
LAYOUTS = {"v1": V1, "v2": V2}
