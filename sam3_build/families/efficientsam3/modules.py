"""The networks of this family in PyTorch, from the model config. Runs in workers only.

The necks, the geometry encoder, the decoder and the heads for clicks are SAM 3's, as transformers has them; the trunks
and the text encoder are written out here under the names that checkpoints have. What the tracker has stands behind
`tracker.`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from sam3_build.families.efficientsam3 import efficientvit, repvit, tiny_vit
from sam3_build.families.efficientsam3.config import complete_config as complete_config
from sam3_build.families.efficientsam3.config import detector_config, tracker_config
from sam3_build.families.efficientsam3.sizes import static_dims
from sam3_build.families.efficientsam3.text_encoder import text_encoder
from sam3_build.families.efficientsam3.variants import text_config_of, trunk_of
from sam3_build.spec import Json
from sam3_build.torch_modules import click_networks
from sam3_build.torch_modules.decoder import decoder
from sam3_build.torch_modules.geometry_encoder import geometry_encoder
from sam3_build.torch_modules.sam3 import compute_tables as compute_tables
from sam3_build.torch_modules.sam3 import modeling, shapes_of_whole
from sam3_build.torch_modules.whole_decoder import whole_decoder
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerModel

DYNAMIC_SIZES = {**click_networks.DYNAMIC_SIZES, "prompt_len": 37}

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
        "vision_encoder_as_meta": partial(click_encoder, config, adds_embedding=True),
        "vision_encoder_as_hf": partial(click_encoder, config, adds_embedding=False),
        "text_encoder": partial(
            text_encoder, text_config_of(config["text_config"]), detector.detr_encoder_config.hidden_size
        ),
        "geometry_encoder": partial(geometry_encoder, detector),
        "decoder": partial(decoder, detector),
        "whole_decoder_as_meta": partial(whole_decoder, detector, cls_always=True),
        "whole_decoder_as_hf": partial(whole_decoder, detector, cls_always=False),
        **{name: partial(click_head, config, name) for name in click_networks.HEADS},
    }
    with torch.device("meta"):
        return builders[network]()


def student(config: Mapping[str, Json]) -> nn.Module:
    """Return what takes images [batch, 3, side, side] and returns the map that necks read, [batch, width, grid, grid].

    The trunk's map is a 32nd of the picture; what follows it knows only the teacher's, a 14th, so it is brought to
    that.
    """
    from torch import nn
    from torch.nn.functional import interpolate

    teacher = detector_config(config).vision_config.backbone_config
    kind, sizes = trunk_of(config["trunk"])
    backbone = TRUNKS[kind](**vars(sizes))
    head = nn.Sequential(
        nn.Conv2d(sizes.widths[-1], teacher.hidden_size, 1, bias=False),
        nn.BatchNorm2d(teacher.hidden_size),
        nn.GELU(),
        nn.Conv2d(teacher.hidden_size, teacher.hidden_size, 3, padding=1),
    )
    grid = teacher.image_size // teacher.patch_size

    def forward(images: Tensor) -> Tensor:
        return interpolate(head(backbone(images)), size=(grid, grid), mode="bilinear", align_corners=False)

    return override(container(backbone=backbone, head=head), forward)


def vision_encoder(config: Mapping[str, Json], levels: int) -> nn.Module:
    """Return the component: images [batch, 3, side, side] -> the neck's maps, and the last one's positions.

    levels: of the neck; SAM 3 computes a fourth one and uses it nowhere
    """
    encoder = student(config)
    neck = modeling().Sam3VisionNeck(detector_config(config).vision_config)
    neck.fpn_layers = neck.fpn_layers[:levels]
    encoder.neck = neck

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        maps, positions = neck(encoder(images))
        return (*maps[:3], positions[2])

    return override(container(vision_encoder=encoder), forward)


def click_encoder(config: Mapping[str, Json], *, adds_embedding: bool) -> nn.Module:
    """Return the component of pictures that are clicked: the same trunk, and the tracker's neck behind it."""
    encoder, model = student(config), tracker(config)
    neck = model.vision_encoder.neck
    part = click_networks.vision_encoder(model, lambda pixels: neck(encoder(pixels))[0], adds_embedding=adds_embedding)
    return override(container(vision_encoder=encoder, tracker=part), part.forward)


def click_head(config: Mapping[str, Json], name: str) -> nn.Module:
    """Return a component of `click_networks.HEADS`."""
    part = click_networks.HEADS[name](tracker(config), static_dims(config))
    return override(container(tracker=part), part.forward)


def tracker(config: Mapping[str, Json]) -> Sam3TrackerModel:
    """Return SAM 3's tracker on pictures, of whose vision encoder the neck alone is here."""
    model = click_networks.whole(tracker_config(config))
    model.vision_encoder = container(neck=model.vision_encoder.neck)
    return model


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that a file may hold, also of those that no component needs."""
    import torch

    detector = shapes_of_whole(detector_config(config))
    with torch.device("meta"):
        own = (
            vision_encoder(config, levels=4),
            skeleton("text_encoder", config),
            container(tracker=tracker(config)),
        )
    replaced = ("vision_encoder.", "text_encoder.", "text_projection.")
    rest = {key: shape for key, shape in detector.items() if not key.startswith(replaced)}
    return rest | {key: tuple(tensor.shape) for part in own for key, tensor in part.state_dict().items()}
