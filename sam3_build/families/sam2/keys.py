"""The checkpoints that this family reads: how their tensors are named, and by which names other models are known.

Two ways to name the same tensors: transformers' Sam2VideoModel, and Meta's sam2.1_hiera_*.pt.
"""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Section
from sam3_build.weights import other_models, sam2_keys

# Meta's beginning, our beginning, and what else differs behind it.
SECTIONS = (
    Section(
        "image_encoder.trunk.",
        "vision_encoder.backbone.",
        (
            (r"^patch_embed\.proj\.", "patch_embed.projection."),
            sam2_keys.NORMS,
            (r"\bmlp\.layers\.0\.", "mlp.proj_in."),
            (r"\bmlp\.layers\.1\.", "mlp.proj_out."),
        ),
    ),
    Section("image_encoder.neck.convs.", "vision_encoder.neck.convs.", ((r"^(\d+)\.conv\.", r"\1."),)),
    *sam2_keys.PROMPT_ENCODER,
    *sam2_keys.MASK_DECODER,
    Section(
        "memory_attention.",
        "memory_attention.",
        (sam2_keys.NORMS, (r"^norm\.", "layer_norm."), (r"\bout_proj\.", "o_proj.")),
    ),
    *sam2_keys.MEMORY_ENCODER,
    Section("obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer."),
    *sam2_keys.MEMORY_TABLES,
    Section("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
)

FORMATS = (
    Format(
        "transformers' Sam2VideoModel",
        roots=(
            "vision_encoder.",
            "prompt_encoder.",
            "mask_decoder.",
            "memory_attention.",
            "memory_encoder.",
            "object_pointer_proj.",
            "shared_image_embedding.",
            "mask_downsample.",
            "temporal_positional_encoding_projection_layer.",
            "memory_temporal_positional_encoding",
            "no_memory_",
            "no_object_pointer",
            "occlusion_spatial_embedding_parameter",
        ),
        reshaped=sam2_keys.LABELS,
    ),
    Format(
        "official SAM 2.1, sam2.1_hiera_*.pt",
        roots=tuple(dict.fromkeys(section.theirs.partition(".")[0] for section in SECTIONS)),
        sections=SECTIONS,
    ),
)

OTHER_MODELS = (
    other_models.EDGETAM,
    other_models.SAM3,
    other_models.SAM3_TRACKER,
    other_models.SAM1,
    other_models.SAM1_TRANSFORMERS,
)

KEYS = KeyTables(
    model="SAM 2.1",
    whole="transformers' Sam2VideoModel",
    formats=FORMATS,
    other_models=OTHER_MODELS,
    tied=sam2_keys.TIED,
    # Else the head says of every object that it is hidden, or of one and not of the other by a rounding.
    scales=(("mask_decoder.pred_obj_score_head.proj_out.bias", (3.0, 0.1)),),
)
