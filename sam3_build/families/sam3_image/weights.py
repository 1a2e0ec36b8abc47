"""The weights of this family: an inventory of every tensor without its bytes, and a component's tensors themselves.

Sources: `{"random": {"seed": 0}}`, or `{"path": true}` with a safetensors file (or an index of several) whose keys are
those of transformers' Sam3Model. Reads that file only.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.families.sam3_image.forward import sam3_config, skeleton
from sam3_build.families.sam3_image.modules import modeling
from sam3_build.spec import Json

if TYPE_CHECKING:
    from torch import Tensor, nn

# Raise it when the same seed must give other numbers: it is part of every digest below.
GENERATOR = 1

BLOCK = 1 << 22
MOST_LISTED = 20


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `length` bytes at `offset` of `file`, of a safetensors type such as `F32`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def inventory(
    source: Mapping[str, Json], config: Mapping[str, Json], weights: Path | None
) -> dict[str, dict[str, Json]]:
    """Return component -> checkpoint key -> `{"dtype", "shape", "digest"}` for exactly the tensors that outputs need.

    The digest is that of the tensor's bytes; with random weights, of all that determines them.
    """
    components = {c.name: skeleton(c.name, config) for c in FAMILY.components}
    if weights is None:
        seed = _seed(source)
        return {name: {k: _random_entry(k, r, seed) for k, r in _recipes(m).items()} for name, m in components.items()}
    stored = _read_headers(weights)
    _compare(stored, components, config, weights)
    return {name: {key: _stored_entry(stored[key]) for key in m.state_dict()} for name, m in components.items()}


def load(
    component: str, source: Mapping[str, Json], config: Mapping[str, Json], weights: Path | None
) -> dict[str, Tensor]:
    """Return the tensors of `component` as FP32, by checkpoint key; nothing else is read or made."""
    model = skeleton(component, config)
    if weights is None:
        seed = _seed(source)
        return {key: _random_tensor(key, recipe, seed) for key, recipe in _recipes(model).items()}
    stored = _read_headers(weights)
    _compare({k: v for k, v in stored.items() if k in model.state_dict()}, {component: model}, None, weights)
    return {key: _read(key, stored[key]) for key in model.state_dict()}


# ------------------------------------------------------------------ random


@dataclass(frozen=True)
class Recipe:
    """How a random tensor is drawn: mean + deviation * N(0, 1)."""

    shape: tuple[int, ...]
    mean: float
    deviation: float


def _recipes(model: nn.Module) -> dict[str, Recipe]:
    return {
        f"{path}.{name}" if path else name: _recipe(module, name, tuple(parameter.shape))
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    }


def _recipe(module: nn.Module, name: str, shape: tuple[int, ...]) -> Recipe:
    """Keep activations near 1: without it, random masks are flat and no comparison on them means anything."""
    from torch import nn

    if name == "bias":
        return Recipe(shape, 0.0, 0.1)
    if len(shape) == 1:  # the scale of a norm
        return Recipe(shape, 1.0, 0.1)
    if isinstance(module, nn.ConvTranspose2d):
        return Recipe(shape, 0.0, shape[0] ** -0.5)
    if isinstance(module, nn.Linear | nn.Conv2d):
        fan_in = shape[1] * (module.kernel_size[0] * module.kernel_size[1] if isinstance(module, nn.Conv2d) else 1)
        return Recipe(shape, 0.0, fan_in**-0.5)
    return Recipe(shape, 0.0, 1.0)  # an embedding table


def _seed(source: Mapping[str, Json]) -> int:
    random = source.get("random")
    seed = random.get("seed") if isinstance(random, Mapping) else None
    if not isinstance(seed, int):
        raise BuildError(f"random weights need a seed, an integer, but the source is {json.dumps(source)}")
    return seed


def _random_tensor(key: str, recipe: Recipe, seed: int) -> Tensor:
    import torch

    name = hashlib.sha256(f"{GENERATOR} {seed} {key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(name[:7], "big"))
    return torch.randn(recipe.shape, generator=generator).mul_(recipe.deviation).add_(recipe.mean)


def _random_entry(key: str, recipe: Recipe, seed: int) -> dict[str, Json]:
    determines = [GENERATOR, seed, key, "float32", list(recipe.shape), recipe.mean, recipe.deviation]
    digest = hashlib.sha256(json.dumps(determines).encode()).hexdigest()
    return {"dtype": "float32", "shape": list(recipe.shape), "digest": digest}


# ------------------------------------------------------------------ files

# safetensors' names of the types that hold trained weights, and numpy's.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def _read_headers(weights: Path) -> dict[str, Stored]:
    if not weights.name.endswith(".index.json"):
        return _read_header(weights)
    shards = json.loads(weights.read_bytes())["weight_map"]
    return {k: v for name in sorted(set(shards.values())) for k, v in _read_header(weights.with_name(name)).items()}


def _read_header(file: Path) -> dict[str, Stored]:
    """Read a safetensors header: its length (8 bytes, little endian), then JSON, then the tensors' bytes."""
    with file.open("rb") as stream:
        size = stream.read(8)
        length = struct.unpack("<Q", size)[0] if len(size) == 8 else 0
        text = stream.read(length) if length < 1 << 30 else b""
    try:
        header = json.loads(text)
        entries = {
            key: Stored(
                file, e["dtype"], tuple(e["shape"]), 8 + length + e["data_offsets"][0], -int.__sub__(*e["data_offsets"])
            )
            for key, e in header.items()
            if key != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{file.name} is not a safetensors file: its header cannot be read ({error})") from error
    return entries


def _compare(
    stored: Mapping[str, Stored],
    components: Mapping[str, nn.Module],
    config: Mapping[str, Json] | None,
    weights: Path,
) -> None:
    """Refuse a file that lacks a tensor, has one of another shape or type or (given the config) one nobody knows."""
    needed = {key: tuple(t.shape) for m in components.values() for key, t in m.state_dict().items()}
    problems = [f"missing: {key} {list(needed[key])}{did_you_mean(key, stored)}" for key in needed if key not in stored]
    for key, shape in needed.items():
        if key in stored and stored[key].shape != shape:
            problems.append(f"shape: {key} is {list(stored[key].shape)}, the config needs {list(shape)}")
        if key in stored and stored[key].dtype not in DTYPES:
            problems.append(f"type: {key} is {stored[key].dtype}; allowed: {', '.join(DTYPES)}")
    if config is not None:
        known = {*needed, *_whole_model(config)}
        problems += [f"unexpected: {key}" for key in sorted(stored) if key not in known]
    if problems:
        more = [f"and {len(problems) - MOST_LISTED} more"] if len(problems) > MOST_LISTED else []
        raise BuildError(
            f"{weights.name} does not hold the weights of transformers' Sam3Model for this config:\n  "
            + "\n  ".join([*problems[:MOST_LISTED], *more])
        )


def _whole_model(config: Mapping[str, Json]) -> Iterable[str]:
    """Return all keys of Sam3Model. What no component needs (see forward.py and decoder.py) may be there or not."""
    import torch

    with torch.device("meta"):
        return list(modeling().Sam3Model(sam3_config(config)).state_dict())


def _stored_entry(tensor: Stored) -> dict[str, Json]:
    sha = hashlib.sha256()
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.offset)
        left = tensor.length
        while left and (block := stream.read(min(BLOCK, left))):
            sha.update(block)
            left -= len(block)
    if left:
        raise BuildError(f"{tensor.file.name} is cut short: {left} bytes of a tensor are missing")
    return {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "digest": sha.hexdigest()}


def _read(key: str, tensor: Stored) -> Tensor:
    import torch
    from safetensors import safe_open

    with safe_open(tensor.file, framework="pt") as file:
        read: Tensor = file.get_tensor(key)
    return read.to(torch.float32)
