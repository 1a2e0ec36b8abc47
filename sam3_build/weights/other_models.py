"""By which names models are known that a family does not read: (what a file holds, a pattern of one of its names).

A family lists those that its own names could be taken for. What a file is when a key matches: first come, first served.
"""

from __future__ import annotations

EFFICIENTSAM3 = ("EfficientSAM3", r"(.*\.)?student_trunk\.|.*\bvision_backbone\.trunk\.model\.")
EDGETAM = (
    "EdgeTAM",
    r"(.*\.)?image_encoder\.trunk\.body\.|vision_encoder\.backbone\.timm_model\.|spatial_perceiver\.",
)
SAM2 = ("SAM 2", r"(.*\.)?image_encoder\.trunk\.(?!body\.)|vision_encoder\.backbone\.(blocks|patch_embed)\.")
SAM3 = ("SAM 3", r"(.*\.)?backbone\.vision_backbone\.|detector(_model)?\.|detr_(en|de)coder\.")
SAM3_TRACKER = ("the tracker of SAM 3 alone", r"(.*\.)?tracker_neck\.|vision_encoder\.backbone\.layers\.")
SAM1 = ("SAM (the first) or MobileSAM", r"(model\.)?image_encoder\.(blocks|patch_embed|layers)\.")
SAM1_TRANSFORMERS = ("SAM (the first), transformers'", r"vision_encoder\.(layers|patch_embed)\.")

# No family reads one.
ADAPTER = (
    "LoRA or another adapter, which must be merged into its model (merge_and_unload, then save_pretrained)",
    r"(.*\.)?(lora_(embedding_)?[AB]|lora_magnitude_vector|(ia3|oft|boft|vera|hada|lokr)_\w+)\b|base_model\.model\.",
)
