"""How components are made of others' modules: gives them our forward, and parts of them a path of their own.

Takes and returns torch modules; reads no weights and no files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def override(module: nn.Module, forward: Callable[..., object]) -> nn.Module:
    """Make `module` compute `forward(...)` from now on, keeping its weights and its path; return it."""
    module.forward = forward
    return module


def container(**children: nn.Module) -> nn.Module:
    """Return a module that only holds `children`, under these names."""
    from torch import nn

    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def named(function: Callable[..., object]) -> nn.Module:
    """Wrap a function without weights into a module, so that its nodes carry a module path that patterns can match."""
    from torch import nn

    return override(nn.Identity(), function)


def drop_bias(linear: nn.Module) -> None:
    """Take the bias out of a layer whose output reaches nothing but a softmax, as the same constant for all keys.

    Softmax does not see such a constant, so no output depends on it: a key projection without position rotation, and
    the last layer of a relative position bias.
    """
    linear.register_parameter("bias", None)


def additive(mask: Tensor) -> Tensor:
    """Return what to add to attention scores, [batch, 1, 1 or queries, keys], for a mask whose True means valid.

    transformers builds the same from a 2-D mask with a dozen index nodes; a 4-D one it takes as it is.
    """
    import torch

    rows = mask[:, None, None, :] if mask.ndim == 2 else mask
    return torch.zeros((), dtype=torch.float32).masked_fill(~rows, torch.finfo(torch.float32).min)
