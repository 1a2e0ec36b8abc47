"""The checkpoints that this family reads: the authors' files, whose names are Meta's with a trunk of their own."""

from __future__ import annotations

import re

from sam3_build.families.efficientsam3.family import TRACKER
from sam3_build.family_code import Format, KeyTables, Section
from sam3_build.weights import sam2_keys, sam3_keys

TRUNK = "backbone.vision_backbone.trunk.model."
LANGUAGE = "backbone.language_backbone."

DETECTOR = (
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
)

META_ROOTS = (
    TRUNK,
    LANGUAGE,
    *(f"backbone.vision_backbone.{neck}." for neck in ("convs", "sam2_convs")),
    *sam3_keys.META_DETECTOR_ROOTS,
)

HEADS = ("sam_prompt_encoder.", "sam_mask_decoder.")


def _format(title: str, detector: str, tracker: str) -> Format:
    """Return the format of files whose names of the detector and of the tracker begin so."""
    return Format(
        title,
        roots=(*(detector + root for root in META_ROOTS), *(tracker + head for head in HEADS)),
        sections=(
            *sam3_keys.behind(detector, DETECTOR),
            *sam3_keys.tracker(detector, tracker, ours=TRACKER),
        ),
        left_out=(
            *((what, re.escape(detector) + pattern) for what, pattern in LEFT_OUT),
            (sam3_keys.MEMORY, re.escape(tracker) + sam3_keys.META_MEMORY),
        ),
    )


# A model with heads for clicks that was saved itself keeps them elsewhere than a full file does.
FULL = _format("EfficientSAM3, as its authors publish it", "detector.", "tracker.")
IMAGE_MODEL = _format("EfficientSAM3, image model", "", "inst_interactive_predictor.model.")

# Without these, residual branches of random weights add up, in RepViT-M2.3 to 1e6: more than FP16 holds, and more than
# a comparison in FP32 bears.
SMALL, THREE_ADDED = (0.0, 0.1), (0.77, 0.08)

KEYS = KeyTables(
    model="EfficientSAM3",
    whole="EfficientSAM3",
    formats=(FULL, IMAGE_MODEL),
    tied={TRACKER + name: TRACKER + other for name, other in sam2_keys.TIED.items()},
    scales=(
        ("vision_encoder.backbone.features.*.channel_mixer.m.2.bn.weight", SMALL),
        ("vision_encoder.backbone.features.*.token_mixer.0.bn.weight", THREE_ADDED),
        ("vision_encoder.backbone.layers.*.conv3.bn.weight", SMALL),
        ("vision_encoder.backbone.*.main.point_conv.norm.weight", SMALL),
        ("vision_encoder.backbone.*.main.proj.norm.weight", SMALL),
        ("*.layer_scale", (0.1, 0.02)),
        (TRACKER + sam2_keys.VISIBLE[0], sam2_keys.VISIBLE[1]),
    ),
)
