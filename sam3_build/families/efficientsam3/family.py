"""The declaration of EfficientSAM3: SAM 3's layouts with a small trunk and a small text encoder."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.families.efficientsam3.variants import official_config
from sam3_build.pipeline import concept_sizes
from sam3_build.pipeline.concept_cases import case_shapes
from sam3_build.pipeline.concept_networks import LAYOUTS
from sam3_build.spec import Json, Licence, ModelFamily


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    The trunks compute none that is larger than the neck's finest map; the decoder is SAM 3's.
    """
    if component != "vision_encoder":
        return concept_sizes.largest_tensor(component, config)
    dims = concept_sizes.static_dims(config)
    return 4 * dims["hidden_size"] * dims["feat_0_height"] * dims["feat_0_width"]


# The authors' files hold SAM 3's decoder, fine-tuned or as it was, and a text encoder that is Apple's.
LICENCE = Licence(
    "SAM License",
    "https://github.com/facebookresearch/sam3/blob/main/LICENSE",
    must_accompany=True,
    parts=(
        Licence("Apache-2.0 (EfficientSAM3)", "https://huggingface.co/Simon7108528/EfficientSAM3"),
        Licence(
            "Apple Machine Learning Research Model License (MobileCLIP: research only)",
            "https://github.com/apple/ml-mobileclip/blob/main/LICENSE_MODELS",
            must_accompany=True,
        ),
    ),
)

FAMILY = ModelFamily(
    name="efficientsam3",
    layouts=LAYOUTS,
    references={"meta": "the authors' code", "hf": "transformers"},
    static_dims=concept_sizes.static_dims,
    largest_tensor=largest_tensor,
    tokenizer="CLIP's: tokenizer.json of any SAM 3 folder, or of openai/clip-vit-large-patch14",
    official_config=official_config,
    cases=case_shapes,
    weight_names=("efficientsam3_ft/efficientsam3_repvit.pt",),
    usual_static={"text_len": 16},
    licence=LICENCE,
)
