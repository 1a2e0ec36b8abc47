"""The declaration of the SAM 3 image model: the layouts of its kind, and the sizes that its config fixes."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.concept_cases import case_shapes
from sam3_build.pipeline.concept_networks import GAP, LAYOUTS
from sam3_build.spec import Json, Licence, ModelFamily


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a Sam3Config (as JSON) fixes, by the names that tensor specs use; BuildError if unfit."""
    sizes = {
        "image_size": ("vision_config", "backbone_config", "image_size"),
        "hidden_size": ("detr_encoder_config", "hidden_size"),
        "text_len": ("text_config", "max_position_embeddings"),
        "num_queries": ("detr_decoder_config", "num_queries"),
    }
    dims = {name: _integer(config, *path) for name, path in sizes.items()}
    patch = _integer(config, "vision_config", "backbone_config", "patch_size")
    patches, rest = divmod(dims["image_size"], patch)
    if rest or not patches:
        near = ", ".join(str(n * patch) for n in (patches, patches + 1) if n)
        raise BuildError(
            f"model config: image_size is {dims['image_size']}, no multiple of patch_size, {patch}; nearest: {near}"
        )
    # The neck's three levels have 4, 2 and 1 times the side of the patch grid.
    return {**dims, "feat_0_size": 4 * patches, "feat_1_size": 2 * patches, "feat_2_size": patches}


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row: its attention scores.

    In every head, each cell of the coarsest level looks at every other one.
    """
    cells = static_dims(config)["feat_2_size"] ** 2
    heads = {
        "vision_encoder": ("vision_config", "backbone_config", "num_attention_heads"),
        "decoder": ("detr_encoder_config", "num_attention_heads"),
    }
    return 4 * cells * cells * _integer(config, *heads[component]) if component in heads else 0


def _integer(config: Mapping[str, Json], *path: str) -> int:
    value: Json = config
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BuildError(f"model config: {'.'.join(path)} should be an integer of at least 1, but is {value!r}")
    return value


FAMILY = ModelFamily(
    name="sam3_image",
    layouts=LAYOUTS,
    references={"meta": "Meta's code", "hf": "transformers"},
    gap=GAP,
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    tokenizer="SAM 3's is CLIP's: tokenizer.json of any SAM 3 folder, or of openai/clip-vit-large-patch14",
    weight_names=("sam3.pt",),
    # All that transformers has as its default.
    official_config=lambda shapes: {"model_type": "sam3"},
    cases=case_shapes,
    usual_static={"text_len": 32},
    # Section 1.b.i of the text: whoever distributes the materials or derivative works of them adds a copy of it.
    licence=Licence("SAM License", "https://github.com/facebookresearch/sam3/blob/main/LICENSE", must_accompany=True),
)
