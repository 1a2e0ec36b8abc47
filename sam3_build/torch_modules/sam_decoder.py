"""What the mask decoders of SAM 1 and SAM 2 compute: masks and scores of all their tokens, and which mask is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.sam.modeling_sam import SamMaskDecoder
    from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

    Decoder: TypeAlias = SamMaskDecoder | Sam2MaskDecoder


def decode(
    decoder: Decoder,
    features: Tensor,
    positions: Tensor,
    prompt: Tensor,
    leading: Tensor | None = None,
    finer: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mask logits [batch, n, 4 * side, 4 * side], predicted IoUs [batch, n], output tokens [batch, m, channels].

    transformers' own forward leaves out the first mask or all others; here are all n of them, in their order. The
    output tokens are those of `leading`, that of the IoU, and one for each mask.

    decoder:   only its submodules are used
    features:  [batch, channels, side, side], of the picture and the mask of the prompt
    positions: [1, channels, side, side], their encoding
    prompt:    [batch, points, channels], tokens of points and boxes
    leading:   [k, channels], tokens before that of the IoU: SAM 2's for whether the object is there
    finer:     feature maps of SAM 2's picture, at 4 and 2 times the side: [batch, channels / 8, ..], [.., / 4, ..]
    """
    import torch

    batch, channels, height, width = features.shape
    own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
    learned = torch.cat(own if leading is None else [leading, *own])
    tokens = torch.cat([learned.expand(batch, -1, -1), prompt], dim=1)
    # transformers' transformer has a dim for several prompts of one picture: here each row has a prompt of its own.
    tokens, cells = decoder.transformer(
        point_embeddings=tokens[:, None],
        image_embeddings=features,
        image_positional_embeddings=positions,
        attention_similarity=None,
    )
    outputs = tokens[:, 0, : len(learned)]
    upscaled = _upscaled(decoder, cells[:, 0].transpose(1, 2).reshape(batch, channels, height, width), finer)
    count = decoder.num_mask_tokens
    of_masks = outputs[:, -count:]
    kernels = torch.stack([mlp(of_masks[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    masks = (kernels @ upscaled.flatten(2)).reshape(batch, count, *upscaled.shape[2:])
    return masks, decoder.iou_prediction_head(outputs[:, -count - 1]), outputs


def _upscaled(decoder: Decoder, cells: Tensor, finer: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return [batch, channels / 8, 4 * side, 4 * side] from cells [batch, channels, side, side]."""
    half = decoder.upscale_conv1(cells)
    half = decoder.activation(decoder.upscale_layer_norm(half if finer is None else half + finer[1]))
    full = decoder.upscale_conv2(half)
    upscaled: Tensor = decoder.activation(full if finer is None else full + finer[0])
    return upscaled


def best_of_several(scores: Tensor) -> Tensor:
    """Return [batch, n] bool: which mask has the best score but for the first, which is that of precise prompts."""
    return one_hot(1 + scores[:, 1:].argmax(dim=1, keepdim=True), scores.shape[1])


def one_hot(positions: Tensor, count: int) -> Tensor:
    """Return [batch, count] bool, true at `positions` [batch, 1]."""
    import torch

    return torch.arange(count) == positions


def picked(values: Tensor, which: Tensor) -> Tensor:
    """Return [batch, ...] of `values` [batch, n, ...]: those at `which` [batch, n], true once in each row.

    A sum instead of an index: no Gather with data-dependent indices is left in the graph.
    """
    import torch

    mask = which[(..., *[None] * (values.ndim - 2))]
    return torch.where(mask, values, 0.0).sum(dim=1)


def stability(masks: Tensor, offset: float) -> Tensor:
    """Return [batch, n], the IoU of each mask [batch, n, h, w] cut at `offset` above and below 0; 0 of an empty one.

    Counts of pixels pass what FP16 holds, 65504: call it in a module whose path reduced precisions keep in FP32.
    Source: `calculate_stability_score` of facebookresearch/segment-anything, which gives NaN for an empty one.
    """
    inner, outer = ((masks > cut).float().sum(dim=(-2, -1)) for cut in (offset, -offset))
    return inner / outer.clamp(min=1.0)
