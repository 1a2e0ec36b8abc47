"""The declaration of EfficientSAM3: SAM 3's layouts with a small trunk and a small text encoder, and its tracker's."""

from __future__ import annotations

from sam3_build.families.efficientsam3.sizes import largest_tensor, static_dims
from sam3_build.families.efficientsam3.variants import official_config
from sam3_build.pipeline import click_cases, concept_cases
from sam3_build.pipeline.click_networks import layouts
from sam3_build.pipeline.concept_networks import LAYOUTS
from sam3_build.spec import CaseRequest, CaseShape, Licence, ModelFamily

# Names of the detector and the tracker would be the same but for this.
TRACKER = "tracker."
CLICKS = layouts(prefix=TRACKER, shared=("vision_encoder.backbone", "vision_encoder.head"))


def cases(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return the shapes of cases of words and boxes, or of clicks."""
    return click_cases.case_shapes(request) if request.layout in CLICKS else concept_cases.case_shapes(request)


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
    layouts={**LAYOUTS, **CLICKS},
    references={"meta": "the authors' code", "hf": "transformers"},
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    tokenizer="CLIP's: tokenizer.json of any SAM 3 folder, or of openai/clip-vit-large-patch14",
    official_config=official_config,
    cases=cases,
    weight_names=("efficientsam3_ft/efficientsam3_repvit.pt",),
    usual_static={"text_len": 16},
    licence=LICENCE,
)
