"""Sam3Model's state dict in; the same weights as facebookresearch/sam3 names and joins them out, and back to no file.

Written by hand from Meta's module names, apart from sam3_build's own table, which it is there to check.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

NAMES = Path(__file__).with_name("sam3_official_names.txt")


def official_names():
    """Return name -> shape of every tensor of the official sam3.pt."""
    found = {}
    for line in NAMES.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, _, size = line.rpartition(" ")
        shape = () if size == "scalar" else tuple(int(n) for n in size.split("x"))
        numbers = re.search(r"\{([-\d,]+)\}", name)
        for number in _numbers(numbers[1]) if numbers else [None]:
            found[name if number is None else name.replace(numbers[0], str(number))] = shape
    return found


def _numbers(text):
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def to_official(state, prefix="detector."):
    """Return the official state dict of the image model: distinct tensors, joined projections, class token first."""
    made = {}

    def put(ours, metas, *, weight=True, bias=True):
        for kind, wanted in (("weight", weight), ("bias", bias)):
            if wanted:
                made[f"{metas}.{kind}"] = state[f"{ours}.{kind}"]

    def joined(ours, metas, out="o_proj"):
        for kind in ("weight", "bias"):
            made[f"{metas}.in_proj_{kind}"] = torch.cat([state[f"{ours}.{part}_proj.{kind}"] for part in "qkv"])
        put(f"{ours}.{out}", f"{metas}.out_proj")

    def count(pattern):
        return len({m[1] for key in state if (m := re.match(pattern, key))})

    vit, trunk = "vision_encoder.backbone", "backbone.vision_backbone.trunk"
    table = state[f"{vit}.embeddings.position_embeddings"]
    made[f"{trunk}.pos_embed"] = torch.cat([torch.full_like(table[:, :1], 7.0), table], dim=1)
    put(f"{vit}.embeddings.patch_embeddings.projection", f"{trunk}.patch_embed.proj", bias=False)
    put(f"{vit}.layer_norm", f"{trunk}.ln_pre")
    for n in range(count(r"vision_encoder\.backbone\.layers\.(\d+)")):
        ours, metas = f"{vit}.layers.{n}", f"{trunk}.blocks.{n}"
        for kind in ("weight", "bias"):
            parts = [state[f"{ours}.attention.{part}_proj.{kind}"] for part in "qkv"]
            made[f"{metas}.attn.qkv.{kind}"] = torch.cat(parts)
        put(f"{ours}.attention.o_proj", f"{metas}.attn.proj")
        made[f"{metas}.attn.freqs_cis"] = torch.randn(4, 8, dtype=torch.complex64)
        for part in ("norm1", "norm2"):
            put(f"{ours}.layer_{part}", f"{metas}.{part}")
        for part in ("fc1", "fc2"):
            put(f"{ours}.mlp.{part}", f"{metas}.mlp.{part}")

    neck = "vision_encoder.neck.fpn_layers"
    for level, ups in enumerate((("dconv_2x2_0", "dconv_2x2_1"), ("dconv_2x2",), (), ())):
        metas = f"backbone.vision_backbone.convs.{level}"
        for n, up in enumerate(ups):
            put(f"{neck}.{level}.scale_layers.{2 * n}", f"{metas}.{up}")
        put(f"{neck}.{level}.proj1", f"{metas}.conv_1x1")
        put(f"{neck}.{level}.proj2", f"{metas}.conv_3x3")
        made[f"backbone.vision_backbone.sam2_convs.{level}.conv_1x1.bias"] = torch.ones(3)

    clip, text = "text_encoder.text_model", "backbone.language_backbone.encoder"
    made[f"{text}.positional_embedding"] = state[f"{clip}.embeddings.position_embedding.weight"]
    made[f"{text}.token_embedding.weight"] = state[f"{clip}.embeddings.token_embedding.weight"]
    made[f"{text}.text_projection"] = state["text_encoder.text_projection.weight"].T
    put(f"{clip}.final_layer_norm", f"{text}.ln_final")
    put("text_projection", "backbone.language_backbone.resizer")
    for n in range(count(r"text_encoder\.text_model\.encoder\.layers\.(\d+)")):
        ours, metas = f"{clip}.encoder.layers.{n}", f"{text}.transformer.resblocks.{n}"
        joined(f"{ours}.self_attn", f"{metas}.attn", out="out_proj")
        for ours_part, metas_part in (
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            put(f"{ours}.{ours_part}", f"{metas}.{metas_part}")

    def layer(ours, metas, attentions, norms):
        for mine, theirs in attentions:
            joined(f"{ours}.{mine}", f"{metas}.{theirs}")
        for mine, theirs in norms:
            put(f"{ours}.{mine}", f"{metas}.{theirs}")
        put(f"{ours}.mlp.fc1", f"{metas}.linear1")
        put(f"{ours}.mlp.fc2", f"{metas}.linear2")

    plain = [(f"layer_norm{n}", f"norm{n}") for n in (1, 2, 3)]
    crossed = [("self_attn", "self_attn"), ("cross_attn", "cross_attn_image")]
    geometry = "geometry_encoder"
    for n in range(count(r"geometry_encoder\.layers\.(\d+)")):
        layer(f"{geometry}.layers.{n}", f"{geometry}.encode.{n}", crossed, plain)
    for table in ("label_embed", "cls_embed"):
        put(f"{geometry}.{table}", f"{geometry}.{table}", bias=False)
    for way in ("direct", "pool", "pos_enc"):
        put(f"{geometry}.boxes_{way}_project", f"{geometry}.boxes_{way}_project")
        made[f"{geometry}.points_{way}_project.weight"] = torch.ones(2, 2)
        made[f"{geometry}.points_{way}_project.bias"] = torch.ones(2)
    put(f"{geometry}.final_proj", f"{geometry}.final_proj")
    put(f"{geometry}.prompt_layer_norm", f"{geometry}.norm")
    put(f"{geometry}.vision_layer_norm", f"{geometry}.img_pre_norm")
    put(f"{geometry}.output_layer_norm", f"{geometry}.encode_norm")

    for n in range(count(r"detr_encoder\.layers\.(\d+)")):
        layer(f"detr_encoder.layers.{n}", f"transformer.encoder.layers.{n}", crossed, plain)
    decoder = "transformer.decoder"
    for n in range(count(r"detr_decoder\.layers\.(\d+)")):
        layer(
            f"detr_decoder.layers.{n}",
            f"{decoder}.layers.{n}",
            [("vision_cross_attn", "cross_attn"), ("text_cross_attn", "ca_text"), ("self_attn", "self_attn")],
            [
                ("vision_cross_attn_layer_norm", "norm1"),
                ("text_cross_attn_layer_norm", "catext_norm"),
                ("self_attn_layer_norm", "norm2"),
                ("mlp_layer_norm", "norm3"),
            ],
        )
    put("detr_decoder.output_layer_norm", f"{decoder}.norm")
    put("detr_decoder.presence_layer_norm", f"{decoder}.presence_token_out_norm")
    for table in ("query_embed", "reference_points", "presence_token"):
        put(f"detr_decoder.{table}", f"{decoder}.{table}", bias=False)
    for ours, metas, depth in (
        ("box_head", "bbox_embed", 3),
        ("presence_head", "presence_token_head", 3),
        ("ref_point_head", "ref_point_head", 2),
        ("box_rpb_embed_x", "boxRPB_embed_x", 2),
        ("box_rpb_embed_y", "boxRPB_embed_y", 2),
    ):
        for n in range(depth):
            put(f"detr_decoder.{ours}.layer{n + 1}", f"{decoder}.{metas}.layers.{n}")

    head = "segmentation_head"
    for n in range(count(r"mask_decoder\.pixel_decoder\.norms\.(\d+)")):
        put(f"mask_decoder.pixel_decoder.conv_layers.{n}", f"{head}.pixel_decoder.conv_layers.{n}")
        put(f"mask_decoder.pixel_decoder.norms.{n}", f"{head}.pixel_decoder.norms.{n}")
    for n in range(3):
        put(f"mask_decoder.mask_embedder.layers.{n}", f"{head}.mask_predictor.mask_embed.layers.{n}")
    joined("mask_decoder.prompt_cross_attn", f"{head}.cross_attend_prompt")
    put("mask_decoder.prompt_cross_attn_norm", f"{head}.cross_attn_norm")
    put("mask_decoder.semantic_projection", f"{head}.semantic_seg_head")
    put("mask_decoder.instance_projection", f"{head}.instance_seg_head")

    scoring = "dot_prod_scoring"
    for n in range(2):
        put(f"dot_product_scoring.text_mlp.layer{n + 1}", f"{scoring}.prompt_mlp.layers.{n}")
    put("dot_product_scoring.text_mlp_out_norm", f"{scoring}.prompt_mlp.out_norm")
    put("dot_product_scoring.text_proj", f"{scoring}.prompt_proj")
    put("dot_product_scoring.query_proj", f"{scoring}.hs_proj")

    renamed = {prefix + key: tensor.contiguous() for key, tensor in made.items()}
    if prefix:
        renamed["tracker.maskmem_tpos_enc"] = torch.ones(7, 1, 1, 64)
        renamed["tracker.sam_mask_decoder.iou_token.weight"] = torch.ones(1, 256)
    return renamed


def to_official_3_1(state):
    """Return the same weights as SAM 3.1's file has them, by what public converters of it rename.

    The neck has three levels, and two more necks belong to the tracker, which is another one: of its tensors a few.
    """
    necks = re.compile(r"detector\.backbone\.vision_backbone\.(sam2_convs|convs\.3)\.")
    tables = re.compile(r"freqs_cis$")
    renamed = {
        key: tensor
        for key, tensor in to_official(state).items()
        if key.startswith("detector.") and not necks.match(key) and not tables.search(key)
    }
    for n in (0, 1):
        for part in ("real", "imag"):
            renamed[f"detector.backbone.vision_backbone.trunk.blocks.{n}.attn.freqs_cis_{part}"] = torch.ones(4, 8)
    for neck in ("interactive_convs", "propagation_convs"):
        for level in range(3):
            renamed[f"detector.backbone.vision_backbone.{neck}.{level}.conv_1x1.weight"] = torch.ones(3, 3, 1, 1)
            renamed[f"detector.backbone.vision_backbone.{neck}.{level}.conv_1x1.bias"] = torch.ones(3)
    for name in (
        "interactive_sam_prompt_encoder.no_mask_embed.weight",
        "interactive_sam_mask_decoder.iou_token.weight",
        "interactivity_no_mem_embed",
        "sam_mask_decoder.transformer.layers.0.self_attn.q_proj.weight",
        "transformer.encoder.layers.0.norm1.weight",
        "maskmem_tpos_enc",
    ):
        renamed[f"tracker.model.{name}"] = torch.ones(2, 2)
    return renamed
