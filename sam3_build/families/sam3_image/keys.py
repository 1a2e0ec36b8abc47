"""The checkpoints that this family reads: how their tensors are named, and by which names other models are known.

Four ways to name the same tensors: transformers' Sam3Model and its Sam3VideoModel (`detector_model.`), and Meta's
video model, which is the official sam3.pt (`detector.`), and image model (no prefix). SAM 3.1's file names its detector
as sam3.pt does, without the coarsest level of the neck, which nothing reads; its tracker is another network.
"""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Reshape
from sam3_build.weights import other_models, sam3_keys

SECTIONS = (*sam3_keys.VIT, *sam3_keys.NECK, *sam3_keys.TEXT_ENCODER, *sam3_keys.DETECTOR)
LEFT_OUT = (sam3_keys.POINTS, sam3_keys.TRACKER_NECK)

RESHAPED = {
    **sam3_keys.POSITIONS,
    "text_encoder.text_projection.weight": Reshape(transposed=True),
}

# ------------------------------------------------------------------ formats

TRANSFORMERS_ROOTS = ("vision_encoder.", "text_encoder.", "text_projection.", *sam3_keys.DETECTOR_ROOTS)
META_ROOTS = ("backbone.", *sam3_keys.META_DETECTOR_ROOTS)


def _metas(title: str, prefix: str, *others: str) -> Format:
    return Format(title, META_ROOTS, prefix, others, SECTIONS, LEFT_OUT, RESHAPED)


FORMATS = (
    Format("transformers' Sam3VideoModel", TRANSFORMERS_ROOTS, "detector_model.", ("tracker_model.", "tracker_neck.")),
    Format("transformers' Sam3Model", TRANSFORMERS_ROOTS),
    _metas("official SAM 3 or 3.1", "detector.", "tracker.model.", "tracker."),
    _metas("official SAM 3, image model", "", "inst_interactive_predictor."),
)

OTHER_MODELS = (
    other_models.EFFICIENTSAM3,
    other_models.EDGETAM,
    other_models.SAM2,
    other_models.SAM1,
    other_models.SAM1_TRANSFORMERS,
    ("SAM 3 LiteText", r"(detector_model\.)?text_encoder\.layers\."),
    (other_models.SAM3_TRACKER[0], r"memory_attention\.|mask_decoder\.transformer\."),
)

KEYS = KeyTables(
    model="SAM 3's image model", whole="transformers' Sam3Model", formats=FORMATS, other_models=OTHER_MODELS
)
