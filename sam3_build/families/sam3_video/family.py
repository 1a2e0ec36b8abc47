"""The declaration of SAM 3's video model: objects by clicks, boxes and masks, on pictures and followed through clips.

The layout `words` has the rest of the detector, too, and finds what texts mean in clips.

The networks of its tracker are those of a predictor of SAM 2's kind; the vision encoder has the detector's neck beside
the tracker's, so that one run of it serves both.
"""

from __future__ import annotations

from dataclasses import replace

from sam3_build.families.sam3_video.config import USUAL, largest_tensor, static_dims
from sam3_build.pipeline import concept_networks as concepts
from sam3_build.pipeline import predictor_networks as networks
from sam3_build.pipeline import word_networks as words
from sam3_build.pipeline.predictor_cases import case_shapes
from sam3_build.spec import Layout, Licence, ModelFamily

# For the detector: of one frame, as all that the tracker takes.
DETECTOR_MAPS = tuple(
    replace(tensor, dims=(1, *tensor.dims[1:])) for tensor in (*concepts.FEATURES, concepts.POSITIONS)
)
VISION_ENCODER = replace(
    networks.VISION_ENCODER,
    outputs=(*DETECTOR_MAPS, *networks.VISION_ENCODER.outputs),
    modules=(*networks.VISION_ENCODER.modules, "detector.vision_encoder.neck"),
    networks={"meta": "vision_encoder_as_meta", "hf": "vision_encoder_as_hf"},
)
PREDICTOR = networks.layout(
    (
        VISION_ENCODER,
        networks.MASK_PROMPT,
        networks.MASK_DECODER,
        networks.MEMORY_ATTENTION,
        networks.MEMORY_ENCODER,
    )
)
WORDS = Layout(
    components=(*PREDICTOR.components, *words.COMPONENTS),
    pipelines=(words.text_video(VISION_ENCODER), *PREDICTOR.pipelines),
    dynamic_dims=(*PREDICTOR.dynamic_dims, *words.DYNAMIC_DIMS),
)

FAMILY = ModelFamily(
    name="sam3_video",
    layouts={"predictor": PREDICTOR, "words": WORDS},
    references={"hf": "transformers", "meta": "Meta's code, where texts find objects; else transformers"},
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    tokenizer="facebook/sam3 has it as tokenizer.json",
    weight_names=("sam3.pt",),
    # All that transformers has as its default.
    official_config=lambda shapes: {"model_type": "sam3_video"},
    cases=case_shapes,
    usual_static=USUAL,
    licence=Licence("SAM License", "https://github.com/facebookresearch/sam3/blob/main/LICENSE", must_accompany=True),
    layout="predictor",
)
