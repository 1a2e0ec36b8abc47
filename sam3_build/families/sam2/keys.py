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
    Section("memory_attention.", "memory_attention.", sam2_keys.MEMORY_ATTENTION),
    *sam2_keys.MEMORY_ENCODER,
    Section("obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer."),
    *sam2_keys.MEMORY_TABLES,
    Section("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
)

FORMATS = (
    Format(
        "transformers' Sam2VideoModel",
        roots=(
            *sam2_keys.TRANSFORMERS_ROOTS,
            "temporal_positional_encoding_projection_layer.",
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
    scales=(sam2_keys.VISIBLE,),
)
