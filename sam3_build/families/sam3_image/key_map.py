"""Renames a checkpoint's tensors as transformers' Sam3Model does, and recognises checkpoints of other models.

Four ways to name the same tensors: transformers' Sam3Model and its Sam3VideoModel (`detector_model.`), and Meta's
video model, which is the official sam3.pt (`detector.`), and image model (no prefix).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sam3_build.families.sam3_image.tensors import FileTensor
from sam3_build.families.sam3_image.wrapped_names import is_computed


@dataclass(frozen=True)
class Format:
    """How a file names the tensors: `prefix` before all that the image model has, `others` before what it has not."""

    title: str
    prefix: str
    others: tuple[str, ...]
    is_metas: bool

    def holds(self, key: str) -> bool:
        """Whether a tensor of this name is one of the image model's."""
        roots = META_ROOTS if self.is_metas else TRANSFORMERS_ROOTS
        return key.startswith(tuple(self.prefix + root for root in roots))


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

FORMATS = (
    Format("transformers' Sam3VideoModel", "detector_model.", ("tracker_model.", "tracker_neck."), is_metas=False),
    Format("transformers' Sam3Model", "", (), is_metas=False),
    Format("official SAM 3, sam3.pt", "detector.", ("tracker.",), is_metas=True),
    Format("official SAM 3, image model", "", ("inst_interactive_predictor.",), is_metas=True),
)

# Beginnings of what is no part of the image model in any format.
OTHERS = tuple(dict.fromkeys(other for form in FORMATS for other in form.others))

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

# (Meta's prefix, transformers' prefix, what else differs behind it), the longer prefix before the shorter one.
SECTIONS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "backbone.vision_backbone.trunk.blocks.",
        "vision_encoder.backbone.layers.",
        (
            (r"\bnorm([12])\.", r"layer_norm\1."),
            (r"\battn\.qkv\.", "attention.*_proj."),
            (r"\battn\.proj\.", "attention.o_proj."),
        ),
    ),
    ("backbone.vision_backbone.trunk.ln_pre.", "vision_encoder.backbone.layer_norm.", ()),
    (
        "backbone.vision_backbone.trunk.",
        "vision_encoder.backbone.embeddings.",
        ((r"^patch_embed\.proj\.", "patch_embeddings.projection."), (r"^pos_embed$", "position_embeddings")),
    ),
    (
        "backbone.vision_backbone.convs.",
        "vision_encoder.neck.fpn_layers.",
        (
            (r"\bdconv_2x2(_0)?\.", "scale_layers.0."),
            (r"\bdconv_2x2_1\.", "scale_layers.2."),
            (r"\bconv_1x1\.", "proj1."),
            (r"\bconv_3x3\.", "proj2."),
        ),
    ),
    (
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
    (
        "backbone.language_backbone.encoder.",
        "text_encoder.",
        (
            (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
            (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
            (r"^ln_final\.", "text_model.final_layer_norm."),
            (r"^text_projection$", "text_projection.weight"),
        ),
    ),
    ("backbone.language_backbone.resizer.", "text_projection.", ()),
    ("geometry_encoder.encode.", "geometry_encoder.layers.", LAYER),
    (
        "geometry_encoder.",
        "geometry_encoder.",
        (
            (r"^norm\.", "prompt_layer_norm."),
            (r"^img_pre_norm\.", "vision_layer_norm."),
            (r"^encode_norm\.", "output_layer_norm."),
        ),
    ),
    ("transformer.encoder.layers.", "detr_encoder.layers.", LAYER),
    (
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
    (
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
    (
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
    (
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

# ------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Renamed:
    """A file's tensors by the names of Sam3Model, and its keys that have no such name (in the file's own spelling).

    keys: Sam3Model's name -> the file's own
    """

    format: Format
    tensors: Mapping[str, FileTensor]
    keys: Mapping[str, str]
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]


def is_known(name: str) -> bool:
    """Whether any format has tensors of the image model under such a name."""
    return any(form.holds(name) for form in FORMATS)


def other_model(keys: Collection[str]) -> str | None:
    """Return which other model these keys are known to belong to, or None."""
    return next((name for name, pattern in OTHER_MODELS if any(re.match(pattern, key) for key in keys)), None)


def recognise(keys: Collection[str]) -> Format | None:
    """Return the format that most keys follow; None when hardly any follows one."""
    counts = {form: sum(form.holds(key) for key in keys) for form in FORMATS}
    best = max(FORMATS, key=lambda form: counts[form])
    return best if counts[best] else None


def rename(stored: Mapping[str, FileTensor], form: Format) -> Renamed:
    """Name the tensors of a file in `form` as Sam3Model does, splitting joined projections."""
    tensors: dict[str, FileTensor] = {}
    keys: dict[str, str] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for key, tensor in stored.items():
        if is_computed(key):
            left_out.append(key)
            continue
        if not key.startswith(form.prefix) or (form.others and key.startswith(form.others)):
            (left_out if form.others and key.startswith(form.others) else unknown).append(key)
            continue
        name = key.removeprefix(form.prefix)
        if not form.is_metas:
            parts = {name: tensor}
        elif re.fullmatch(LEFT_OUT, name):
            left_out.append(key)
            continue
        else:
            parts = _parts(translate(name), tensor)
        if not parts:
            unknown.append(key)
        tensors |= parts
        keys |= dict.fromkeys(parts, key)
    return Renamed(form, tensors, keys, tuple(left_out), tuple(unknown))


def translate(name: str) -> str | None:
    """Return transformers' name for Meta's, `*` standing for q, k and v where Meta joins them; None for no name."""
    for metas, ours, differences in SECTIONS:
        if name.startswith(metas):
            rest = name.removeprefix(metas)
            for pattern, replacement in differences:
                rest = re.sub(pattern, replacement, rest)
            return ours + rest
    return None


def _parts(name: str | None, tensor: FileTensor) -> dict[str, FileTensor]:
    """Return what transformers makes of one of Meta's tensors; nothing when it cannot be split."""
    if name is None:
        return {}
    if "*" in name:
        third, rest = divmod(tensor.shape[0] if tensor.shape else 1, 3)
        if rest:
            return {}
        return {name.replace("*", part): tensor.narrow(0, i * third, third) for i, part in enumerate("qkv")}
    if name == "vision_encoder.backbone.embeddings.position_embeddings" and len(tensor.shape) == 3:
        return {name: tensor.narrow(1, 1, tensor.shape[1] - 1)}  # the first is that of a class token, which is not used
    if name == "text_encoder.text_projection.weight":
        return {name: tensor.transposed()}
    return {name: tensor}
