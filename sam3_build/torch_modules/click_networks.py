"""The networks of SAM 3's tracker on pictures (`pipeline/click_networks`), made of transformers' Sam3TrackerModel.

Names of its modules are checkpoint keys; only what labels of points add is four modules and not one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from sam3_build.spec import Json
from sam3_build.torch_modules import sam_decoder, sam_prompts
from sam3_build.torch_modules.tracker_config import split_labels
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3TrackerConfig
    from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerModel

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "point_objects": 4, "objects": 3, "points": 5, "num_boxes": 7, "tokens": 11}

# The label of a point that counts as absent: its token is zero, and attended to.
PADDING = -10


def modeling() -> ModuleType:
    """Return transformers' module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module("transformers.models.sam3_tracker.modeling_sam3_tracker")


def parsed(config: Mapping[str, Json]) -> Sam3TrackerConfig:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam3TrackerConfig

    made = Sam3TrackerConfig.from_dict(dict(config))
    made._attn_implementation = "eager"
    return made


def whole(config: Mapping[str, Json]) -> Sam3TrackerModel:
    """Return transformers' Sam3TrackerModel on torch's meta device, what labels of points add in four modules."""
    import torch

    with torch.device("meta"):
        model = modeling().Sam3TrackerModel(parsed(config))
        split_labels(model.prompt_encoder)
    return model


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
    parts = _heads(model, dims)
    del model.prompt_encoder.mask_embed

    def forward(
        input_points: Tensor,
        input_labels: Tensor,
        input_boxes: Tensor,
        image_embeddings_0: Tensor,
        image_embeddings_1: Tensor,
        image_embeddings_2: Tensor,
    ) -> tuple[Tensor, ...]:
        tokens = _tokens(model, input_points, input_labels, input_boxes)
        maps = (image_embeddings_0, image_embeddings_1, image_embeddings_2)
        added = model.prompt_encoder.no_mask_embed.weight[..., None, None]
        return _of_objects(model, input_labels, tokens, maps, added, dims["grid"])

    return override(parts, forward)


def previous_mask(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of points and boxes, and of mask logits that an earlier call gave, where there are any."""
    import torch

    parts = _heads(model, dims)
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
    ) -> tuple[Tensor, ...]:
        tokens = _tokens(model, input_points, input_labels, input_boxes)
        maps = (image_embeddings_0, image_embeddings_1, image_embeddings_2)
        added = sam_prompts.mask_features(
            encoder.mask_embed,
            encoder.no_mask_embed.weight,
            input_masks.flatten(0, 1)[:, None],
            has_masks.flatten().to(torch.float32),
        )
        return _of_objects(model, input_labels, tokens, maps, added, dims["grid"])

    return override(parts, forward)


def prompt_encoder(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that makes embeddings of points and corners of boxes, one prompt per row."""
    import torch

    parts, prompt, grid = _prompt_encoder(model, dims), model.prompt_encoder, dims["grid"]
    del prompt.mask_embed

    def forward(point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        sparse = torch.cat([_points(model, point_coords, point_labels), _last(model, point_labels)], dim=1)
        return sparse, prompt.no_mask_embed.weight[..., None, None].expand(point_labels.shape[0], -1, grid, grid)

    return override(parts, forward)


def mask_decoder(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that makes masks of embeddings of a picture and of a prompt, one of each per row."""
    parts = _mask_decoder(model)

    def forward(
        image_embeddings: Tensor,
        sparse_embeddings: Tensor,
        dense_embeddings: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        maps = [high_res_feats_0, high_res_feats_1, image_embeddings]
        scores, masks, visible = _decoded(model, sparse_embeddings, maps, dense_embeddings, dims["grid"])
        return masks, scores, visible

    return override(parts, forward)


# ------------------------------------------------------------------ what these consist of


def _prompt_encoder(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    """Return a holder of the prompt encoder, which gets a module `coordinates` that encodes points."""
    prompt = model.prompt_encoder
    prompt.coordinates = sam_prompts.point_encoding(prompt.shared_embedding, dims["image_size"])
    return container(prompt_encoder=prompt)


def _mask_decoder(model: Sam3TrackerModel) -> nn.Module:
    """Return a holder of the mask decoder, without what the network of pictures has of it."""
    decoder = model.mask_decoder
    del decoder.conv_s0, decoder.conv_s1
    return container(mask_decoder=decoder, shared_image_embedding=model.shared_image_embedding)


def _heads(model: Sam3TrackerModel, dims: Mapping[str, int]) -> nn.Module:
    return container(
        **dict(_prompt_encoder(model, dims).named_children()), **dict(_mask_decoder(model).named_children())
    )


def _rows(features: Tensor, objects: int) -> Tensor:
    """Return [batch * objects, ...]: the features of each picture once for each of its objects.

    `repeat_interleave` by an open size is exported wrongly: right for a batch of one, wrong data for as many rows as
    objects (onnxscript 0.7.2).
    """
    return features[:, None].expand(-1, objects, -1, -1, -1).flatten(0, 1)


def _points(model: Sam3TrackerModel, points: Tensor, labels: Tensor) -> Tensor:
    """Return the tokens of points, [..., points, channels]; labels [..., points]."""
    import torch

    prompt = model.prompt_encoder
    kinds = [kind.weight for kind in prompt.point_embed]
    tokens = sam_prompts.point_tokens(prompt.coordinates(points), labels, prompt.not_a_point_embed.weight, kinds)
    return torch.where(labels[..., None] == PADDING, 0.0, tokens)


def _last(model: Sam3TrackerModel, labels: Tensor) -> Tensor:
    """Return the token behind those of each prompt, [..., 1, channels]: that of no point."""
    token: Tensor = model.prompt_encoder.not_a_point_embed.weight
    return token.expand(*labels.shape[:-1], 1, -1)


def _tokens(model: Sam3TrackerModel, points: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
    """Return the tokens of each object's prompt, [batch * objects, points + 0 or 2 + 1, channels].

    points: [batch, point_objects, points, 2]; those of the last are taken for the objects that have none of their own
    boxes:  [batch, 0 or objects, 4], left, top, right, bottom
    """
    import torch
    from torch.nn import functional

    prompt = model.prompt_encoder
    objects, count = labels.shape[1], boxes.shape[1]
    own = points.index_select(1, torch.arange(objects).clamp(max=points.shape[1] - 1))
    # Without boxes all of their tokens go: a size that follows from another one, for a condition would be fixed.
    filled = functional.pad(boxes, (0, 0, 0, objects))[:, :objects]
    which = torch.arange(2 * (count // objects))
    corners = filled.reshape(*filled.shape[:2], 2, 2).index_select(2, which)
    edges = torch.cat([prompt.point_embed[kind].weight for kind in (sam_prompts.TOP_LEFT, sam_prompts.BOTTOM_RIGHT)])
    of_boxes = prompt.coordinates(corners) + edges.index_select(0, which)
    return torch.cat([_points(model, own, labels), of_boxes, _last(model, labels)], dim=2).flatten(0, 1)


def _of_objects(
    model: Sam3TrackerModel, labels: Tensor, tokens: Tensor, maps: Sequence[Tensor], added: Tensor, grid: int
) -> tuple[Tensor, ...]:
    """Return what `_decoded` does, [batch, objects, ...] of labels [batch, objects, points]; maps are [batch, ...]."""
    batch, objects = labels.shape[:2]
    found = _decoded(model, tokens, [_rows(features, objects) for features in maps], added, grid)
    return tuple(tensor.reshape(batch, objects, -1, *tensor.shape[2:]) for tensor in found)


def _decoded(
    model: Sam3TrackerModel, tokens: Tensor, maps: Sequence[Tensor], added: Tensor, grid: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores [rows, masks], mask logits [rows, masks, 4 * grid, 4 * grid], logits of whether visible [rows, 1].

    The first mask is left out: it is that of prompts that can mean one thing only.
    """
    decoder = model.mask_decoder
    finest, finer, features = maps
    positions = sam_prompts.grid_encoding(model.shared_image_embedding.positional_embedding, grid)
    masks, scores, outputs = sam_decoder.decode(
        decoder, features + added, positions, tokens, leading=decoder.obj_score_token.weight, finer=(finest, finer)
    )
    return scores[:, 1:], masks[:, 1:], decoder.pred_obj_score_head(outputs[:, 0])


HEADS: Mapping[str, Callable[[Sam3TrackerModel, Mapping[str, int]], nn.Module]] = {
    "clicks": clicks,
    "previous_mask": previous_mask,
    "prompt_encoder": prompt_encoder,
    "mask_decoder": mask_decoder,
}
