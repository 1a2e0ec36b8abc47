"""The networks of this family in PyTorch, from the model config. Runs in workers only.

The modules are those of transformers' Sam3TrackerModel, under the same attribute names: state dict keys are checkpoint
keys. Only what points' labels add is four modules and not one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.families.sam3_tracker.config import tracker_config
from sam3_build.pipeline.click_sizes import static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules.click_networks import DYNAMIC_SIZES as DYNAMIC_SIZES
from sam3_build.torch_modules.click_networks import HEADS, vision_encoder
from sam3_build.torch_modules.config_keys import refuse_misspelt
from sam3_build.torch_modules.sam3 import compute_tables as compute_tables
from sam3_build.torch_modules.sam3 import normalise_as_meta
from sam3_build.torch_modules.tracker_config import split_labels

if TYPE_CHECKING:
    from torch import nn
    from transformers import Sam3TrackerConfig
    from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerModel


def modeling() -> ModuleType:
    """Return transformers' module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module("transformers.models.sam3_tracker.modeling_sam3_tracker")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in; BuildError when it is no config of this family."""
    config = tracker_config(config)
    try:
        parsed = sam3_tracker_config(config)
        complete: dict[str, Json] = parsed.to_dict()
        refuse_misspelt(config, parsed)
        static_dims(complete)
        whole_model(config)
    except BuildError:
        raise
    except Exception as error:  # whatever transformers and torch raise for a type or a size that cannot be
        why = " ".join(str(error).split())
        raise BuildError(
            f"model config: no Sam3TrackerModel can be made of it: {type(error).__name__}: {why}"
        ) from error
    return complete


def sam3_tracker_config(config: Mapping[str, Json]) -> Sam3TrackerConfig:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam3TrackerConfig

    parsed = Sam3TrackerConfig.from_dict(dict(config))
    parsed._attn_implementation = "eager"
    return parsed


def whole(config: Mapping[str, Json]) -> Sam3TrackerModel:
    """Return transformers' Sam3TrackerModel on torch's meta device, what labels of points add in four modules."""
    import torch

    with torch.device("meta"):
        model = modeling().Sam3TrackerModel(sam3_tracker_config(config))
        split_labels(model.prompt_encoder)
    return model


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
