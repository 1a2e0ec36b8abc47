"""The checkpoints that this family reads: the authors' files, whose names are Meta's with a trunk of their own."""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Section
from sam3_build.weights import sam3_keys

TRUNK = "backbone.vision_backbone.trunk.model."
LANGUAGE = "backbone.language_backbone."

SECTIONS = (
    # Stage 1 files have `student_trunk.` inside, and the trunk's own model is wrapped twice.
    Section(TRUNK, "vision_encoder.", ((r"^student_trunk\.", ""), (r"^backbone\.model\.", "backbone."))),
    *sam3_keys.NECK,
    Section(f"{LANGUAGE}encoder.", "text_encoder."),
    Section(f"{LANGUAGE}projector.", "text_projection."),
    *sam3_keys.DETECTOR,
)

LEFT_OUT = (
    ("the teacher's trunk, which the student's replaces", r"backbone\.vision_backbone\.trunk\.(?!model\.).*"),
    (
        "the classifier that the trunk was trained with",
        r".*\.backbone\.model\.(classifier|distill_head|head|norm_head)\..*",
    ),
    (
        "MobileCLIP's projection of one token; SAM 3 reads all",
        r"backbone\.language_backbone\.encoder\.projection_layer",
    ),
    sam3_keys.POINTS,
    sam3_keys.TRACKER_NECK,
)

META_ROOTS = (TRUNK, LANGUAGE, "backbone.vision_backbone.convs.", *sam3_keys.META_DETECTOR_ROOTS)

# Without these, residual branches of random weights add up, in RepViT-M2.3 to 1e6: more than FP16 holds, and more than
# a comparison in FP32 bears.
SMALL, THREE_ADDED = (0.0, 0.1), (0.77, 0.08)

KEYS = KeyTables(
    model="EfficientSAM3",
    whole="EfficientSAM3",
    formats=(
        Format("EfficientSAM3, as its authors publish it", META_ROOTS, "detector.", ("tracker.",), SECTIONS, LEFT_OUT),
        Format("EfficientSAM3, image model", META_ROOTS, "", ("inst_interactive_predictor.",), SECTIONS, LEFT_OUT),
    ),
    scales=(
        ("vision_encoder.backbone.features.*.channel_mixer.m.2.bn.weight", SMALL),
        ("vision_encoder.backbone.features.*.token_mixer.0.bn.weight", THREE_ADDED),
        ("vision_encoder.backbone.layers.*.conv3.bn.weight", SMALL),
        ("vision_encoder.backbone.*.main.point_conv.norm.weight", SMALL),
        ("vision_encoder.backbone.*.main.proj.norm.weight", SMALL),
        ("*.layer_scale", (0.1, 0.02)),
    ),
)
