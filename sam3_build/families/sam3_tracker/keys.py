"""The checkpoints that this family reads: SAM 3's files, of which it takes the vision encoder and the tracker's heads.

Three ways to name the same tensors: transformers' Sam3TrackerModel and its Sam3VideoModel, and Meta's sam3.pt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sam3_build.family_code import Format, KeyTables, Reshape, Section
from sam3_build.weights import sam2_keys, sam3_keys

HEADS = ("prompt_encoder.", "mask_decoder.")
MEMORY = (
    "the tracker's memory, which clips need",
    r"(memory_(attention|encoder|temporal)|mask_downsample|object_pointer_proj|occlusion_|temporal_|no_object_pointer"
    r"|no_memory_positional).*",
)


def _behind(prefix: str, sections: Iterable[Section], neck: str = "") -> Iterator[Section]:
    """Yield sections of names that have a prefix; the neck's under another name, where it is given."""
    for section in sections:
        theirs = section.theirs.replace(".convs.", f".{neck}.") if neck else section.theirs
        yield replace(section, theirs=prefix + theirs)


FORMATS = (
    Format(
        "transformers' Sam3VideoModel",
        roots=("tracker_model.prompt_encoder.", "tracker_model.mask_decoder.", "tracker_neck."),
        sections=(
            Section("detector_model.vision_encoder.backbone.", "vision_encoder.backbone."),
            Section("tracker_neck.", "vision_encoder.neck."),
            Section("tracker_model.", ""),
        ),
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
        sections=(
            *_behind("detector.", sam3_keys.VIT),
            *_behind("detector.", sam3_keys.NECK, "sam2_convs"),
            *_behind("tracker.", (*sam2_keys.PROMPT_ENCODER, *sam2_keys.MASK_DECODER)),
            Section("tracker.no_mem_embed", "no_memory_embedding"),
        ),
        left_out=(
            ("the detector", r"detector\.(?!backbone\.vision_backbone\.(trunk|sam2_convs)\.).*"),
            (
                MEMORY[0],
                r"tracker\.(transformer|maskmem_|obj_ptr_|mask_downsample|no_mem_pos_enc|no_obj_).*",
            ),
        ),
        reshaped={
            "vision_encoder.backbone.embeddings.position_embeddings": Reshape(axis=1, skip=1, rank=3),
        },
    ),
)

# What a file is when a key of it matches: first come, first served.
OTHER_MODELS = (
    ("SAM 3.1, whose tracker is another network", r"tracker\.model\."),
    ("EfficientSAM3", r"(.*\.)?student_trunk\.|.*\bvision_backbone\.trunk\.model\."),
    ("EdgeTAM", r"(.*\.)?image_encoder\.trunk\.body\.|vision_encoder\.backbone\.timm_model\.|spatial_perceiver\."),
    ("SAM 2", r"(model\.)?image_encoder\.trunk\.|vision_encoder\.backbone\.blocks\.\d+\."),
    ("SAM (the first) or MobileSAM", r"(model\.)?image_encoder\.(blocks|patch_embed|layers)\."),
    ("SAM (the first), transformers'", r"vision_encoder\.(layers|patch_embed)\."),
)

KEYS = KeyTables(
    model="SAM 3's tracker",
    whole="transformers' Sam3TrackerModel",
    formats=FORMATS,
    other_models=OTHER_MODELS,
    tied=sam2_keys.TIED,
    # Else the head says of every object that it is hidden, or of one and not of the other by a rounding.
    scales=(("mask_decoder.pred_obj_score_head.proj_out.bias", (3.0, 0.1)),),
)
