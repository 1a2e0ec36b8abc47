"""Takes a module skeleton and a seed, returns random tensors or the digests of what determines them. No files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.family_code import KeyTables
from sam3_build.spec import Json
from sam3_build.weights.wanted import weights_of

if TYPE_CHECKING:
    from torch import Tensor, nn

# Raise it when the same seed must give other numbers: it is part of every digest below.
GENERATOR = 1


@dataclass(frozen=True)
class Recipe:
    """How a tensor is drawn: mean + deviation * N(0, 1), from a generator of its own.

    drawn_as: the name that the generator is made of; that of another tensor where two are one
    """

    key: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    drawn_as: str

    def digest(self, seed: int) -> str:
        """Return the sha256 of everything that determines the tensor."""
        determines = [GENERATOR, seed, self.drawn_as, "float32", list(self.shape), self.mean, self.deviation]
        return hashlib.sha256(json.dumps(determines).encode()).hexdigest()

    def draw(self, seed: int) -> Tensor:
        """Return the tensor: whatever else is drawn, and in whichever order, it is the same."""
        import torch

        name = hashlib.sha256(f"{GENERATOR} {seed} {self.drawn_as}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(name[:7], "big"))
        return torch.randn(self.shape, generator=generator).mul_(self.deviation).add_(self.mean)


def recipes(skeleton: nn.Module, tables: KeyTables) -> list[Recipe]:
    """Return a recipe for every weight of `skeleton`, parameters and persistent buffers, in its order.

    Activations stay near 1 and no two tensors are alike. Freshly built modules give flat masks, on which any
    comparison passes, and share values, which the exporter merges into graphs that no trained model has.
    BuildError for a tensor that holds no real numbers.
    """
    owners = dict(skeleton.named_modules())
    made = []
    for key, tensor in weights_of(skeleton).items():
        if not tensor.is_floating_point():
            raise BuildError(f"no random weights for {key}: it is {str(tensor.dtype).removeprefix('torch.')}")
        shape = tuple(tensor.shape)
        own = [scale for pattern, scale in tables.scales if fnmatchcase(key, pattern)]
        mean, deviation = own[0] if own else _scale(owners[key.rpartition(".")[0]], key, shape)
        made.append(Recipe(key, shape, mean, deviation, tables.tied.get(key, key)))
    return made


def _scale(module: nn.Module, key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return mean and standard deviation of a tensor that `module` owns."""
    from torch import nn

    if key.endswith((".bias", ".running_mean")):
        return 0.0, 0.1
    if len(shape) == 1:  # the scale of a norm, or its variance
        return 1.0, 0.1
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        # What one output value sums up: a stride as long as the kernel leaves a transposed convolution no overlap.
        return 0.0, (shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()) ** -0.5
    return 0.0, 1.0  # a table of embeddings


def entry(recipe: Recipe, seed: int) -> dict[str, Json]:
    """Return the inventory's line for a random tensor."""
    return {"dtype": "float32", "shape": list(recipe.shape), "digest": recipe.digest(seed)}


def seed_of(source: Mapping[str, Json]) -> int:
    """Return the seed that a source draws weights from. BuildError when it has none."""
    random = source.get("random")
    seed = random.get("seed") if isinstance(random, Mapping) else None
    if not isinstance(seed, int):
        raise BuildError(f"random weights need a seed, an integer, but the source is {json.dumps(source)}")
    return seed
