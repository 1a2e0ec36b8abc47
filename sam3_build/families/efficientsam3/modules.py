"""The networks of this family in PyTorch, from the model config. Runs in workers only.

The neck, the geometry encoder and the decoder are SAM 3's, as transformers has them; the trunks and the text encoder
are written out here under the names that checkpoints have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from sam3_build.families.efficientsam3 import efficientvit, repvit, tiny_vit
from sam3_build.families.efficientsam3.config import complete_config as complete_config
from sam3_build.families.efficientsam3.config import detector_config
from sam3_build.families.efficientsam3.text_encoder import text_encoder
from sam3_build.families.efficientsam3.variants import text_config_of, trunk_of
from sam3_build.spec import Json
from sam3_build.torch_modules.decoder import decoder
from sam3_build.torch_modules.geometry_encoder import geometry_encoder
from sam3_build.torch_modules.sam3 import compute_tables as compute_tables
from sam3_build.torch_modules.sam3 import modeling, shapes_of_whole
from sam3_build.torch_modules.whole_decoder import whole_decoder
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "num_boxes": 3, "prompt_len": 37}

TRUNKS: Mapping[str, Callable[..., nn.Module]] = {
    "repvit": repvit.trunk,
    "tiny_vit": tiny_vit.trunk,
    "efficientvit": efficientvit.trunk,
}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    import torch

    detector = detector_config(config)
    builders: Mapping[str, Callable[[], nn.Module]] = {
        "vision_encoder": partial(vision_encoder, config, levels=3),
        "text_encoder": partial(
            text_encoder, text_config_of(config["text_config"]), detector.detr_encoder_config.hidden_size
        ),
        "geometry_encoder": partial(geometry_encoder, detector),
        "decoder": partial(decoder, detector),
        "whole_decoder_as_meta": partial(whole_decoder, detector, cls_always=True),
        "whole_decoder_as_hf": partial(whole_decoder, detector, cls_always=False),
    }
    with torch.device("meta"):
        return builders[network]()


def vision_encoder(config: Mapping[str, Json], levels: int) -> nn.Module:
    """Return the component: images [batch, 3, side, side] -> the neck's maps, and the last one's positions.

    The trunk's map is a 32nd of the picture; what follows it knows only the teacher's, a 14th, so it is brought to
    that. levels: of the neck; SAM 3 computes a fourth one and uses it nowhere
    """
    from torch import nn
    from torch.nn.functional import interpolate

    vision = detector_config(config).vision_config
    kind, sizes = trunk_of(config["trunk"])
    width, side = vision.backbone_config.hidden_size, vision.backbone_config.image_size
    backbone = TRUNKS[kind](**vars(sizes))
    head = nn.Sequential(
        nn.Conv2d(sizes.widths[-1], width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.GELU(),
        nn.Conv2d(width, width, 3, padding=1),
    )
    neck = modeling().Sam3VisionNeck(vision)
    neck.fpn_layers = neck.fpn_layers[:levels]
    grid = side // vision.backbone_config.patch_size

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        features = interpolate(head(backbone(images)), size=(grid, grid), mode="bilinear", align_corners=False)
        maps, positions = neck(features)
        return (*maps[:3], positions[2])

    return override(container(vision_encoder=container(backbone=backbone, head=head, neck=neck)), forward)


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that a file may hold, also of those that no component needs."""
    import torch

    detector = shapes_of_whole(detector_config(config))
    with torch.device("meta"):
        own = (vision_encoder(config, levels=4), skeleton("text_encoder", config))
    replaced = ("vision_encoder.", "text_encoder.", "text_projection.")
    rest = {key: shape for key, shape in detector.items() if not key.startswith(replaced)}
    return rest | {key: tuple(tensor.shape) for part in own for key, tensor in part.state_dict().items()}
