"""The miniature's predictor in PyTorch, run by the family's own loop on a drawn clip; and prompts to follow on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from sam3_build import registry
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.predictor_cases import ClipPrompts, ObjectPrompt
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

ROOT = Path(__file__).parents[3]
CODE = registry.family_code("sam2")
SEED = {"random": {"seed": 0}}
CLIP = sorted((ROOT / "manifests" / "samples" / "clip").glob("*.png"))

# The frames' sizes are those of the drawn clip, 160 x 120.
STAR, CIRCLE, SQUARE = Point(1, 30, 44), Box(1, 82, 20, 34, 34), Point(1, 99, 96)
PROMPTS = {
    "points": [ObjectPrompt(0, 1, (STAR,)), ObjectPrompt(0, 2, (SQUARE, Point(0, 30, 44)))],
    "box": [ObjectPrompt(0, 1, boxes=(CIRCLE,)), ObjectPrompt(0, 2, (STAR,))],
    "several_frames": [
        ObjectPrompt(0, 1, (STAR,)),
        ObjectPrompt(3, 1, (Point(1, 48, 44),)),
        ObjectPrompt(2, 2, (SQUARE,)),
    ],
    "refined": [ObjectPrompt(0, 1, (STAR,)), ObjectPrompt(0, 1, (Point(0, 99, 96),))],
    "mask": [ObjectPrompt(0, 1, mask="square"), ObjectPrompt(0, 2, (STAR,))],
}


def square():
    """Return the mask of the square, [height, width] bool."""
    mask = np.zeros((120, 160), np.bool_)
    mask[84:108, 74:124] = True
    return mask


def config():
    """Return the miniature's config with all defaults."""
    return CODE.modules.complete_config(json.loads((ROOT / "manifests" / "sam2_mini.json").read_text()))


def tensors(layout="predictor"):
    """Return component -> its tensors, from seed 0."""
    listed = inventory(CODE, SEED, config(), None, layout)
    return {name: load(CODE, _network(layout, name), SEED, config(), None, lines) for name, lines in listed.items()}


def _network(layout, name):
    return CODE.family.laid_out(layout).component(name).network("meta")


def networks(layout="predictor"):
    """Return component -> what runs it in PyTorch."""
    made, of = tensors(layout), config()
    models = {name: assemble(CODE.modules, _network(layout, name), of, own) for name, own in made.items()}

    def runs(name):
        outputs = [tensor.name for tensor in CODE.family.laid_out(layout).component(name).outputs]
        return lambda arrays, kind="": compute(models[name], arrays, outputs)

    return {name: runs(name) for name in models}


def pixels():
    """Return the frames as the network takes them, [1, 3, side, side] each."""
    return [CODE.prompts.frame_arrays(Image.open(file), config())["pixel_values"] for file in CLIP]


def encoded(run, layout="predictor"):
    """Return what the encoder gives of each frame."""
    name, (given,) = next((c.name, c.inputs) for c in CODE.family.laid_out(layout).components)
    return [run[name]({given.name: frame}) for frame in pixels()]


def given(prompts, tmp_path):
    """Return prompts as the loop gets them."""
    Image.fromarray(square()).save(tmp_path / "square.png")
    request = PromptRequest("predictor", "video", "meta", (), None, {"square": tmp_path / "square.png"}, config())
    return CODE.prompts.clip_arrays(request, ClipPrompts(tuple(prompts)), (120, 160))
