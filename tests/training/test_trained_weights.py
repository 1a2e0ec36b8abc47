"""The weights that are committed: they load strictly, answer held-out scenes, and the samples are such scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from build_space import ROOT
from PIL import Image
from safetensors.torch import load_file

from sam3_build.families.sam3_image.forward import sam3_config
from sam3_build.families.sam3_image.modules import modeling
from training.evaluate import HELD_OUT, SCENES, evaluate
from training.scenes import draw

TRAINED = ROOT / "manifests" / "sam3_mini_trained"
PICTURES = sorted(TRAINED.glob("scene*.png"))


def test_the_weights_are_a_whole_sam3_model_of_at_most_ten_megabytes() -> None:
    file = TRAINED / "model.safetensors"
    assert file.stat().st_size <= 10_000_000
    with torch.device("meta"):
        model = modeling().Sam3Model(sam3_config(json.loads((TRAINED / "config.json").read_text())))
    model.load_state_dict(load_file(file), strict=True, assign=True)
    assert 1.5e6 <= sum(value.numel() for value in model.parameters()) <= 3e6


def test_a_small_sample_of_held_out_scenes_is_answered_as_the_card_says() -> None:
    """40 of the card's 500 scenes: within what so few may differ."""
    card = json.loads((TRAINED / "numbers.json").read_text())
    config = json.loads((TRAINED / "config.json").read_text())
    found = evaluate(load_file(TRAINED / "model.safetensors"), config, TRAINED / "tokenizer.json", scenes=40)
    for kind in ("text", "box"):
        assert found[kind]["iou"] > card[kind]["iou"] - 0.12, kind
        assert found[kind]["presence"] > card[kind]["presence"] - 0.08, kind


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_samples_are_held_out_scenes_that_the_numbers_do_not_count(picture: Path) -> None:
    number = int(picture.stem.removeprefix("scene"))
    assert number >= SCENES
    with Image.open(picture) as shipped:
        difference = np.abs(np.asarray(shipped, np.int16) - draw(HELD_OUT, number).picture)
    # Another version of OpenCV may round an edge's pixel the other way.
    assert np.count_nonzero(difference.max(axis=2) > 1) < 40
