"""A small SAM 3 tracker with weights of seed 0: our networks, and transformers' model with the same tensors."""

from __future__ import annotations

import json
from functools import cache

import torch
from miniature import ROOT
from PIL import Image

from sam3_build import registry
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.torch_modules.assemble import assemble
from sam3_build.torch_modules.click_networks import modeling, parsed
from sam3_build.weights import inventory, load

CODE = registry.family_code("sam3_tracker")
SOURCE = {"random": {"seed": 0}}
# Network -> the layout and component that it is, but for those of pictures.
NETWORKS = {layout: (layout, "prompt_encoder_mask_decoder") for layout in ("clicks", "previous_mask")}
NETWORKS |= {name: ("separate_prompt_encoder", name) for name in ("prompt_encoder", "mask_decoder")}

CONFIG = CODE.modules.complete_config(json.loads((ROOT / "manifests" / "sam3_tracker_mini.json").read_text()))

# A drawn picture, 160 x 120, and what was recorded of it (tests/recorded/sam3_tracker); a mask is a case's first one.
PICTURE = Image.open(sorted((ROOT / "manifests" / "samples" / "clip").glob("*.png"))[0]).convert("RGB")
POINT, OTHER, BOX = Point(1, 30, 44), Point(0, 99, 96), Box(1, 82, 20, 34, 34)
PROMPTS = {
    "point": ObjectPrompts((POINT,)),
    "two_points": ObjectPrompts((POINT, OTHER)),
    "box": ObjectPrompts(boxes=(BOX,)),
    "box_and_points": ObjectPrompts((POINT, OTHER), (BOX,)),
    "earlier_mask": ObjectPrompts((OTHER,), mask="point"),
}


def picture_arrays():
    return CODE.prompts.picture_arrays(PICTURE, CONFIG)


@cache
def tensors(name):
    """Return the weights of a network, from seed 0."""
    layout, component = NETWORKS.get(name, ("clicks", "vision_encoder"))
    listed = inventory.inventory(CODE, SOURCE, CONFIG, None, layout)[component]
    return load.load(CODE, name, SOURCE, CONFIG, None, listed)


@cache
def network(name):
    return assemble(CODE.modules, name, CONFIG, tensors(name))


def transformers_model():
    """Return Sam3TrackerModel; what no network of ours holds has random numbers, which must not matter."""
    torch.manual_seed(1)
    model = modeling().Sam3TrackerModel(parsed(CONFIG))
    held = {**tensors("vision_encoder_as_meta"), **tensors("previous_mask")}
    labels = [held.pop(f"prompt_encoder.point_embed.{label}.weight") for label in range(4)]
    held["prompt_encoder.point_embed.weight"] = torch.cat(labels)
    others = {key: torch.randn(tensor.shape) for key, tensor in model.state_dict().items() if key not in held}
    model.load_state_dict({**held, **others}, strict=True)
    return model.eval()


def fed(name, maps, batch, **prompts):
    """Return what a decoder computes of prompts on so many pictures, by name."""
    features = {f"image_embeddings_{level}": features[:batch] for level, features in enumerate(maps)}
    with torch.no_grad():
        outputs = network(name)(**prompts, **features)
    return dict(zip(("iou_scores", "pred_masks", "object_score_logits"), outputs, strict=True))
