"""The declaration of EfficientSAM3: SAM 3's layouts with a small trunk and a small text encoder."""

from __future__ import annotations

from sam3_build.families.efficientsam3.variants import official_config
from sam3_build.pipeline.concept_cases import case_shapes
from sam3_build.pipeline.concept_networks import GAP, LAYOUTS
from sam3_build.pipeline.concept_sizes import largest_tensor, static_dims
from sam3_build.spec import ModelFamily

FAMILY = ModelFamily(
    name="efficientsam3",
    layouts=LAYOUTS,
    references={"meta": "the authors' code, which feeds as Meta's does", "hf": "transformers"},
    gap=GAP,
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    tokenizer="CLIP's: tokenizer.json of any SAM 3 folder, or of openai/clip-vit-large-patch14",
    official_config=official_config,
    cases=case_shapes,
)
