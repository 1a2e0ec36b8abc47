"""What was recorded: configs, weights from seed 0, pictures and prompts, for the script and for the tests alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sam3_build.families.efficientsam3 import modules
from sam3_build.families.efficientsam3.keys import KEYS, LANGUAGE, TRUNK
from sam3_build.families.efficientsam3.variants import CONTEXTS as CONTEXTS
from sam3_build.families.efficientsam3.variants import TEXT_ENCODERS as TEXT_ENCODERS
from sam3_build.families.efficientsam3.variants import TRUNKS as TRUNKS
from sam3_build.weights import random_weights

SEED = 0
# What the authors' image model calls its vision backbone, and its tracker.
VISION, TRACKER = "backbone.vision_backbone.", "inst_interactive_predictor.model."
# Side of the picture that trunks alone are run on: 224 is no multiple of all their windows.
SIDE = 224
# Of feature maps every so many channels are kept, of masks every so many queries and pixels.
EVERY = 16
COMPONENTS = ("vision_encoder", "text_encoder", "geometry_encoder", "decoder")
WORDS = "a red car"


@dataclass(frozen=True)
class Prompt:
    """Words; boxes as centre, width and height relative to the picture; labels 1 and 0."""

    text: str
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    labels: tuple[int, ...] = ()


CASES = {
    "text": Prompt(WORDS),
    "box": Prompt(WORDS, ((0.4, 0.5, 0.3, 0.2),), (1,)),
    "negative_box": Prompt(WORDS, ((0.4, 0.5, 0.3, 0.2),), (0,)),
    "two_boxes": Prompt("visual", ((0.4, 0.5, 0.3, 0.2), (0.8, 0.3, 0.5, 0.5)), (1, 1)),
}


@dataclass(frozen=True)
class Click:
    """Points (x, y) with labels 1 and 0, a box (left, top, right, bottom), in pixels; whether a mask is fed back."""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    has_mask: bool = False


CLICKS = {
    "point": Click(((504.0, 400.5),), (1,)),
    "two_points": Click(((504.0, 400.5), (130.25, 900.0)), (1, 0)),
    "box": Click(box=(200.0, 150.0, 700.5, 820.0)),
    "box_and_point": Click(((300.0, 700.0),), (0,), (200.0, 150.0, 700.5, 820.0)),
    "earlier_mask": Click(((504.0, 400.5),), (1,), has_mask=True),
}
CLICK_NETWORKS = ("vision_encoder_as_meta", "previous_mask")


def config(trunk: str, text_encoder: str = "MobileCLIP-S0", context: int = 16):
    """Return the complete config."""
    text = {"name": text_encoder, "max_position_embeddings": context}
    return modules.complete_config({"model_type": "efficientsam3", "trunk": trunk, "text_config": text})


def drawn(network: str, config) -> dict[str, torch.Tensor]:
    """Return the weights of one network from the seed."""
    recipes = random_weights.recipes(modules.skeleton(network, config), KEYS)
    return {recipe.key: recipe.draw(SEED) for recipe in recipes}


def weights(config) -> dict[str, torch.Tensor]:
    """Return the weights of all components from the seed."""
    return {key: tensor for name in COMPONENTS for key, tensor in drawn(name, config).items()}


def click_weights(config) -> dict[str, torch.Tensor]:
    """Return the weights of the networks for clicks from the seed."""
    return {key: tensor for name in CLICK_NETWORKS for key, tensor in drawn(name, config).items()}


def trunk_weights(trunk: str) -> dict[str, torch.Tensor]:
    """Return the weights of a trunk and of the head behind it."""
    return {k: t for k, t in drawn("vision_encoder", config(trunk)).items() if not k.startswith("vision_encoder.neck")}


def text_weights(name: str, context: int) -> dict[str, torch.Tensor]:
    """Return the weights of a text encoder."""
    return drawn("text_encoder", config("repvit_m0_9", name, context))


def roots_of(prefix: str) -> tuple[str, ...]:
    """Return how the names of our tensors begin whose names in the authors' code begin with `prefix`."""
    trunk = ("vision_encoder.backbone.", "vision_encoder.head.")
    heads = ("tracker.prompt_encoder.", "tracker.mask_decoder.", "tracker.no_memory_embedding")
    roots = {
        TRUNK: trunk,
        VISION: (*trunk, "tracker.vision_encoder."),
        LANGUAGE: ("text_",),
        TRACKER: heads,
    }
    return roots.get(prefix, ("",))


def image(side: int = 1008) -> torch.Tensor:
    """Return a picture of smooth noise: [1, 3, side, side], about -1 to 1."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(1, 3, side // 28, side // 28, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth + 0.1 * torch.randn(1, 3, side, side, generator=generator)).clamp(-1, 1)


def picture() -> np.ndarray:
    """Return the same as people have pictures: [1008, 1008, 3] uint8, RGB."""
    return ((image()[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()


def earlier_mask() -> torch.Tensor:
    """Return mask logits as an earlier answer would give them, [1, 1, 288, 288]."""
    coarse = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(SEED))
    return 8 * torch.nn.functional.interpolate(coarse, size=(288, 288), mode="bicubic")


def sampled(output: str, value: torch.Tensor) -> torch.Tensor:
    """Return what is recorded of an output: of masks some queries and pixels, of maps pixels, all of others."""
    if output in ("low_res_masks", "image_embeddings"):
        return value[..., :: EVERY // 2, :: EVERY // 2]
    return value[:, :: EVERY // 2, ::EVERY, ::EVERY] if output == "pred_masks" else value


def file_name(trunk: str, text_encoder: str, context: int) -> str:
    """Return the name of the file of one model's outputs, without its suffix."""
    return f"{trunk}.{text_encoder}.{context}".lower()
