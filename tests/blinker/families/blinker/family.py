"""A family that shares nothing with SAM 3: it follows coloured squares that blink, by points on frames of a clip.

A frame encoder runs once per frame; a loop decodes a mask for each object and updates its state. No text, no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sam3_build.pipeline.prompts import Point
from sam3_build.spec import ComponentSpec, Feed, Json, Layout, Loop, ModelFamily, Per, Pipeline, Step, TensorSpec


@dataclass(frozen=True)
class OnFrame:
    """A point on an object, in a frame; or an object that is not followed any further."""

    frame: int
    object: int | None = None
    points: tuple[Point, ...] = ()
    remove: int | None = None


@dataclass(frozen=True)
class ClipPrompts:
    """What may be asked of a clip."""

    prompts: tuple[OnFrame, ...] = ()


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the side of the pictures and the number of channels."""
    return {name: int(str(config[name])) for name in ("size", "channels")}


STATE = TensorSpec("state", "float32", ("objects", "channels"))
COMPONENTS = (
    ComponentSpec(
        name="frame_encoder",
        inputs=(TensorSpec("images", "float32", ("batch", 3, "size", "size")),),
        outputs=(TensorSpec("features", "float32", ("batch", "channels", "size", "size")),),
        modules=("encoder",),
    ),
    ComponentSpec(
        name="decode",
        inputs=(TensorSpec("features", "float32", (1, "channels", "size", "size")), STATE),
        outputs=(
            TensorSpec("masks", "float32", ("objects", "size", "size")),
            TensorSpec("visible", "float32", ("objects", 1)),
        ),
        modules=("decoder",),
    ),
    ComponentSpec(
        name="update_state",
        inputs=(STATE, TensorSpec("seen", "float32", ("objects", "channels"))),
        outputs=(TensorSpec("next_state", "float32", ("objects", "channels")),),
        modules=("update",),
    ),
)

FAMILY = ModelFamily(
    name="blinker",
    layouts={
        "v1": Layout(
            components=COMPONENTS,
            pipelines=(
                Pipeline(
                    name="video",
                    prompts=ClipPrompts,
                    gives=("images", "prompt_frames", "prompt_objects", "prompt_points"),
                    steps=(
                        Step("frame_encoder", per=Per.FRAME),
                        Loop(
                            "track",
                            components=("decode", "update_state"),
                            outputs=("ids", "masks", "visible"),
                            given=("prompt_frames", "prompt_objects", "prompt_points"),
                            feeds=(Feed("features", (("frame_encoder", "features"),)),),
                            frames=("features",),
                        ),
                    ),
                    result="tracks",
                ),
            ),
            dynamic_dims=("batch", "objects"),
        )
    },
    references={"own": "this family"},
    static_dims=static_dims,
    largest_tensor=lambda component, config: 0,
)
