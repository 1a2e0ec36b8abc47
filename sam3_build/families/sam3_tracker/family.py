"""The declaration of SAM 3's tracker on pictures: one object by points, a box, or an earlier mask.

Names, dims and function of both networks are those of onnx-community's exports, which transformers.js and usls run: a
client may leave out points or boxes (a size of 0), or give one point labelled -1 beside a box.
"""

from __future__ import annotations

from dataclasses import dataclass

from sam3_build.families.sam3_tracker.config import largest_tensor, static_dims
from sam3_build.pipeline.interactive import NO_POINT, Click, ObjectPrompts, Prompted
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import (
    CaseRequest,
    CaseShape,
    ComponentSpec,
    Feed,
    Layout,
    Licence,
    ModelFamily,
    Pipeline,
    ReferenceGap,
    Step,
    TensorSpec,
)


def _float(name: str, *dims: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", dims)


EMBEDDINGS = (
    _float("image_embeddings.0", "batch", "hidden_8", "grid_4", "grid_4"),
    _float("image_embeddings.1", "batch", "hidden_4", "grid_2", "grid_2"),
    _float("image_embeddings.2", "batch", "hidden_size", "grid", "grid"),
)
VISION_ENCODER = ComponentSpec(
    name="vision_encoder",
    inputs=(_float("pixel_values", "batch", 3, "image_size", "image_size"),),
    outputs=EMBEDDINGS,
    modules=("vision_encoder", "mask_decoder.conv_s0", "mask_decoder.conv_s1", "no_memory_embedding"),
    networks={"meta": "vision_encoder_as_meta", "hf": "vision_encoder_as_hf"},
)

# Points of boxes and objects have a dim each: what clients leave out has size 0 there, or 1 for all objects.
PROMPTS = (
    _float("input_points", "batch", "point_objects", "points", 2),
    TensorSpec("input_labels", "int64", ("batch", "objects", "points")),
    _float("input_boxes", "batch", "num_boxes", 4),
)
MASKS = (
    _float("input_masks", "batch", "objects", "grid_4", "grid_4"),
    TensorSpec("has_masks", "bool", ("batch", "objects")),
)


def _decoder(network: str, *prompts: TensorSpec) -> ComponentSpec:
    return ComponentSpec(
        name="prompt_encoder_mask_decoder",
        inputs=(*prompts, *EMBEDDINGS),
        outputs=(
            _float("iou_scores", "batch", "objects", "num_masks"),
            _float("pred_masks", "batch", "objects", "num_masks", "grid_4", "grid_4"),
            _float("object_score_logits", "batch", "objects", 1),
        ),
        modules=("prompt_encoder", "mask_decoder", "shared_image_embedding"),
        # FP16 is off by half a pixel at 1008 pixels.
        fp32_nodes=("*coordinates/*",),
        networks=dict.fromkeys(REFERENCES, network),
    )


def _layout(kind: type, decoder: ComponentSpec) -> Layout:
    feeds = tuple(Feed(tensor.name, ((VISION_ENCODER.name, tensor.name),)) for tensor in EMBEDDINGS)
    prompts = tuple(tensor.name for tensor in decoder.inputs if tensor not in EMBEDDINGS)
    steps = (Step(VISION_ENCODER.name), Step(decoder.name, feeds))
    return Layout(
        components=(VISION_ENCODER, decoder),
        pipelines=(Pipeline("interactive", kind, ("pixel_values", *prompts), steps, result="masks"),),
        dynamic_dims=("batch", "point_objects", "objects", "points", "num_boxes"),
    )


@dataclass(frozen=True)
class Clicks:
    """What may be asked of a picture without an earlier mask: one object, by points, a box around it, or both."""

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()


def points_of(prompts: Prompted) -> list[Click]:
    """Return the points of a prompt; of a mask alone one that is none, as transformers has it."""
    own: list[Click] = [(point.x, point.y, float(point.label)) for point in prompts.points]
    return own if own or prompts.boxes else [(0.0, 0.0, NO_POINT)]


def case_shapes(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return every sample alone, and two of them that have equally many points and boxes, or one twice, as a batch."""
    asked = [prompts for prompts in request.prompts if isinstance(prompts, Clicks | ObjectPrompts)]
    counts = [(len(points_of(prompts)), len(prompts.boxes)) for prompts in asked]
    cases = [_case(f"sample{number}", (i,), counts[i]) for i, number in enumerate(request.numbers)]
    if counts:
        most = max(counts, key=counts.count)
        alike = [i for i, count in enumerate(counts) if count == most]
        cases.append(_case("batch", tuple((alike * 2)[:2]), most))
    return tuple(cases)


def _case(name: str, samples: tuple[int, ...], count: tuple[int, int]) -> CaseShape:
    points, boxes = count
    sizes = {"batch": len(samples), "point_objects": 1, "objects": 1, "points": points, "num_boxes": boxes}
    return CaseShape(name, samples, sizes)


# transformers 5.23 adds the embedding that stands for no memory to the neck's coarsest level, which nothing reads.
REFERENCES = {"meta": "Meta's code", "hf": "transformers"}

FAMILY = ModelFamily(
    name="sam3_tracker",
    layouts={
        "clicks": _layout(Clicks, _decoder("clicks", *PROMPTS)),
        "previous_mask": _layout(ObjectPrompts, _decoder("previous_mask", *PROMPTS, *MASKS)),
    },
    references=REFERENCES,
    gap=ReferenceGap(prompts="pictures", concerns=lambda prompts: True, network=("clicks", "vision_encoder")),
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    weight_names=("sam3.pt",),
    # All that transformers has as its default.
    official_config=lambda shapes: {"model_type": "sam3_tracker"},
    cases=case_shapes,
    usual_static=static_dims({}),
    licence=Licence("SAM License", "https://github.com/facebookresearch/sam3/blob/main/LICENSE", must_accompany=True),
    layout="clicks",
)
