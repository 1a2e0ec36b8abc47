"""The networks of a tracker of SAM 2's kind, made of transformers' Sam2VideoModel and models that have its modules.

Which mask is taken is decided in the mask decoder; a mask is binarized or squashed by the caller of the memory encoder:
a threshold behind a resize would flip pixels that lie on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.torch_modules import memory, sam_decoder, sam_prompts
from sam3_build.torch_modules.wrapping import container, named, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryEncoder

# A mask's logits where the object is hidden.
HIDDEN = -1024.0


def vision_encoder(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of one picture: two finer maps, features without a memory, features."""
    encoder, decoder = model.vision_encoder, model.mask_decoder
    parts = container(vision_encoder=encoder, mask_decoder=container(conv_s0=decoder.conv_s0, conv_s1=decoder.conv_s1))
    parts.no_memory_embedding = model.no_memory_embedding

    def forward(pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        finest, finer, features = encoder(pixel_values).fpn_hidden_states
        without = features + parts.get_parameter("no_memory_embedding").flatten()[:, None, None]
        return decoder.conv_s0(finest), decoder.conv_s1(finer), without, features

    return override(parts, forward)


def mask_prompt(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that makes of masks, 0 and 1, what the mask decoder takes as their logits.

    Its convolution, whose windows do not overlap, is a matrix multiplication: it is all that a recipe could lower here,
    and Conv has no BFLOAT16 schema.
    """
    downsample, side = model.mask_downsample, dims["image_size"] // 4
    parts = container(mask_downsample=downsample)
    parts.enlarging = enlarging(side, dims["grid_4"])

    def forward(masks: Tensor) -> tuple[Tensor]:
        windows = masks.reshape(-1, side, 4, side, 4).transpose(2, 3).flatten(3)
        small = (windows @ downsample.weight.reshape(16, 1) + downsample.bias)[..., 0]
        return (parts.get_submodule("enlarging")(small),)

    return override(parts, forward)


def mask_decoder(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of prompts: the best of three masks where several may be meant, else the first if stable.

    Its last output, [objects, 4], are the scores by which the mask is chosen: see `predictor_networks.CHOICE`.
    """
    import torch
    from torch.nn import functional

    prompt, decoder = model.prompt_encoder, model.mask_decoder
    parts = decoder_parts(model, dims)
    parts.enlarging = enlarging(dims["grid_4"], dims["image_size"], dims["grid_16"])
    delta, least = decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh

    def choice(first: Tensor, scores: Tensor, several: Tensor) -> tuple[Tensor, Tensor]:
        # Meta's code takes an empty mask for a stable one.
        is_empty = first.amax(dim=(-2, -1)) <= -delta
        lead = torch.where(is_empty, 1.0, sam_decoder.stability(first, delta) - least)
        others = scores[:, 1:]
        leading = others.amax(dim=1, keepdim=True) + torch.where(several, -1.0, lead)
        ranked = torch.cat([leading, others], dim=1)
        return ranked, sam_decoder.one_hot(ranked.argmax(dim=1, keepdim=True), ranked.shape[1])

    parts.stability = named(choice)

    def forward(
        image_embeddings_0: Tensor,
        image_embeddings_1: Tensor,
        conditioned_features: Tensor,
        input_points: Tensor,
        input_labels: Tensor,
        input_masks: Tensor,
        has_masks: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, ...]:
        points = functional.pad(input_points, (0, 0, 0, 1))
        labels = functional.pad(input_labels, (0, 1), value=sam_prompts.NO_POINT)
        embedded = sam_prompts.mask_features(
            prompt.mask_embed, prompt.no_mask_embed.weight, input_masks[:, None], has_masks.to(torch.float32)
        )
        finer = (image_embeddings_0, image_embeddings_1)
        masks, scores, tokens, occlusion = candidates(model, points, labels, conditioned_features, finer, embedded)
        several = multimask[:, None]
        ranked, taken = parts.get_submodule("stability")(masks[:, :1], scores, several)
        is_visible = occlusion > 0
        mask = torch.where(is_visible[..., None], sam_decoder.picked(masks, taken), HIDDEN)
        # The pointer is that of the first mask also where another one is taken for want of stability.
        first = torch.arange(scores.shape[1])[None] == 0
        pointer = model.object_pointer_proj(sam_decoder.picked(tokens, torch.where(several, taken, first)))
        return (
            mask,
            sam_decoder.picked(scores, taken)[:, None],
            torch.where(is_visible, pointer, parts.get_parameter("no_object_pointer")),
            occlusion,
            parts.get_submodule("enlarging")(mask),
            ranked,
        )

    return override(parts, forward)


def enlarging(side: int, *sides: int) -> nn.Module:
    """Return a module that brings [n, side, side] to each of `sides` in turn, bilinearly.

    A product with constants: runtimes compute the places that they resize from differently.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Enlarging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.device("cpu"):
                rows = torch.eye(side)
                for larger in sides:
                    if larger != rows.shape[1]:
                        rows = functional.interpolate(rows[None], size=larger, mode="linear")[0]
            self.rows = nn.Buffer(rows.T.contiguous(), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.rows @ x @ self.rows.T

    return Enlarging() if any(larger != side for larger in sides) else nn.Identity()


def decoder_parts(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return what a mask decoder consists of; its prompt encoder gets a module `coordinates`, which encodes points."""
    prompt, decoder = model.prompt_encoder, model.mask_decoder
    del decoder.conv_s0, decoder.conv_s1
    prompt.coordinates = sam_prompts.point_encoding(prompt.shared_embedding, dims["image_size"])
    parts = container(
        prompt_encoder=prompt,
        mask_decoder=decoder,
        object_pointer_proj=model.object_pointer_proj,
        shared_image_embedding=model.shared_image_embedding,
    )
    parts.no_object_pointer = model.no_object_pointer
    return parts


def memory_attention(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that conditions features on memories and pointers of any number."""
    import torch
    from torch import nn

    parts = attention_parts(model, dims)
    parts.memory_temporal_positional_encoding = model.memory_temporal_positional_encoding
    with torch.device("cpu"):
        places = memory.sine_table(dims["grid"], dims["memory_size"])
        positions = 0.1 * memory.sine_table(dims["grid"], dims["hidden_size"])
    parts.places, parts.positions = nn.Buffer(places, persistent=False), nn.Buffer(positions, persistent=False)
    attention, projection = model.memory_attention, model.temporal_positional_encoding_projection_layer
    encode = named(lambda times: memory.time_encoding(times, dims["hidden_size"]))
    parts.coordinates = encode
    channels, count = dims["memory_size"], dims["time_codes"]

    def forward(
        vision_features: Tensor,
        memory_features: Tensor,
        memory_offsets: Tensor,
        object_pointers: Tensor,
        pointer_times: Tensor,
    ) -> tuple[Tensor]:
        x = vision_features.flatten(2).transpose(1, 2) + parts.get_buffer("positions")
        x = x.expand(memory_features.shape[0], -1, -1)
        codes = parts.get_parameter("memory_temporal_positional_encoding").flatten(1)
        # The last code stands for frames with prompts, those before it for 1, 2, ... frames ago.
        ages = codes[(memory_offsets + count - 1) % count][:, :, None]
        pointers = object_pointers.reshape(*object_pointers.shape[:2], dims["hidden_size"] // channels, channels)
        timed = pointers + projection(encode(pointer_times))[:, :, None]
        placed = memory_features + parts.get_buffer("places") + ages
        for layer in attention.layers:
            x = layer(x, memory_features, placed, pointers.flatten(1, 2), timed.flatten(1, 2))
        return (attention.layer_norm(x).transpose(1, 2).reshape(-1, *vision_features.shape[1:]),)

    return override(parts, forward)


def attention_parts(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return what a memory attention consists of; its layers rotate by broadcast tables."""
    from torch import nn

    attention, base = model.memory_attention, model.config.rope_parameters["rope_theta"]
    layers = nn.ModuleList(memory.memory_layer(layer, dims["grid"], base) for layer in attention.layers)
    return container(
        memory_attention=container(layers=layers, layer_norm=attention.layer_norm),
        temporal_positional_encoding_projection_layer=model.temporal_positional_encoding_projection_layer,
    )


def memory_encoder(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that makes memories of masks, which come squashed or binarized, and scaled."""
    encoder = model.memory_encoder
    parts = container(memory_encoder=encoder)
    parts.occlusion_spatial_embedding_parameter = model.occlusion_spatial_embedding_parameter

    def forward(vision_features: Tensor, mask_for_memory: Tensor, object_score_logits: Tensor) -> tuple[Tensor]:
        made = memory_features(parts, encoder, mask_for_memory[:, None], vision_features, object_score_logits)
        return (made.flatten(2).transpose(1, 2),)

    return override(parts, forward)


def candidates(
    model: Sam2VideoModel,
    points: Tensor,
    labels: Tensor,
    features: Tensor,
    finer: tuple[Tensor, Tensor],
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mask logits [batch, 4, h, w], scores [batch, 4], tokens [batch, 4, channels]; whether visible [batch, 1].

    model:  its prompt encoder has a module `coordinates`, which encodes points
    points: [batch, points, 2], in pixels of the network's input; labels: [batch, points]
    mask:   what a mask adds to the features, [batch, channels, side, side]; without, what stands for none
    """
    prompt, decoder = model.prompt_encoder, model.mask_decoder
    kinds = [kind.weight for kind in prompt.point_embed]
    tokens = sam_prompts.point_tokens(prompt.coordinates(points), labels, prompt.not_a_point_embed.weight, kinds)
    added = prompt.no_mask_embed.weight[..., None, None] if mask is None else mask
    frequencies = model.shared_image_embedding.positional_embedding
    positions = sam_prompts.grid_encoding(frequencies, prompt.image_embedding_size[0])
    masks, scores, outputs = sam_decoder.decode(
        decoder, features + added, positions, tokens, leading=decoder.obj_score_token.weight, finer=finer
    )
    return masks, scores, outputs[:, -decoder.num_mask_tokens :], decoder.pred_obj_score_head(outputs[:, 0])


def memory_features(
    parts: nn.Module, encoder: Sam2VideoMemoryEncoder, masks: Tensor, features: Tensor, occlusion: Tensor
) -> Tensor:
    """Return memories [batch, memory channels, side, side].

    parts: has the mark of memories in which the object is hidden
    masks: [batch, 1, size, size]; features: [1, channels, side, side]; occlusion: [batch, 1], above 0 where visible
    """
    import torch

    made = memory_map(encoder, masks, features)
    hidden = parts.get_parameter("occlusion_spatial_embedding_parameter")[..., None, None]
    return torch.where(occlusion[..., None, None] > 0, made, made + hidden)


def memory_map(encoder: Sam2VideoMemoryEncoder, masks: Tensor, features: Tensor) -> Tensor:
    """Return the same, whether the object is visible or not."""
    marked = encoder.mask_downsampler(masks)
    # Features are repeated before they are projected: OpenVINO's CPU plugin fails where it fuses a convolution with the
    # sum of its output, of several rows, and another convolution's of one row.
    projected = encoder.feature_projection(features.expand(marked.shape[0], -1, -1, -1))
    made: Tensor = encoder.projection(encoder.memory_fuser(projected + marked))
    return made
