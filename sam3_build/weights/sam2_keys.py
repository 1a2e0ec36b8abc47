"""How Meta names the tensors of SAM 2's prompt encoder, mask decoder and memory, which other trackers have: tables.

The names of our modules are those of transformers' Sam3TrackerModel, but for what points' labels add: four modules.
"""

from __future__ import annotations

from sam3_build.family_code import Reshape, Section

NORMS = (r"\bnorm(\d)\.", r"layer_norm\1.")
HEADS = r"^(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\."

# Each section: Meta's beginning, our beginning, and what else differs behind it.
PROMPT_ENCODER = (
    Section(
        "sam_prompt_encoder.mask_downscaling.",
        "prompt_encoder.mask_embed.",
        (
            (r"^0\.", "conv1."),
            (r"^1\.", "layer_norm1."),
            (r"^3\.", "conv2."),
            (r"^4\.", "layer_norm2."),
            (r"^6\.", "conv3."),
        ),
    ),
    Section("sam_prompt_encoder.point_embeddings.", "prompt_encoder.point_embed."),
    Section(
        "sam_prompt_encoder.",
        "prompt_encoder.",
        ((r"^pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),),
    ),
)
MASK_DECODER = (
    Section(
        "sam_mask_decoder.",
        "mask_decoder.",
        (
            (r"^output_upscaling\.0\.", "upscale_conv1."),
            (r"^output_upscaling\.1\.", "upscale_layer_norm."),
            (r"^output_upscaling\.3\.", "upscale_conv2."),
            (r"\bnorm_final_attn\.", "layer_norm_final_attn."),
            NORMS,
            # SAM 2's file and SAM 3's name the layers of these differently.
            (r"\bmlp\.(layers\.0|lin1)\.", "mlp.proj_in."),
            (r"\bmlp\.(layers\.1|lin2)\.", "mlp.proj_out."),
            (r"\bout_proj\.", "o_proj."),
            (HEADS + r"2\.", r"\1.proj_out."),
            (HEADS + r"0\.", r"\1.proj_in."),
            (HEADS + r"1\.", r"\1.layers.0."),
        ),
    ),
)

# What differs in the names of a memory attention.
MEMORY_ATTENTION = (NORMS, (r"^norm\.", "layer_norm."), (r"\bout_proj\.", "o_proj."))

PERCEPTRON = (
    (r"\blayers\.2\.", "proj_out."),
    (r"\blayers\.0\.", "proj_in."),
    (r"\blayers\.1\.", "layers.0."),
)

MEMORY_ENCODER = (
    Section(
        "memory_encoder.mask_downsampler.encoder.",
        "memory_encoder.mask_downsampler.",
        (
            (r"^12\.", "final_conv."),
            *((rf"^{3 * i}\.", f"layers.{i}.conv.") for i in range(4)),
            *((rf"^{3 * i + 1}\.", f"layers.{i}.layer_norm.") for i in range(4)),
        ),
    ),
    Section("memory_encoder.pix_feat_proj.", "memory_encoder.feature_projection."),
    Section("memory_encoder.out_proj.", "memory_encoder.projection."),
    Section(
        "memory_encoder.fuser.layers.",
        "memory_encoder.memory_fuser.layers.",
        (
            (r"\bgamma$", "scale"),
            (r"\bdwconv\.", "depthwise_conv."),
            (r"\bnorm\.", "layer_norm."),
            (r"\bpwconv(\d)\.", r"pointwise_conv\1."),
        ),
    ),
)
# What is beside the networks of memory.
MEMORY_TABLES = (
    Section("obj_ptr_proj.", "object_pointer_proj.", PERCEPTRON),
    Section("mask_downsample.", "mask_downsample."),
    Section("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    Section("no_mem_embed", "no_memory_embedding"),
    Section("no_mem_pos_enc", "no_memory_positional_encoding"),
    Section("no_obj_ptr", "no_object_pointer"),
)

# How the names of transformers' trackers begin.
TRANSFORMERS_ROOTS = (
    "vision_encoder.",
    "prompt_encoder.",
    "mask_decoder.",
    "memory_attention.",
    "memory_encoder.",
    "object_pointer_proj.",
    "shared_image_embedding.",
    "mask_downsample.",
    "memory_temporal_positional_encoding",
    "no_memory_",
    "no_object_pointer",
)

# One tensor in transformers, four in Meta's files and in our modules.
LABELS = {
    "prompt_encoder.point_embed.weight": Reshape(
        parts=tuple(f"prompt_encoder.point_embed.{label}.weight" for label in range(4))
    )
}

# Of random weights. Else the head says of every object that it is hidden, or of one and not of the other by a rounding.
VISIBLE = ("mask_decoder.pred_obj_score_head.proj_out.bias", (3.0, 0.1))

# transformers keeps the frequencies of points and of the picture's positions apart; in Meta's code they are one.
TIED = {"shared_image_embedding.positional_embedding": "prompt_encoder.shared_embedding.positional_embedding"}
