"""The networks of this family in PyTorch. Workers only."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.spec import Json

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "objects": 3}

# Logits are so many times the product of a state and a feature, and so much less.
SCALE, BIAS = 4.0, -6.0


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config as it is; BuildError for one without its two sizes."""
    if set(config) != {"model_type", "size", "channels"}:
        raise BuildError(f"model config: a blinker has a size and channels, found {', '.join(config)}")
    return dict(config)


def whole_model(config: Mapping[str, Json]) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a file."""
    networks = (skeleton(name, config) for name in ("frame_encoder", "decode", "update_state"))
    return {name: tuple(tensor.shape) for network in networks for name, tensor in network.state_dict().items()}


def compute_tables(model) -> None:
    """Compute nothing: there are no tables."""


def skeleton(network: str, config: Mapping[str, Json]):
    """Return a network on torch's meta device."""
    import torch
    from torch import nn

    channels = int(str(config["channels"]))

    class FrameEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(3, channels, 3, padding=1)

        def forward(self, images):
            return (self.encoder(images),)

    class Decode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = nn.ModuleDict({"query": nn.Linear(channels, 8), "key": nn.Linear(channels, 8)})

        def forward(self, features, state):
            keys = self.decoder["key"](features.flatten(2).transpose(1, 2))
            logits = torch.matmul(self.decoder["query"](state), keys[0].transpose(0, 1)) * SCALE + BIAS
            return logits.unflatten(1, features.shape[2:]), logits.amax(1, keepdim=True)

    class UpdateState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.update = nn.Linear(2 * channels, channels)

        def forward(self, state, seen):
            return (self.update(torch.cat([state, seen], 1)),)

    kinds = {"frame_encoder": FrameEncoder, "decode": Decode, "update_state": UpdateState}
    with torch.device("meta"):
        return kinds[network]()
