"""A family of two components that exist as text only, so that the build system can be tried in a second."""

from dataclasses import dataclass

from sam3_build.pipeline.prompts import Box
from sam3_build.spec import ComponentSpec, Feed, Layout, ModelFamily, Pipeline, Step, TensorSpec


@dataclass(frozen=True)
class Prompts:
    """What may be asked."""

    text: str | None = None
    boxes: tuple[Box, ...] = ()


FAMILY = ModelFamily(
    name="toy",
    layouts={
        "v1": Layout(
            components=(
                ComponentSpec(
                    name="encoder",
                    inputs=(TensorSpec("x", "float32", ("batch", 4)),),
                    outputs=(TensorSpec("y", "float32", ("batch", 4)),),
                    modules=("encoder",),
                ),
                ComponentSpec(
                    name="head",
                    inputs=(
                        TensorSpec("y", "float32", ("batch", 4)),
                        TensorSpec("p", "float32", ("batch", "num_boxes")),
                    ),
                    outputs=(TensorSpec("z", "float32", ("batch", "num_boxes")),),
                    modules=("head",),
                ),
            ),
            pipelines=(
                Pipeline(
                    "image", Prompts, ("x", "p"), (Step("encoder"), Step("head", (Feed("y", (("encoder", "y"),)),)))
                ),
            ),
            dynamic_dims=("batch", "num_boxes"),
        )
    },
    references={"meta": "Meta's code", "hf": "transformers"},
    static_dims=lambda config: {},
    largest_tensor=lambda component, config: 0,
    tokenizer="any file does",
)
