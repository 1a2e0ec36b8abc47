"""The declaration of the SAM 3 image model: the layouts of its kind, and one of two files."""

from __future__ import annotations

from sam3_build.pipeline.concept_cases import case_shapes
from sam3_build.pipeline.concept_networks import LAYOUTS, TWO_FILES
from sam3_build.pipeline.concept_sizes import largest_tensor, resized, static_dims
from sam3_build.spec import Licence, ModelFamily

FAMILY = ModelFamily(
    name="sam3_image",
    layouts={**LAYOUTS, "two_files": TWO_FILES},
    references={"meta": "Meta's code", "hf": "transformers"},
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    resized=resized,
    tokenizer="SAM 3's is CLIP's: tokenizer.json of any SAM 3 folder, or of openai/clip-vit-large-patch14",
    weight_names=("sam3.pt", "sam3.1_multiplex.pt"),
    # All that transformers has as its default.
    official_config=lambda shapes: {"model_type": "sam3"},
    cases=case_shapes,
    usual_static={"text_len": 32},
    # Section 1.b.i of the text: whoever distributes the materials or derivative works of them adds a copy of it.
    licence=Licence("SAM License", "https://github.com/facebookresearch/sam3/blob/main/LICENSE", must_accompany=True),
)
