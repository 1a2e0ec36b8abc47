"""The networks of SAM 3's tracker on pictures (`pipeline/click_networks`), made of transformers' Sam3TrackerModel.

What labels of points add must be four modules in its prompt encoder (`tracker_config.split_labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sam3_build.torch_modules import sam_decoder, sam_prompts
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerModel

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "point_objects": 4, "objects": 3, "points": 5, "num_boxes": 7}

# The label of a point that counts as absent: its token is zero, and attended to.
PADDING = -10


def vision_encoder(
    model: Sam3TrackerModel, maps: Callable[[Tensor], Sequence[Tensor]], *, adds_embedding: bool
) -> nn.Module:
    """Return the network of pictures: two finer maps, and features to which what stands for no memory is added.

    Meta's code adds it; transformers adds it to a level of the neck that nothing reads. That level is left out.

    model: its vision encoder holds all weights that `maps` needs, and a neck that nothing reads the coarsest level of
    maps:  pixel_values [batch, 3, size, size] -> the neck's maps, the finest first
    """
    encoder, decoder = model.vision_encoder, model.mask_decoder
    encoder.neck.fpn_layers = encoder.neck.fpn_layers[:3]
    parts = container(vision_encoder=encoder, mask_decoder=container(conv_s0=decoder.conv_s0, conv_s1=decoder.conv_s1))
    parts.no_memory_embedding = model.no_memory_embedding

    def forward(pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        finest, finer, features = maps(pixel_values)
        if adds_embedding:
            features = features + parts.get_parameter("no_memory_embedding").flatten()[:, None, None]
        return decoder.conv_s0(finest), decoder.conv_s1(finer), features

    return override(parts, forward)


def clicks(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of points and boxes."""
    parts = _parts(model, dims)
    del model.prompt_encoder.mask_embed

    def forward(
        input_points: Tensor,
        input_labels: Tensor,
        input_boxes: Tensor,
        image_embeddings_0: Tensor,
        image_embeddings_1: Tensor,
        image_embeddings_2: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        objects = input_labels.shape[1]
        tokens = _tokens(model, input_points, input_labels, input_boxes)
        maps = [_rows(features, objects) for features in (image_embeddings_0, image_embeddings_1, image_embeddings_2)]
        added = model.prompt_encoder.no_mask_embed.weight[..., None, None]
        return _decoded(model, tokens, maps, added, input_labels)

    return override(parts, forward)


def previous_mask(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of points and boxes, and of mask logits that an earlier call gave, where there are any."""
    import torch

    parts = _parts(model, dims)
    encoder = model.prompt_encoder

    def forward(
        input_points: Tensor,
        input_labels: Tensor,
        input_boxes: Tensor,
        input_masks: Tensor,
        has_masks: Tensor,
        image_embeddings_0: Tensor,
        image_embeddings_1: Tensor,
        image_embeddings_2: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        objects = input_labels.shape[1]
        tokens = _tokens(model, input_points, input_labels, input_boxes)
        maps = [_rows(features, objects) for features in (image_embeddings_0, image_embeddings_1, image_embeddings_2)]
        added = sam_prompts.mask_features(
            encoder.mask_embed,
            encoder.no_mask_embed.weight,
            input_masks.flatten(0, 1)[:, None],
            has_masks.flatten().to(torch.float32),
        )
        return _decoded(model, tokens, maps, added, input_labels)

    return override(parts, forward)


# ------------------------------------------------------------------ what both decoders consist of


def _parts(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    prompt, decoder = model.prompt_encoder, model.mask_decoder
    del decoder.conv_s0, decoder.conv_s1
    prompt.coordinates = sam_prompts.point_encoding(prompt.shared_embedding, dims["image_size"])
    return container(prompt_encoder=prompt, mask_decoder=decoder, shared_image_embedding=model.shared_image_embedding)


def _rows(features: Tensor, objects: int) -> Tensor:
    """Return [batch * objects, ...]: the features of each picture once for each of its objects.

    `repeat_interleave` by an open size is exported wrongly: right for a batch of one, wrong data for as many rows as
    objects (onnxscript 0.7.2).
    """
    return features[:, None].expand(-1, objects, -1, -1, -1).flatten(0, 1)


def _tokens(model: Sam3TrackerModel, points: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
    """Return the tokens of each object's prompt, [batch * objects, points + 0 or 2 + 1, channels].

    points: [batch, point_objects, points, 2]; those of the last are taken for the objects that have none of their own
    boxes:  [batch, 0 or objects, 4], left, top, right, bottom
    """
    import torch
    from torch.nn import functional

    prompt = model.prompt_encoder
    objects, count = labels.shape[1], boxes.shape[1]
    kinds = [kind.weight for kind in prompt.point_embed]
    own = points.index_select(1, torch.arange(objects).clamp(max=points.shape[1] - 1))
    encoded = sam_prompts.point_tokens(prompt.coordinates(own), labels, prompt.not_a_point_embed.weight, kinds)
    encoded = torch.where(labels[..., None] == PADDING, 0.0, encoded)
    # Without boxes all of their tokens go: a size that follows from another one, for a condition would be fixed.
    filled = functional.pad(boxes, (0, 0, 0, objects))[:, :objects]
    which = torch.arange(2 * (count // objects))
    corners = filled.reshape(*filled.shape[:2], 2, 2).index_select(2, which)
    edges = torch.stack([kinds[sam_prompts.TOP_LEFT][0], kinds[sam_prompts.BOTTOM_RIGHT][0]])
    of_boxes = prompt.coordinates(corners) + edges.index_select(0, which)
    last = prompt.not_a_point_embed.weight.expand(*labels.shape[:2], 1, -1)
    return torch.cat([encoded, of_boxes, last], dim=2).flatten(0, 1)


def _decoded(
    model: Sam3TrackerModel, tokens: Tensor, maps: list[Tensor], added: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores [batch, objects, masks], mask logits [.., 4 * grid, 4 * grid], whether visible [.., 1], logits.

    The first mask is left out: it is that of prompts that can mean one thing only.
    """
    prompt, decoder = model.prompt_encoder, model.mask_decoder
    finest, finer, features = maps
    frequencies = model.shared_image_embedding.positional_embedding
    positions = sam_prompts.grid_encoding(frequencies, prompt.image_embedding_size[0])
    masks, scores, outputs = sam_decoder.decode(
        decoder, features + added, positions, tokens, leading=decoder.obj_score_token.weight, finer=(finest, finer)
    )
    batch, objects = labels.shape[:2]
    visible = decoder.pred_obj_score_head(outputs[:, 0])
    return (
        scores[:, 1:].reshape(batch, objects, -1),
        masks[:, 1:].reshape(batch, objects, -1, *masks.shape[2:]),
        visible.reshape(batch, objects, -1),
    )


HEADS: Mapping[str, Callable[[Sam3TrackerModel, Mapping[str, int]], nn.Module]] = {
    "clicks": clicks,
    "previous_mask": previous_mask,
}
