"""The checkpoints that this family reads: Meta's sam3.pt, and the folder of transformers' Sam3VideoModel."""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Reshape, Section
from sam3_build.weights import sam2_keys, sam3_keys

# Names of the tracker's memory, where they are not those of SAM 2.
MEMORY = (
    Section("tracker.transformer.encoder.", "memory_attention.", sam2_keys.MEMORY_ATTENTION),
    *(
        Section(
            section.theirs.replace("memory_encoder.", "tracker.maskmem_backbone."), section.ours, section.differences
        )
        for section in sam2_keys.MEMORY_ENCODER
    ),
    Section("tracker.obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer."),
    *sam3_keys.behind("tracker.", sam2_keys.MEMORY_TABLES),
    Section("tracker.no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
)
DETECTOR = (*sam3_keys.NECK, *sam3_keys.TEXT_ENCODER, *sam3_keys.DETECTOR)

FORMATS = (
    Format(
        "transformers' Sam3VideoModel",
        roots=("tracker_model.", "tracker_neck.", "detector_model."),
        sections=(*sam3_keys.TRANSFORMERS_TRACKER, Section("detector_model.", "detector.")),
        reshaped=sam2_keys.LABELS,
    ),
    Format(
        "official SAM 3",
        roots=("tracker.", "detector."),
        sections=(*sam3_keys.TRACKER, *MEMORY, *sam3_keys.behind("detector.", DETECTOR, ours="detector.")),
        left_out=((sam3_keys.POINTS[0], rf"detector\.{sam3_keys.POINTS[1]}"),),
        reshaped={
            **sam3_keys.POSITIONS,
            "detector.text_encoder.text_projection.weight": Reshape(transposed=True),
        },
    ),
)

KEYS = KeyTables(
    model="SAM 3's video model",
    whole="transformers' Sam3VideoModel",
    formats=FORMATS,
    other_models=sam3_keys.OTHER_THAN_TRACKER,
    tied=sam2_keys.TIED,
    scales=(sam2_keys.VISIBLE,),
)
