"""How Meta names the tensors of SAM 3's detector, and what transformers makes of these names: tables for families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sam3_build.family_code import Reshape, Section
from sam3_build.weights import other_models, sam2_keys

# Name and number of the rows, with `*` for the three parts of a joined projection.
ATTENTION = ((r"in_proj_(weight|bias)$", r"*_proj.\1"), (r"\bout_proj\.", "o_proj."))
LAYER = (
    *ATTENTION,
    (r"\bcross_attn_image\.", "cross_attn."),
    (r"\blinear([12])\.", r"mlp.fc\1."),
    (r"\bnorm([123])\.", r"layer_norm\1."),
)
STACK = ((r"\blayers\.0\.", "layer1."), (r"\blayers\.1\.", "layer2."), (r"\blayers\.2\.", "layer3."))

# Each section: Meta's beginning, transformers' beginning, and what else differs behind it.
VIT = (
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
)
NECK = (
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
)
TEXT_ENCODER = (
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
)
# The first of Meta's positions is that of a class token, which is not used.
POSITIONS = {"vision_encoder.backbone.embeddings.position_embeddings": Reshape(axis=1, skip=1, rank=3)}

# The geometry encoder and the decoder.
DETECTOR = (
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

# How the names of DETECTOR's parts begin: Meta's, and ours.
META_DETECTOR_ROOTS = ("geometry_encoder.", "transformer.", "segmentation_head.", "dot_prod_scoring.")
DETECTOR_ROOTS = ("geometry_encoder.", "detr_encoder.", "detr_decoder.", "mask_decoder.", "dot_product_scoring.")

# What Meta's detector has and transformers' has not.
POINTS = ("point prompts", r"geometry_encoder\.points_(direct|pool|pos_enc)_project\.(weight|bias)")
# SAM 3.1's tracker has two necks.
TRACKER_NECK = ("the tracker's neck", r"backbone\.vision_backbone\.(sam2|interactive|propagation)_convs\..*")


def behind(prefix: str, sections: Iterable[Section], neck: str = "convs", ours: str = "") -> Iterator[Section]:
    """Yield sections of names that have a prefix, theirs and ours; `neck` is what the neck's are called."""
    for section in sections:
        theirs = section.theirs.replace(".convs.", f".{neck}.")
        yield replace(section, theirs=prefix + theirs, ours=ours + section.ours)


def tracker(detector: str, prefix: str, ours: str = "") -> tuple[Section, ...]:
    """Return the sections of the tracker's heads on pictures, and of its neck behind the detector's trunk.

    detector, prefix: what Meta's names of the detector and of the tracker begin with; ours: what ours do
    """
    heads = (*sam2_keys.PROMPT_ENCODER, *sam2_keys.MASK_DECODER, Section("no_mem_embed", "no_memory_embedding"))
    return (*behind(detector, NECK, "sam2_convs", ours), *behind(prefix, heads, ours=ours))


# The tracker of single pictures, in sam3.pt: its vision encoder is the detector's, with a neck of its own.
TRACKER = (*behind("detector.", VIT), *tracker("detector.", "tracker."))

# What a tracker on pictures has no need of, behind its prefix.
MEMORY = "the tracker's memory, which clips need"
META_MEMORY = r"(transformer|maskmem_|obj_ptr_|mask_downsample|no_mem_pos_enc|no_obj_).*"

# The tracker of transformers' Sam3VideoModel.
TRANSFORMERS_TRACKER = (
    Section("detector_model.vision_encoder.backbone.", "vision_encoder.backbone."),
    Section("tracker_neck.", "vision_encoder.neck."),
    Section("tracker_model.", ""),
)

# What a file is that has no such tracker.
OTHER_THAN_TRACKER = (
    ("SAM 3.1, whose tracker is another network", r"tracker\.model\."),
    other_models.EFFICIENTSAM3,
    other_models.EDGETAM,
    other_models.SAM2,
    other_models.SAM1,
    other_models.SAM1_TRANSFORMERS,
)
