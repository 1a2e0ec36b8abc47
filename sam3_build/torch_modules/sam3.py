"""transformers' SAM 3: its config and modules, and the tables that its networks compute from their config."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from sam3_build.spec import Json

if TYPE_CHECKING:
    from torch import nn
    from transformers import Sam3Config

# The epsilon of the ViT's layer norms in Meta's code; transformers' configs have 1e-6.
METAS_EPSILON = 1e-5


def modeling() -> ModuleType:
    """Return transformers' SAM 3 module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module("transformers.models.sam3.modeling_sam3")


def sam3_config(config: Mapping[str, Json]) -> Sam3Config:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam3Config

    parsed = Sam3Config.from_dict(dict(config))
    parsed._attn_implementation = "eager"
    return parsed


def shapes_of_whole(config: Sam3Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of Sam3Model, by name."""
    import torch

    with torch.device("meta"):
        model = modeling().Sam3Model(config)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def normalise_as_meta(vit: nn.Module) -> None:
    """Give the layer norms of a ViT the epsilon that they have in Meta's code."""
    from torch import nn

    for module in vit.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = METAS_EPSILON


def compute_tables(model: nn.Module) -> None:
    """Compute on the CPU what is no weight and was built on the meta device: positions and rotation frequencies.

    Those of the ViT and of CLIP's text encoder; other modules have none.
    """
    import torch
    from transformers.models.clip.modeling_clip import CLIPTextEmbeddings

    sam3 = modeling()
    for module in model.modules():
        if isinstance(module, sam3.Sam3ViTLayer):
            module.position_ids = module.precompute_positions(module.config, module.window_size)
            module.rotary_emb = sam3.Sam3ViTRotaryEmbedding(module.config)
        elif isinstance(module, CLIPTextEmbeddings):
            module.position_ids = torch.arange(module.position_embedding.num_embeddings)[None]
