"""The networks of this family in PyTorch, from the model config. Runs in workers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.families.sam3_tracker.config import KIND, tracker_config
from sam3_build.pipeline.click_sizes import static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules.click_networks import DYNAMIC_SIZES as DYNAMIC_SIZES
from sam3_build.torch_modules.click_networks import HEADS, parsed, vision_encoder, whole
from sam3_build.torch_modules.config_keys import complete
from sam3_build.torch_modules.sam3 import compute_tables as compute_tables
from sam3_build.torch_modules.sam3 import normalise_as_meta

if TYPE_CHECKING:
    from torch import nn


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in; BuildError when it is no config of this family."""
    return complete(tracker_config(config), KIND, "Sam3TrackerModel", parsed, static_dims, whole)


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of Sam3TrackerModel. What no component needs may be in a file."""
    return {key: tuple(tensor.shape) for key, tensor in whole(config).state_dict().items()}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    model, dims = whole(config), static_dims(config)
    if network in HEADS:
        return HEADS[network](model, dims)
    is_metas = {"vision_encoder_as_meta": True, "vision_encoder_as_hf": False}[network]
    if is_metas:
        normalise_as_meta(model.vision_encoder.backbone)
    return vision_encoder(model, lambda pixels: model.vision_encoder(pixels).fpn_hidden_states, adds_embedding=is_metas)
