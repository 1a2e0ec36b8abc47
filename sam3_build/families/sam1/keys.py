"""The checkpoints that this family reads: how their tensors are named, and by which names other models are known."""

from __future__ import annotations

from sam3_build.family_code import Format, KeyTables, Section
from sam3_build.weights import other_models

# The three layers of every small network in a decoder.
STACK = ((r"\blayers\.0\.", "proj_in."), (r"\blayers\.2\.", "proj_out."), (r"\blayers\.1\.", "layers.0."))

# One tensor has two names in transformers' model, of which its files hold one.
FREQUENCIES = "prompt_encoder.shared_embedding.positional_embedding"
SHARED = "shared_image_embedding.positional_embedding"

# Meta's beginning, transformers' beginning, and what else differs behind it.
SECTIONS = (
    Section("image_encoder.blocks.", "vision_encoder.layers.", ((r"\bnorm([12])\.", r"layer_norm\1."),)),
    Section(
        "image_encoder.neck.",
        "vision_encoder.neck.",
        (("^0\\.", "conv1."), ("^1\\.", "layer_norm1."), ("^2\\.", "conv2."), ("^3\\.", "layer_norm2.")),
    ),
    Section("image_encoder.", "vision_encoder.", ((r"^patch_embed\.proj\.", "patch_embed.projection."),)),
    Section(
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
    Section(
        "prompt_encoder.mask_downscaling.",
        "prompt_encoder.mask_embed.",
        (
            ("^0\\.", "conv1."),
            ("^1\\.", "layer_norm1."),
            ("^3\\.", "conv2."),
            ("^4\\.", "layer_norm2."),
            ("^6\\.", "conv3."),
        ),
    ),
    Section("prompt_encoder.point_embeddings.", "prompt_encoder.point_embed."),
    Section("prompt_encoder.", "prompt_encoder."),
    Section(
        "mask_decoder.output_upscaling.",
        "mask_decoder.",
        (("^0\\.", "upscale_conv1."), ("^1\\.", "upscale_layer_norm."), ("^3\\.", "upscale_conv2.")),
    ),
    Section(
        "mask_decoder.transformer.",
        "mask_decoder.transformer.",
        ((r"\bnorm([1-4])\.", r"layer_norm\1."), (r"^norm_final_attn\.", "layer_norm_final_attn.")),
    ),
    Section("mask_decoder.output_hypernetworks_mlps.", "mask_decoder.output_hypernetworks_mlps.", STACK),
    Section("mask_decoder.iou_prediction_head.", "mask_decoder.iou_prediction_head.", STACK),
    Section("mask_decoder.", "mask_decoder."),
)

# Pictures are normalised by host code.
BUFFERS = ("means and deviations of pixels", r"pixel_(mean|std)")

DECODER_ROOTS = ("prompt_encoder.", "mask_decoder.")

FORMATS = (
    Format("transformers' SamModel", roots=("vision_encoder.", "shared_image_embedding.", *DECODER_ROOTS)),
    Format(
        "official SAM, sam_vit_*.pth",
        roots=(
            *(f"image_encoder.{part}" for part in ("blocks.", "neck.", "patch_embed.proj.", "pos_embed")),
            *DECODER_ROOTS,
        ),
        sections=SECTIONS,
        left_out=(BUFFERS,),
    ),
    # Its decoder is that of SAM 1, which is read; its image encoder is TinyViT.
    Format(
        "MobileSAM, whose image encoder is another one",
        roots=("image_encoder.", *DECODER_ROOTS),
        sections=SECTIONS,
        left_out=(BUFFERS, ("the image encoder", r"image_encoder\..*")),
    ),
)

KEYS = KeyTables(
    model="SAM 1",
    whole="transformers' SamModel",
    formats=FORMATS,
    other_models=(other_models.EDGETAM, other_models.SAM2, other_models.SAM3),
    tied={FREQUENCIES: SHARED},
    # Drawn as any other table they would steer attention to one cell.
    scales=(("*.rel_pos_[hw]", (0.0, 0.1)),),
)
