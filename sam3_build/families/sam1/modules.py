"""The networks of SAM 1 in PyTorch, from the model config. Runs in workers only.

The modules are those of transformers' SamModel, under the same attribute names: state dict keys are checkpoint keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from sam3_build.families.sam1.family import static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules.config_keys import complete
from sam3_build.torch_modules.sam_decoder import decode, one_hot, picked, stability
from sam3_build.torch_modules.sam_prompts import grid_encoding, mask_features, point_encoding, point_tokens
from sam3_build.torch_modules.wrapping import container, named, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import SamConfig

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "num_points": 5}

# The epsilon of the two-way transformer's layer norms in Meta's code: that of torch's LayerNorm.
METAS_EPSILON = 1e-5

# Masks are cut so far above and below 0 to see how stable they are.
STABILITY_OFFSET = 1.0


def modeling() -> ModuleType:
    """Return transformers' SAM module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module("transformers.models.sam.modeling_sam")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in; BuildError when it is no config of a SAM 1 model."""
    return complete(config, "sam", "SamModel", sam_config, static_dims, whole_model)


def sam_config(config: Mapping[str, Json]) -> SamConfig:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import SamConfig

    parsed = SamConfig.from_dict(dict(config))
    for part in (parsed, parsed.vision_config, parsed.mask_decoder_config, parsed.prompt_encoder_config):
        part._attn_implementation = "eager"
    return parsed


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of SamModel."""
    import torch

    with torch.device("meta"):
        model = modeling().SamModel(sam_config(config))
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: the image encoder, or `<layout>_as_<reference>`, a mask decoder."""
    import torch

    parsed = sam_config(config)
    with torch.device("meta"):
        if network == "image_encoder":
            return image_encoder(parsed)
        layout, _, reference = network.partition("_as_")
        if reference == "meta":
            parsed.mask_decoder_config.layer_norm_eps = METAS_EPSILON
        return mask_decoder(parsed, layout)


def image_encoder(config: SamConfig) -> nn.Module:
    """Return the component: images [batch, 3, size, size] -> image_embeddings [batch, hidden, grid, grid]."""
    encoder = modeling().SamVisionEncoder(config.vision_config)

    def forward(images: Tensor) -> tuple[Tensor]:
        return (encoder(images).last_hidden_state,)

    return override(container(vision_encoder=encoder), forward)


def mask_decoder(config: SamConfig, layout: str) -> nn.Module:
    """Return the component: see `SamOnnxModel` in facebookresearch/segment-anything, with a batch of prompts.

    point_coords in pixels of the padded picture; point_labels 0 and 1 of points, 2 and 3 of a box's corners, -1 of
    none, one of which stands in each row without a box; mask_input logits, where has_mask_input is 1
    -> scores [batch, masks], mask logits [batch, masks, 4 * grid, 4 * grid]
    """
    from torch import nn

    sam = modeling()
    encoder, decoder = sam.SamPromptEncoder(config), sam.SamMaskDecoder(config.mask_decoder_config)
    encoder.coordinates = point_encoding(encoder.shared_embedding, config.prompt_encoder_config.image_size)
    if layout == "stability":
        decoder.iou_prediction_head = nn.Identity()
    measure = named(lambda masks: stability(masks, STABILITY_OFFSET))
    side = config.prompt_encoder_config.image_embedding_size

    def forward(
        image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        kinds = [kind.weight for kind in encoder.point_embed]
        prompt = point_tokens(encoder.coordinates(point_coords), point_labels, encoder.not_a_point_embed.weight, kinds)
        dense = mask_features(encoder.mask_embed, encoder.no_mask_embed.weight, mask_input, has_mask_input)
        # The same for every picture: simplified away to a table.
        positions = grid_encoding(encoder.shared_embedding.positional_embedding, side)
        masks, scores, _ = decode(decoder, image_embeddings + dense, positions, prompt)
        if layout == "stability":
            stable: Tensor = measure(masks)
            return stable, masks
        if layout == "single":
            which = taken(scores, point_labels)
            return picked(scores, which)[:, None], picked(masks, which)[:, None]
        return scores, masks

    parts = {"stability": measure} if layout == "stability" else {}
    return override(container(prompt_encoder=encoder, mask_decoder=decoder, **parts), forward)


def taken(scores: Tensor, labels: Tensor) -> Tensor:
    """Return [batch, masks] bool, which mask Meta's code takes: of one point (and what stands for a box) the best of
    several, of more the first. Source: `SamOnnxModel.select_masks`.
    """
    import torch

    # Counted in the graph: a comparison of a size of a shape would become a condition on it while exporting.
    several = torch.ones_like(labels).sum(dim=1, keepdim=True) > 2.5
    best = 1 + scores[:, 1:].argmax(dim=1, keepdim=True)
    # Of positions and not of flags: ONNX Runtime has no Where of booleans.
    return one_hot(torch.where(several, torch.zeros_like(best), best), scores.shape[1])


def compute_tables(model: nn.Module) -> None:
    """Compute nothing: all that these networks hold are weights."""
