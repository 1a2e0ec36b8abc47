"""Meta's tracker of SAM 3 at a miniature's sizes, made by Meta's own builder, with our weights of seed 0, on a CPU.

1. Clone facebookresearch/sam3 (99d02f2).
2. In an environment with this project: pip install --no-deps timm==1.0.31 torchvision==0.29.1 iopath portalocker
   einops. No compiled operator of torchvision is used.
"""

from __future__ import annotations

import sys
from unittest.mock import MagicMock

import torch
from meta_code import fill, resized

# What Meta's modules import and a tracker on a CPU does not use.
ABSENT = ("sam3.model.edt", "sam3.train.data.collator", "pkg_resources", "ftfy")


def builder():
    """Return Meta's module that builds models. Tensors stay where they are when it asks for a GPU."""
    sys.modules |= {name: MagicMock() for name in ABSENT}
    torch.Tensor.cuda = torch.Tensor.pin_memory = lambda self, **_: self
    from sam3 import model_builder

    return model_builder


def tracker(code, own: dict[str, torch.Tensor], vision: dict, heads: dict, memory: dict):
    """Return Meta's Sam3TrackerPredictor with a vision encoder.

    vision, heads, memory: what transformers' config says of the vision encoder, the mask decoder and what is remembered
    """
    of, made, width = vision["backbone_config"], builder(), vision["fpn_hidden_size"]
    from sam3.model import sam3_tracker_base as base

    grid = of["image_size"] // of["patch_size"]
    fuser = memory.get("memory_fuser_intermediate_dim", 4 * width)

    def block(**given):
        layer = cx_block(**{**given, "dim": width})
        layer.pwconv1, layer.pwconv2 = torch.nn.Linear(width, fuser), torch.nn.Linear(fuser, width)
        return layer

    sine, cx_block = made.PositionEmbeddingSine, made.CXBlock
    sizes = {"embedding_dim": width, "feat_sizes": [grid, grid]}
    made.CXBlock = block
    made.PositionEmbeddingSine = lambda num_pos_feats, precompute_resolution=None, **given: sine(
        num_pos_feats if num_pos_feats == memory.get("memory_encoder_output_channels", 64) else width, **given
    )
    made.ViT = resized(
        made.ViT,
        img_size=of["image_size"],
        pretrain_img_size=of["pretrain_image_size"],
        embed_dim=of["hidden_size"],
        depth=of["num_hidden_layers"],
        num_heads=of["num_attention_heads"],
        mlp_ratio=of["intermediate_size"] / of["hidden_size"],
        global_att_blocks=of["global_attn_indexes"],
        window_size=of["window_size"],
    )
    made.Sam3DualViTDetNeck = resized(made.Sam3DualViTDetNeck, d_model=width)
    made.SimpleMaskDownSampler = resized(
        made.SimpleMaskDownSampler, embed_dim=width, interpol_size=[16 * grid, 16 * grid]
    )
    made.SimpleMaskEncoder = resized(made.SimpleMaskEncoder, in_dim=width)
    made.RoPEAttention = resized(made.RoPEAttention, **sizes)
    made.TransformerDecoderLayerv2 = resized(
        made.TransformerDecoderLayerv2,
        d_model=width,
        dim_feedforward=memory.get("memory_attention_feed_forward_hidden_size", width),
    )
    made.TransformerEncoderCrossAttention = resized(
        made.TransformerEncoderCrossAttention, d_model=width, num_layers=memory.get("memory_attention_num_layers", 1)
    )
    made.TransformerWrapper = resized(made.TransformerWrapper, d_model=width)
    made.Sam3TrackerPredictor = resized(made.Sam3TrackerPredictor, image_size=of["image_size"])
    base.TwoWayTransformer = resized(
        base.TwoWayTransformer, mlp_dim=heads["mlp_dim"], num_heads=heads["num_attention_heads"]
    )
    base.MaskDecoder = resized(base.MaskDecoder, iou_head_hidden_dim=heads["iou_head_hidden_dim"])
    torch.manual_seed(1)
    model = made.build_tracker(apply_temporal_disambiguation=False, with_backbone=True).eval()
    fill(model, code, own, lambda key: f"{'detector' if key.startswith('backbone.') else 'tracker'}.{key}")
    return model
