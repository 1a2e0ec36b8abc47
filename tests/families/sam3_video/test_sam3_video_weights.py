"""Checkpoints of SAM 3's video model: every name of Meta's sam3.pt and of transformers' model has its place."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file
from sam3_official import official_names
from video_model import OWN

from sam3_build.errors import BuildError
from sam3_build.families.sam3_video.keys import KEYS
from sam3_build.weights import checkpoint_file, inventory, key_map
from sam3_build.weights.tensors import FileTensor, contiguous

MODULES = OWN.code.modules
SOURCE = {"random": {"seed": 0}}


def renamed(names, path):
    stored = {key: FileTensor(path, "F32", shape, 0, contiguous(shape)) for key, shape in names.items()}
    form = key_map.recognise(names, KEYS)
    assert form is not None and key_map.other_model(names, KEYS) is None
    return form, key_map.rename(stored, form, KEYS.tied)


def names_of_transformers(config):
    """Return Sam3VideoModel's own names and shapes."""
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    with torch.device("meta"):
        model = Sam3VideoModel(MODULES.video_config(config))
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.ci
def test_every_tensor_of_the_official_file_has_its_place(tmp_path):
    form, found = renamed(official_names(), tmp_path)
    assert form.title == "official SAM 3" and found.unknown == ()
    whole = MODULES.whole_model({"model_type": "sam3_video"})
    assert {key: tensor.shape for key, tensor in found.tensors.items()} == whole
    assert set(found.left_out.values()) == {"point prompts", "tables that every build computes"}


def test_every_tensor_of_transformers_has_its_place_and_the_other_way_round(tmp_path):
    config = OWN.config()
    form, found = renamed(names_of_transformers(config), tmp_path)
    assert form.title == "transformers' Sam3VideoModel" and found.unknown == () and not found.left_out
    assert {key: tensor.shape for key, tensor in found.tensors.items()} == MODULES.whole_model(config)


@pytest.mark.ci
def test_a_file_is_loaded_strictly(tmp_path):
    names, file = names_of_transformers(OWN.config()), tmp_path / "model.safetensors"
    state = {key: torch.randn(shape) for key, shape in names.items()}
    state["tracker_model.shared_image_embedding.positional_embedding"] = state[
        "tracker_model.prompt_encoder.shared_embedding.positional_embedding"
    ].clone()
    save_file(state, file)
    expected = inventory.inventory(OWN.code, SOURCE, OWN.config(), None, "predictor")
    found = inventory.inventory(OWN.code, {"path": True}, OWN.config(), file, "predictor")
    assert {name: set(lines) for name, lines in found.items()} == {name: set(lines) for name, lines in expected.items()}
    token = state.pop("tracker_model.mask_decoder.iou_token.weight")
    save_file({**state, "tracker_model.mask_decoder.other_token.weight": token}, file)
    with pytest.raises(BuildError) as caught:
        inventory.inventory(OWN.code, {"path": True}, OWN.config(), file, "predictor")
    assert "missing: mask_decoder.iou_token.weight" in str(caught.value)
    assert "unexpected: tracker_model.mask_decoder.other_token.weight" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (["tracker.model.interactive_sam_mask_decoder.iou_token.weight"], "holds SAM 3.1, whose tracker is another"),
        (["image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight"], "holds SAM 2"),
    ],
)
def test_another_model_is_refused_by_what_it_is(keys, what, tmp_path):
    save_file({key: torch.ones(2) for key in keys}, tmp_path / "other.safetensors")
    with pytest.raises(BuildError, match=re.escape(what)):
        checkpoint_file.read(tmp_path / "other.safetensors", KEYS)


@pytest.mark.parametrize(
    ("part", "change", "what"),
    [
        ("tracker_config", {"max_cond_frame_num": 2}, "max_cond_frame_num is 2, which should be 4"),
        ("tracker_config", {"image_size": 1008}, "prompt_encoder_config.image_size is 1008, which should be 112"),
        ("detector_config", None, "model_type should be 'sam3_video', but is 'sam3'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(part, change, what):
    config = OWN.config()
    wrong = {"model_type": "sam3"} if change is None else {**config, part: {**config[part], **change}}
    with pytest.raises(BuildError, match=re.escape(what)):
        MODULES.complete_config(wrong)
