"""The checkpoints that this family reads: how their tensors are named, and by which names other models are known.

Four ways to name the same tensors: transformers' Sam3Model and its Sam3VideoModel (`detector_model.`), and Meta's
video model, which is the official sam3.pt (`detector.`), and image model (no prefix).
"""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Reshape, Section

# ------------------------------------------------------------------ Meta's names

# Name and number of the rows, with `*` for the three parts of a joined projection.
ATTENTION = ((r"in_proj_(weight|bias)$", r"*_proj.\1"), (r"\bout_proj\.", "o_proj."))
LAYER = (
    *ATTENTION,
    (r"\bcross_attn_image\.", "cross_attn."),
    (r"\blinear([12])\.", r"mlp.fc\1."),
    (r"\bnorm([123])\.", r"layer_norm\1."),
)
STACK = ((r"\blayers\.0\.", "layer1."), (r"\blayers\.1\.", "layer2."), (r"\blayers\.2\.", "layer3."))

# Meta's beginning, transformers' beginning, and what else differs behind it.
SECTIONS = (
    Section(
        "backbone.vision_backbone.trunk.blocks.",
        "vision_encoder.backbone.layers.",
        (
            (r"\bnorm([12])\.", r"layer_norm\1."),
            (r"\battn\.qkv\.", "attention.*_proj."),
            (r"\battn\.proj\.", "attention.o_proj."),
        ),
    ),
    Section("backbone.vision_backbone.trunk.ln_pre.", "vision_encoder.backbone.layer_norm."),
    Section(
        "backbone.vision_backbone.trunk.",
        "vision_encoder.backbone.embeddings.",
        ((r"^patch_embed\.proj\.", "patch_embeddings.projection."), (r"^pos_embed$", "position_embeddings")),
    ),
    Section(
        "backbone.vision_backbone.convs.",
        "vision_encoder.neck.fpn_layers.",
        (
            (r"\bdconv_2x2(_0)?\.", "scale_layers.0."),
            (r"\bdconv_2x2_1\.", "scale_layers.2."),
            (r"\bconv_1x1\.", "proj1."),
            (r"\bconv_3x3\.", "proj2."),
        ),
    ),
    Section(
        "backbone.language_backbone.encoder.transformer.resblocks.",
        "text_encoder.text_model.encoder.layers.",
        (
            (r"\battn\.in_proj_(weight|bias)$", r"self_attn.*_proj.\1"),
            (r"\battn\.out_proj\.", "self_attn.out_proj."),
            (r"\bln_([12])\.", r"layer_norm\1."),
            (r"\bmlp\.c_fc\.", "mlp.fc1."),
            (r"\bmlp\.c_proj\.", "mlp.fc2."),
        ),
    ),
    Section(
        "backbone.language_backbone.encoder.",
        "text_encoder.",
        (
            (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
            (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
            (r"^ln_final\.", "text_model.final_layer_norm."),
            (r"^text_projection$", "text_projection.weight"),
        ),
    ),
    Section("backbone.language_backbone.resizer.", "text_projection."),
    Section("geometry_encoder.encode.", "geometry_encoder.layers.", LAYER),
    Section(
        "geometry_encoder.",
        "geometry_encoder.",
        (
            (r"^norm\.", "prompt_layer_norm."),
            (r"^img_pre_norm\.", "vision_layer_norm."),
            (r"^encode_norm\.", "output_layer_norm."),
        ),
    ),
    Section("transformer.encoder.layers.", "detr_encoder.layers.", LAYER),
    Section(
        "transformer.decoder.layers.",
        "detr_decoder.layers.",
        (
            *ATTENTION,
            (r"\bcross_attn\.", "vision_cross_attn."),
            (r"\bca_text\.", "text_cross_attn."),
            (r"\bnorm1\.", "vision_cross_attn_layer_norm."),
            (r"\bcatext_norm\.", "text_cross_attn_layer_norm."),
            (r"\bnorm2\.", "self_attn_layer_norm."),
            (r"\bnorm3\.", "mlp_layer_norm."),
            (r"\blinear([12])\.", r"mlp.fc\1."),
        ),
    ),
    Section(
        "transformer.decoder.",
        "detr_decoder.",
        (
            *STACK,
            (r"^norm\.", "output_layer_norm."),
            (r"^bbox_embed\.", "box_head."),
            (r"^boxRPB_embed_([xy])\.", r"box_rpb_embed_\1."),
            (r"^presence_token_head\.", "presence_head."),
            (r"^presence_token_out_norm\.", "presence_layer_norm."),
        ),
    ),
    Section(
        "segmentation_head.",
        "mask_decoder.",
        (
            *ATTENTION,
            (r"^mask_predictor\.mask_embed\.", "mask_embedder."),
            (r"^cross_attend_prompt\.", "prompt_cross_attn."),
            (r"^cross_attn_norm\.", "prompt_cross_attn_norm."),
            (r"^semantic_seg_head\.", "semantic_projection."),
            (r"^instance_seg_head\.", "instance_projection."),
        ),
    ),
    Section(
        "dot_prod_scoring.",
        "dot_product_scoring.",
        (
            *STACK,
            (r"^prompt_mlp\.out_norm\.", "text_mlp_out_norm."),
            (r"^prompt_mlp\.", "text_mlp."),
            (r"^prompt_proj\.", "text_proj."),
            (r"^hs_proj\.", "query_proj."),
        ),
    ),
)

# What Meta's detector has and transformers' has not: point prompts and the tracker's neck.
LEFT_OUT = (
    r"geometry_encoder\.points_(direct|pool|pos_enc)_project\.(weight|bias)|backbone\.vision_backbone\.sam2_convs\..*"
)

RESHAPED = {
    # The first of the positions is that of a class token, which is not used.
    "vision_encoder.backbone.embeddings.position_embeddings": Reshape(axis=1, skip=1, rank=3),
    "text_encoder.text_projection.weight": Reshape(transposed=True),
}

# ------------------------------------------------------------------ formats

TRANSFORMERS_ROOTS = (
    "vision_encoder.",
    "text_encoder.",
    "text_projection.",
    "geometry_encoder.",
    "detr_encoder.",
    "detr_decoder.",
    "mask_decoder.",
    "dot_product_scoring.",
)
META_ROOTS = ("backbone.", "geometry_encoder.", "transformer.", "segmentation_head.", "dot_prod_scoring.")


def _metas(title: str, prefix: str, other: str) -> Format:
    return Format(title, META_ROOTS, prefix, (other,), SECTIONS, LEFT_OUT, RESHAPED)


FORMATS = (
    Format("transformers' Sam3VideoModel", TRANSFORMERS_ROOTS, "detector_model.", ("tracker_model.", "tracker_neck.")),
    Format("transformers' Sam3Model", TRANSFORMERS_ROOTS),
    _metas("official SAM 3, sam3.pt", "detector.", "tracker."),
    _metas("official SAM 3, image model", "", "inst_interactive_predictor."),
)

# What a file is when a key of it matches: first come, first served.
OTHER_MODELS = (
    ("SAM 3.1 (multiplex)", r"tracker\.model\."),
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
