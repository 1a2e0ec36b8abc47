"""Checkpoints of the tracker: every name of Meta's sam3.pt and of transformers' models has its place or is named."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from sam3_official import official_names
from tracker_model import CODE, CONFIG, SOURCE, tensors

from sam3_build.commands.inspect import describe
from sam3_build.errors import BuildError
from sam3_build.families.sam3_tracker.keys import KEYS
from sam3_build.families.sam3_tracker.modules import complete_config
from sam3_build.torch_modules.click_networks import modeling, parsed
from sam3_build.weights import checkpoint_file, inventory, key_map
from sam3_build.weights.tensors import FileTensor, contiguous

PATH = {"path": True}
MEMORY = "the tracker's memory, which clips need"


def renamed(names, path):
    stored = {key: FileTensor(path, "F32", shape, 0, contiguous(shape)) for key, shape in names.items()}
    form = key_map.recognise(names, KEYS)
    assert form is not None and key_map.other_model(names, KEYS) is None
    return form, key_map.rename(stored, form, KEYS.tied)


def test_every_tensor_of_the_official_file_has_its_place_or_is_named_as_left_out(tmp_path):
    form, found = renamed(official_names(), tmp_path)
    assert form.title == "official SAM 3" and found.unknown == ()
    whole = CODE.modules.whole_model({"model_type": "sam3_tracker"})
    assert {key: tensor.shape for key, tensor in found.tensors.items()} == whole
    kinds = set(found.left_out.values())
    assert kinds == {"the detector", MEMORY, "tables that every build computes"}
    assert all(key.startswith("detector.") for key, what in found.left_out.items() if what == "the detector")
    memory = [key for key, what in found.left_out.items() if what == MEMORY]
    assert all(key.startswith("tracker.") and "sam_" not in key for key in memory) and len(memory) > 100


def test_transformers_video_model_and_tracker_model_have_the_same_tensors(tmp_path):
    from transformers import Sam3VideoConfig
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    with torch.device("meta"):
        video = Sam3VideoModel(Sam3VideoConfig())
        tracker = modeling().Sam3TrackerModel(parsed({"model_type": "sam3_tracker"}))
    whole = CODE.modules.whole_model({"model_type": "sam3_tracker"})
    titles = []
    for model in (video, tracker):
        form, found = renamed({key: tuple(t.shape) for key, t in model.state_dict().items()}, tmp_path)
        titles.append(form.title)
        assert found.unknown == () and {key: tensor.shape for key, tensor in found.tensors.items()} == whole
    assert titles == ["transformers' Sam3VideoModel", "transformers' Sam3TrackerModel"]


@pytest.fixture(scope="module")
def state():
    """What Sam3TrackerModel saves of the weights of seed 0."""
    held = {**tensors("vision_encoder_as_meta"), **tensors("previous_mask")}
    labels = [held.pop(f"prompt_encoder.point_embed.{label}.weight") for label in range(4)]
    neck = {
        key: torch.ones(shape)
        for key, shape in CODE.modules.whole_model(CONFIG).items()
        if key.startswith("vision_encoder.neck.fpn_layers.3.")
    }
    return {**held, **neck, "prompt_encoder.point_embed.weight": torch.cat(labels)}


def test_a_file_is_loaded_strictly(state, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
    expected = inventory.inventory(CODE, SOURCE, CONFIG, None, "previous_mask")
    found = inventory.inventory(CODE, PATH, CONFIG, file, "previous_mask")
    assert {name: set(lines) for name, lines in found.items()} == {name: set(lines) for name, lines in expected.items()}
    wrong = {key: tensor for key, tensor in state.items() if key != "mask_decoder.iou_token.weight"}
    save_file({**wrong, "mask_decoder.other_token.weight": torch.ones(2)}, file)
    with pytest.raises(BuildError) as caught:
        inventory.inventory(CODE, PATH, CONFIG, file)
    assert "missing: mask_decoder.iou_token.weight" in str(caught.value)
    assert "unexpected: mask_decoder.other_token.weight" in str(caught.value)


def test_a_file_of_the_tracker_alone_is_of_this_family(state, tmp_path):
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    described = describe(tmp_path)
    assert described["family"] == "sam3_tracker" and described["unexpected"] == 0
    assert set(described["components"]) >= {"vision_encoder", "prompt_encoder_mask_decoder"}


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (["tracker.model.interactive_sam_mask_decoder.iou_token.weight"], "holds SAM 3.1, whose tracker is another"),
        (["image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight"], "holds SAM 2"),
        (["detr_encoder.layers.0.mlp.fc1.weight"], "holds no tensor of SAM 3's tracker"),
    ],
)
def test_another_model_is_refused_by_what_it_is(keys, what, tmp_path):
    save_file({key: torch.ones(2) for key in keys}, tmp_path / "other.safetensors")
    with pytest.raises(BuildError, match=re.escape(what)):
        checkpoint_file.read(tmp_path / "other.safetensors", KEYS)


def test_the_config_of_the_video_model_is_that_of_its_tracker():
    from transformers import Sam3VideoConfig

    whole = Sam3VideoConfig().to_dict()
    assert complete_config(whole) == complete_config({"model_type": "sam3_tracker"})
    with pytest.raises(BuildError, match=r"model_type should be 'sam3_tracker', .*, but is 'sam3'"):
        complete_config({"model_type": "sam3"})
    with pytest.raises(
        BuildError, match=r"mask_decoder_config\.hidden_size should be 256 for the other sizes, but is 64"
    ):
        complete_config({"model_type": "sam3_tracker", "mask_decoder_config": {"hidden_size": 64}})
