"""The checkpoints that this family reads: how their tensors are named, and by which names other models are known.

Four ways to name the same tensors: transformers' Sam3Model and its Sam3VideoModel (`detector_model.`), and Meta's
video model, which is the official sam3.pt (`detector.`), and image model (no prefix). SAM 3.1's file names its detector
as sam3.pt does, without the coarsest level of the neck, which nothing reads; its tracker is another network.
"""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Reshape
from sam3_build.weights import sam3_keys

SECTIONS = (*sam3_keys.VIT, *sam3_keys.NECK, *sam3_keys.TEXT_ENCODER, *sam3_keys.DETECTOR)
LEFT_OUT = (sam3_keys.POINTS, sam3_keys.TRACKER_NECK)

RESHAPED = {
    # The first of the positions is that of a class token, which is not used.
    "vision_encoder.backbone.embeddings.position_embeddings": Reshape(axis=1, skip=1, rank=3),
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

# What a file is when a key of it matches: first come, first served.
OTHER_MODELS = (
    ("EfficientSAM3", r"(.*\.)?student_trunk\.|.*\bvision_backbone\.trunk\.model\."),
    ("EdgeTAM", r"(.*\.)?image_encoder\.trunk\.body\.|vision_encoder\.backbone\.timm_model\.|spatial_perceiver\."),
    ("SAM 2", r"(model\.)?image_encoder\.trunk\.|vision_encoder\.backbone\.blocks\.\d+\.|sam_mask_decoder\."),
    ("SAM (the first) or MobileSAM", r"(model\.)?image_encoder\.(blocks|patch_embed|layers)\."),
    ("SAM (the first), transformers'", r"vision_encoder\.(layers|patch_embed)\.|shared_image_embedding\."),
    ("SAM 3 LiteText", r"(detector_model\.)?text_encoder\.layers\."),
    ("the tracker of SAM 3 alone", r"memory_attention\.|mask_decoder\.transformer\."),
    (
        "LoRA or another adapter, which must be merged into its model (merge_and_unload, then save_pretrained)",
        r"(.*\.)?(lora_(embedding_)?[AB]|lora_magnitude_vector|(ia3|oft|boft|vera|hada|lokr)_\w+)\b|base_model\.model\.",
    ),
)

KEYS = KeyTables(
    model="SAM 3's image model", whole="transformers' Sam3Model", formats=FORMATS, other_models=OTHER_MODELS
)
