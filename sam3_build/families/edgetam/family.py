"""The declaration of EdgeTAM: the networks of SAM 2's predictor with a small trunk and small memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sam3_build.families.edgetam.config import OFFICIAL, static_dims
from sam3_build.pipeline import predictor_networks as networks
from sam3_build.pipeline.predictor_cases import case_shapes
from sam3_build.spec import ComponentSpec, Json, Licence, ModelFamily

# Each memory: of so many latents the first ones are of the whole map, the others of its windows, row by row.
MEMORY = networks.floats("memory_features", "objects", "latents", "memory_size")
MEMORIES = networks.floats("memory_features", "objects", "memories", "latents", "memory_size")

# What SAM 2's networks take and these do not: pointers have no times, hidden objects leave no mark on memories.
LEFT_OUT = {"memory_attention": "pointer_times", "memory_encoder": "object_score_logits"}


def _own(component: ComponentSpec, *modules: str) -> ComponentSpec:
    """Return a network of memories as EdgeTAM has it."""
    inputs = (
        MEMORIES if tensor.name == MEMORIES.name else tensor
        for tensor in component.inputs
        if tensor.name != LEFT_OUT[component.name]
    )
    outputs = (MEMORY if tensor.name == MEMORY.name else tensor for tensor in component.outputs)
    return replace(component, inputs=tuple(inputs), outputs=tuple(outputs), modules=modules, fp32_nodes=())


PREDICTOR = networks.layout(
    (
        networks.VISION_ENCODER,
        networks.MASK_PROMPT,
        networks.MASK_DECODER,
        _own(networks.MEMORY_ATTENTION, "memory_attention", "memory_temporal_positional_encoding"),
        _own(networks.MEMORY_ENCODER, "memory_encoder", "spatial_perceiver"),
    )
)


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    That of the memory attention are its scores: each cell looks at every cell of the map, or at all latents.
    """
    dims = static_dims(config)
    keys = max(dims["cells"], dims["latents"] * dims["time_codes"]) if component == "memory_attention" else 0
    return 4 * max(dims["cells"] * keys, 16 * dims["image_size"] ** 2)


FAMILY = ModelFamily(
    name="edgetam",
    layouts={"predictor": PREDICTOR},
    references={"meta": "Meta's code"},
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    weight_names=("edgetam.pt",),
    # One size was published.
    official_config=lambda shapes: OFFICIAL,
    cases=case_shapes,
    usual_static=static_dims({}),
    licence=Licence("Apache-2.0", "https://github.com/facebookresearch/EdgeTAM/blob/main/LICENSE"),
    layout="predictor",
)
