"""What EdgeTAM's own weights find in known pictures, for whoever has them: skipped without a checkpoint.

SAM3_BUILD_TEST_EDGETAM names edgetam.pt or a model.safetensors of transformers; the numbers are those of transformers'
tests, collected in `golden.json` beside the pictures. Nobody with the weights has tried it yet.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from miniature import ROOT

from sam3_build import registry
from sam3_build.families.edgetam.config import OFFICIAL
from sam3_build.pipeline import chain, images
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights import inventory
from sam3_build.weights.load import load

CHECKPOINT = os.environ.get("SAM3_BUILD_TEST_EDGETAM", "")
DATA = Path(os.environ.get("SAM3_BUILD_TEST_DATA") or ROOT.parent / "shared" / "data")
ENTRY = "EdgeTAM (HF EdgeTamModel, fp32)"
CODE = registry.family_code("edgetam")
SOURCE = {"path": True}

# transformers' processor squashes pictures by another filter's rounding, up to one grey level.
SCORES, LOGITS = 2e-3, 0.1

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKPOINT, reason="SAM3_BUILD_TEST_EDGETAM names no checkpoint of EdgeTAM"),
    pytest.mark.skipif(
        not (DATA / "golden.json").is_file(), reason=f"{DATA} has no golden.json (SAM3_BUILD_TEST_DATA)"
    ),
]


@pytest.fixture(scope="module")
def answer():
    """Return what answers prompts on a picture: (picture, prompts) -> outputs of the mask decoder, a row for each."""
    family, file = CODE.family.laid_out("predictor"), Path(CHECKPOINT)
    config = CODE.modules.complete_config(OFFICIAL)
    listed = inventory.inventory(CODE, SOURCE, config, file)
    components = {name: family.component(name) for name in ("vision_encoder", "mask_decoder")}
    models = {
        name: assemble(CODE.modules, name, config, load(CODE, name, SOURCE, config, file, listed[name]))
        for name in components
    }
    networks = {
        name: lambda inputs, name=name: compute(models[name], inputs, [t.name for t in components[name].outputs])
        for name in components
    }

    def run(picture, prompts):
        read = images.read(DATA / "images" / picture)
        request = PromptRequest("predictor", "interactive", "meta", (), None, {}, config)
        arrays = CODE.prompts.picture_arrays(read, config)
        arrays |= CODE.prompts.prompt_arrays(request, prompts, (read.height, read.width))
        return chain.run(components, family.pipeline("interactive").steps, networks, arrays, {})["mask_decoder"]

    return run


def golden():
    return json.loads((DATA / "golden.json").read_text())[ENTRY]


def test_the_best_mask_of_a_point_is_that_of_transformers_test(answer):
    ((entry, expected),) = ((key, value) for key, value in golden().items() if "best_mask_logits_3x3" in value)
    x, y = map(float, re.search(r"\((\d+),(\d+)\)", entry).groups())
    found = answer(entry.split()[0], [ObjectPrompts(points=(Point(1, x, y),))])
    assert abs(found["iou_scores"].item() - max(expected["iou_sorted"])) <= SCORES
    assert np.abs(found["pred_masks"][0, :3, :3] - expected["best_mask_logits_3x3"]).max() <= LOGITS


@pytest.mark.parametrize("picture", ["truck.jpg", "groceries.jpg"])
def test_scores_of_boxes_are_those_of_transformers_test(picture, answer):
    ((entry, expected),) = ((key, value) for key, value in golden().items() if key.startswith(f"{picture} boxes"))
    corners = [tuple(map(float, found)) for found in re.findall(r"\[(\d+),(\d+),(\d+),(\d+)\]", entry)]
    boxes = [ObjectPrompts(boxes=(Box(1, x, y, right - x, bottom - y),)) for x, y, right, bottom in corners]
    found = answer(picture, boxes)["iou_scores"][:, 0]
    assert np.abs(found - expected["iou"]).max() <= SCORES
