"""Opens a component's network in PyTorch, with the weights that the checkpoint action listed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.family_code import FamilyCode
from sam3_build.params import TorchParams
from sam3_build.spec import Json
from sam3_build.torch_modules.assemble import assemble
from sam3_build.weights import pointer
from sam3_build.weights.load import load

if TYPE_CHECKING:
    from torch import nn


def open_network(code: FamilyCode, params: TorchParams, inputs: Mapping[str, Path]) -> nn.Module:
    """Return the network of an action, in evaluation mode.

    inputs: config, weights where they are in a file, and tensors*: the inventories of the components that have them
    """
    config = read_config(inputs)
    listed: dict[str, Mapping[str, Json]] = {}
    for role in (role for role in inputs if role.startswith("tensors")):
        listed |= json.loads(inputs[role].read_bytes())["tensors"]
    tensors = load(code, params.network, params.source, config, pointer.locate(inputs.get("weights")), listed)
    return assemble(code.modules, params.network, config, tensors)


def read_config(inputs: Mapping[str, Path]) -> dict[str, Json]:
    """Return the complete model config, as the checkpoint action wrote it."""
    config: dict[str, Json] = json.loads(inputs["config"].read_bytes())
    return config
