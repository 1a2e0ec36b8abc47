"""transformers' SAM 3: its modules, and the tables that its networks compute from their config."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def modeling() -> ModuleType:
    """Return transformers' SAM 3 module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module("transformers.models.sam3.modeling_sam3")


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
