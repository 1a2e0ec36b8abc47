"""The checkpoints that this family reads: SAM 3's files, of which it takes the vision encoder and the tracker's heads.

Three ways to name the same tensors: transformers' Sam3TrackerModel and its Sam3VideoModel, and Meta's sam3.pt.
"""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables
from sam3_build.weights import sam2_keys, sam3_keys

HEADS = ("prompt_encoder.", "mask_decoder.")
MEMORY = (
    sam3_keys.MEMORY,
    r"(memory_(attention|encoder|temporal)|mask_downsample|object_pointer_proj|occlusion_|temporal_|no_object_pointer"
    r"|no_memory_positional).*",
)


FORMATS = (
    Format(
        "transformers' Sam3VideoModel",
        roots=("tracker_model.prompt_encoder.", "tracker_model.mask_decoder.", "tracker_neck."),
        sections=sam3_keys.TRANSFORMERS_TRACKER,
        left_out=(
            ("the detector", r"detector_model\.(?!vision_encoder\.backbone\.).*"),
            (MEMORY[0], rf"tracker_model\.{MEMORY[1]}"),
        ),
        reshaped=sam2_keys.LABELS,
    ),
    Format(
        "transformers' Sam3TrackerModel",
        roots=("vision_encoder.", "shared_image_embedding.", "no_memory_embedding", *HEADS),
        left_out=(MEMORY,),
        reshaped=sam2_keys.LABELS,
    ),
    Format(
        "official SAM 3",
        roots=("tracker.sam_prompt_encoder.", "tracker.sam_mask_decoder.", "detector.backbone.vision_backbone.sam2_"),
        sections=sam3_keys.TRACKER,
        left_out=(
            ("the detector", r"detector\.(?!backbone\.vision_backbone\.(trunk|sam2_convs)\.).*"),
            (MEMORY[0], rf"tracker\.{sam3_keys.META_MEMORY}"),
        ),
        reshaped=sam3_keys.POSITIONS,
    ),
)

KEYS = KeyTables(
    model="SAM 3's tracker",
    whole="transformers' Sam3TrackerModel",
    formats=FORMATS,
    other_models=sam3_keys.OTHER_THAN_TRACKER,
    tied=sam2_keys.TIED,
    scales=(sam2_keys.VISIBLE,),
)
