"""The networks of this family in PyTorch, from the model config. Runs in workers only.

A network bears its component's name, unless what it computes depends on the reference (`ComponentSpec.networks`).

The modules are those of transformers' Sam3Model, under the same attribute names: state dict keys are checkpoint keys,
and the module paths that the exporter records are those a reader knows. What must compute differently gets another
`forward`; what a precision must keep apart gets a module path of its own (`coordinates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from sam3_build.families.sam3_image.config import complete_config as complete_config
from sam3_build.families.sam3_image.config import sam3_config
from sam3_build.families.sam3_image.config import whole_model as whole_model
from sam3_build.spec import Json
from sam3_build.torch_modules.clip_text import text_encoder
from sam3_build.torch_modules.decoder import decoder
from sam3_build.torch_modules.geometry_encoder import geometry_encoder
from sam3_build.torch_modules.sam3 import compute_tables as compute_tables
from sam3_build.torch_modules.sam3 import modeling
from sam3_build.torch_modules.whole_decoder import detector, whole_decoder
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3Config

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "num_boxes": 3, "prompt_len": 37}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    import torch

    builders: Mapping[str, Callable[[Sam3Config], nn.Module]] = {
        "vision_encoder": vision_encoder,
        "text_encoder": text_encoder,
        "geometry_encoder": geometry_encoder,
        "decoder": decoder,
        "whole_decoder_as_meta": partial(whole_decoder, cls_always=True),
        "whole_decoder_as_hf": partial(whole_decoder, cls_always=False),
        "detector_as_meta": partial(detector, cls_always=True),
        "detector_as_hf": partial(detector, cls_always=False),
    }
    with torch.device("meta"):
        return builders[network](sam3_config(config))


def vision_encoder(config: Sam3Config) -> nn.Module:
    """Return the component. The neck's coarsest level is left out: SAM 3 computes it and uses it nowhere."""
    encoder = modeling().Sam3VisionModel(config.vision_config)
    encoder.neck.fpn_layers = encoder.neck.fpn_layers[:3]

    def forward(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoded = encoder(images)
        return (*encoded.fpn_hidden_states, encoded.fpn_position_encoding[2])

    return override(container(vision_encoder=encoder), forward)
