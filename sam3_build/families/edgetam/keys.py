"""The checkpoints that this family reads: how their tensors are named, and by which names other models are known.

Two ways to name the same tensors: transformers' EdgeTamVideoModel, and Meta's edgetam.pt.
"""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Reshape, Section
from sam3_build.weights import other_models, sam2_keys

# Meta's beginning, our beginning, and what else differs behind it.
SECTIONS = (
    Section("image_encoder.trunk.body.", "vision_encoder.backbone.timm_model."),
    Section("image_encoder.neck.convs.", "vision_encoder.neck.convs.", ((r"^(\d+)\.conv\.", r"\1."),)),
    *sam2_keys.PROMPT_ENCODER,
    *sam2_keys.MASK_DECODER,
    Section(
        "memory_attention.",
        "memory_attention.",
        (
            *sam2_keys.MEMORY_ATTENTION,
            (r"\blinear1\.", "mlp.up_proj."),
            (r"\blinear2\.", "mlp.down_proj."),
        ),
    ),
    *sam2_keys.MEMORY_ENCODER,
    Section(
        "spatial_perceiver.",
        "spatial_perceiver.",
        (
            (r"^latents$", "latents_1d"),
            (r"^norm\.", "layer_norm."),
            (r"\b(self_)?attn\.norm_x\.", "layer_norm_input."),
            (r"\battn\.norm_latents\.", "layer_norm_latents."),
            (r"\bself_attn\.norm\.", "layer_norm_self."),
            (r"\bself_attn\.", "self_attention."),
            (r"\battn\.", "cross_attention."),
            (r"\bto_(q|kv)\.", r"\1_proj."),
            (r"\bto_out\.", "o_proj."),
            (r"\b(self_)?ff\.0\.", r"\1mlp.layer_norm."),
            (r"\b(self_)?ff\.1\.", r"\1mlp.up_proj."),
            (r"\b(self_)?ff\.3\.", r"\1mlp.down_proj."),
        ),
    ),
    *sam2_keys.MEMORY_TABLES,
)

# Keys and values, which Meta's perceiver has in one tensor.
KEYS_AND_VALUES = {
    f"spatial_perceiver.layers.{layer}.{attention}.kv_proj.weight": Reshape(
        parts=tuple(f"spatial_perceiver.layers.{layer}.{attention}.{part}_proj.weight" for part in "kv")
    )
    for layer in range(2)
    for attention in ("cross_attention", "self_attention")
}

FORMATS = (
    Format(
        "transformers' EdgeTamVideoModel",
        roots=(*sam2_keys.TRANSFORMERS_ROOTS, "spatial_perceiver."),
        reshaped=sam2_keys.LABELS,
    ),
    Format(
        "official EdgeTAM, edgetam.pt",
        roots=tuple(dict.fromkeys(section.theirs.partition(".")[0] for section in SECTIONS)),
        sections=SECTIONS,
        reshaped=KEYS_AND_VALUES,
    ),
)

OTHER_MODELS = (
    other_models.SAM2,
    other_models.SAM3,
    other_models.SAM3_TRACKER,
    other_models.SAM1,
    other_models.SAM1_TRANSFORMERS,
)

KEYS = KeyTables(
    model="EdgeTAM",
    whole="transformers' EdgeTamVideoModel",
    formats=FORMATS,
    other_models=OTHER_MODELS,
    tied=sam2_keys.TIED,
    scales=(
        sam2_keys.VISIBLE,
        # Else the branches of the trunk's blocks add up.
        ("*.token_mixer.conv*.bn.weight", (0.0, 0.3)),
        ("*.channel_mixer.conv2.bn.weight", (0.0, 0.3)),
        ("*.ffn.conv2.bn.weight", (0.0, 0.3)),
    ),
)
