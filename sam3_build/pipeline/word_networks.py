"""The networks that find what texts mean in clips: a detector of SAM 3's kind beside a predictor of SAM 2's.

Their tensors are those of `concept_networks`; of the detector the names of modules begin with `detector.`.
"""

from __future__ import annotations

from dataclasses import replace

from sam3_build.pipeline import concept_networks as concepts
from sam3_build.pipeline.predictor_networks import of_frames
from sam3_build.pipeline.word_prompts import TextPrompts
from sam3_build.spec import ComponentSpec, Feed, Loop, Per, Pipeline, Step

# The beginning of what the detector alone has.
DETECTOR = "detector."


def _of_detector(component: ComponentSpec) -> ComponentSpec:
    return replace(component, modules=tuple(f"{DETECTOR}{name}" for name in component.modules))


TEXT_ENCODER, GEOMETRY_ENCODER, DECODER = COMPONENTS = tuple(
    map(_of_detector, (concepts.TEXT_ENCODER, concepts.GEOMETRY_ENCODER, concepts.DECODER))
)
DYNAMIC_DIMS = ("batch", "num_boxes", "prompt_len")

# What the loop reads of prompts, beside what the text encoder makes of them; and what it returns.
GIVEN = ("input_boxes", "input_boxes_labels", "geometry_counts", "word_settings", "image_size")
FOUND = ("ids", "texts", "scores", "masks", "visible", "tracker_scores")


def text_video(encoder: ComponentSpec) -> Pipeline:
    """Return the pipeline. encoder: that of frames, with the maps of the detector and of the tracker."""
    texts = tuple(Feed(tensor.name, (("text_encoder", tensor.name),)) for tensor in TEXT_ENCODER.outputs)
    loop = Loop(
        "track_words",
        # A detector's outputs for one text of one frame are 66 MB at full size, of which few are read: it is no step.
        components=("geometry_encoder", "decoder", "memory_attention", "mask_prompt", "mask_decoder", "memory_encoder"),
        outputs=FOUND,
        given=(*(tensor.name for tensor in TEXT_ENCODER.outputs), *GIVEN),
        feeds=(*texts, *of_frames(encoder)),
        frames=tuple(tensor.name for tensor in encoder.outputs),
    )
    gives = (*(tensor.name for tensor in (*encoder.inputs, *TEXT_ENCODER.inputs)), *GIVEN)
    steps = (Step(encoder.name, per=Per.FRAME), Step("text_encoder"), loop)
    return Pipeline("text_video", TextPrompts, gives, steps, result="tracks")
