"""Takes a module skeleton and a seed, returns random tensors or the digests of what determines them. No files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam3_build.spec import Json

if TYPE_CHECKING:
    from torch import Tensor, nn

# Raise it when the same seed must give other numbers: it is part of every digest below.
GENERATOR = 1


@dataclass(frozen=True)
class Recipe:
    """How a tensor is drawn: mean + deviation * N(0, 1), from a generator of its own."""

    key: str
    shape: tuple[int, ...]
    mean: float
    deviation: float

    def digest(self, seed: int) -> str:
        """Return the sha256 of everything that determines the tensor."""
        determines = [GENERATOR, seed, self.key, "float32", list(self.shape), self.mean, self.deviation]
        return hashlib.sha256(json.dumps(determines).encode()).hexdigest()

    def draw(self, seed: int) -> Tensor:
        """Return the tensor: whatever else is drawn, and in whichever order, it is the same."""
        import torch

        name = hashlib.sha256(f"{GENERATOR} {seed} {self.key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(name[:7], "big"))
        return torch.randn(self.shape, generator=generator).mul_(self.deviation).add_(self.mean)


def recipes(skeleton: nn.Module) -> list[Recipe]:
    """Return a recipe for every parameter of `skeleton`, in its order.

    Activations stay near 1 and no two tensors are alike. Freshly built transformers modules give flat masks, on which
    any comparison passes, and share values, which the exporter merges into graphs that no trained model has.
    """
    return [
        _recipe(module, f"{path}.{name}" if path else name, tuple(parameter.shape))
        for path, module in skeleton.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    ]


def _recipe(module: nn.Module, key: str, shape: tuple[int, ...]) -> Recipe:
    from torch import nn

    if key.endswith(".bias"):
        return Recipe(key, shape, 0.0, 0.1)
    if len(shape) == 1:  # the scale of a norm
        return Recipe(key, shape, 1.0, 0.1)
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        # What one output value sums up: a stride as long as the kernel leaves a transposed convolution no overlap.
        fan_in = shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
        return Recipe(key, shape, 0.0, fan_in**-0.5)
    return Recipe(key, shape, 0.0, 1.0)  # a table of embeddings


def entry(recipe: Recipe, seed: int) -> dict[str, Json]:
    """Return the inventory's line for a random tensor."""
    return {"dtype": "float32", "shape": list(recipe.shape), "digest": recipe.digest(seed)}
