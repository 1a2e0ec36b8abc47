"""Weights and configs of EdgeTAM: Meta's names and transformers' give the same tensors; defaults that mislead."""

from __future__ import annotations

import json
import re
from pathlib import Path

import edgetam_transformers
import pytest
import torch
from safetensors.torch import save_file
from tracked_clip import SEED, Predictor

from sam3_build.errors import BuildError
from sam3_build.families.edgetam.config import FLAGS, OFFICIAL
from sam3_build.weights import key_map
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load
from sam3_build.weights.tensors import FileTensor, contiguous

pytestmark = pytest.mark.ci

NAMES = Path(__file__).parents[2] / "recorded" / "edgetam" / "official_names.json"
OWN = Predictor("edgetam")
CODE, PATH = OWN.code, {"path": True}
TRANSFORMERS, METAS = CODE.keys.formats


def official():
    """Return name -> shape of all tensors of edgetam.pt."""
    return {name: tuple(shape) for name, shape in json.loads(NAMES.read_text()).items()}


def is_counter(name):
    return name.endswith("num_batches_tracked")


# ------------------------------------------------------------------ the model that was published


def test_the_official_file_has_all_tensors_of_the_model_and_no_others():
    shapes = official()
    stored = {key: FileTensor(Path("edgetam.pt"), "F32", shape, 0, contiguous(shape)) for key, shape in shapes.items()}
    assert len(shapes) == 982 and key_map.recognise(stored, CODE.keys) is METAS
    found = key_map.rename(stored, METAS, CODE.keys.tied)
    whole = CODE.modules.whole_model(CODE.modules.complete_config(CODE.family.official_config({})))
    assert not found.unknown and all(map(is_counter, found.left_out))
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        name: shape for name, shape in whole.items() if not is_counter(name)
    }


def without(path):
    """Return the official config without a key."""
    config = json.loads(json.dumps(OFFICIAL))
    part, *parents = config, *path.split(".")[:-1]
    for parent in parents:
        part = part[parent]
    del part[path.rpartition(".")[2]]
    return config


def of_trunk(**backbone):
    """Return the official config with another trunk."""
    vision = {"model_type": "edgetam_vision_model", "backbone_config": {"model_type": "timm_wrapper", **backbone}}
    return {**OFFICIAL, "vision_config": vision}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (without("vision_config"), r"vision_config\.model_type is missing, for which transformers takes SAM 2's Hiera"),
        (without("vision_config.backbone_config"), r"backbone_config\.model_type is missing, .* takes resnet50"),
        (of_trunk(), r"architecture is missing, .* resnet50; EdgeTAM's is repvit_m1"),
        (of_trunk(archirecture="repvit_m1"), r"architecture is missing, .* resnet50; EdgeTAM's is repvit_m1"),
        (of_trunk(architecture="repvit_m2"), r"architecture is 'repvit_m2', which should be 'repvit_m1'"),
        (of_trunk(architecture="repvit_m1", model_args={"depth": [2]}), r"model_args\.depth should be 4 numbers"),
        (without(FLAGS[0]), rf"{FLAGS[0]} is True, which should be False"),
        (without(FLAGS[1]), rf"{FLAGS[1]} is True, which should be False"),
        ({**OFFICIAL, "memory_attention_rope_k_sizes": [8, 8]}, r"k_sizes is \[8, 8\], which should be \[16, 16\]"),
        ({**OFFICIAL, "perceiver_resampler_num_latents_2d": 100}, r"num_latents_2d is 100, which should be n \* n"),
        ({"model_type": "sam2_video"}, "model_type should be 'edgetam_video', but is 'sam2_video'"),
    ],
)
def test_what_transformers_would_guess_wrong_is_refused(config, message):
    with pytest.raises(BuildError, match=message):
        CODE.modules.complete_config(config)


def test_transformers_defaults_are_another_model():
    from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

    assert EdgeTamVisionConfig().backbone_config.architecture == "resnet50"
    assert EdgeTamVideoConfig().vision_config.model_type == "sam2_vision_model"


def test_what_timm_says_of_the_published_trunk_is_read():
    asked = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    config = of_trunk(architecture="repvit_m1.dist_in1k", label_names=["tench"], model_args=asked)
    assert CODE.modules.complete_config(config) == CODE.modules.complete_config(OFFICIAL)


# ------------------------------------------------------------------ files of the miniature


@pytest.fixture(scope="module")
def state():
    """Our name -> tensor, of all components, and zeros for what none uses."""
    own = {name: tensor for tensors in OWN.tensors().values() for name, tensor in tensors.items()}
    whole = CODE.modules.whole_model(OWN.config())
    return {name: own.get(name, torch.zeros(shape)) for name, shape in whole.items()}


def metas_own(state):
    """Return the state dict of Meta's model; a halving and a block of the miniature are as others of the official."""
    listed = [*official(), *(re.sub(r"blocks\.\d+", f"blocks.{n}", name) for name in official() for n in (0, 2))]
    made = {}
    for theirs in listed:
        name = key_map.translate(theirs, METAS.sections)
        joined = METAS.reshaped.get(name)
        parts = joined.parts if joined else (name,)
        if all(part in state for part in parts):
            made[theirs] = torch.cat([state[part] for part in parts]) if joined else state[name]
    return made


@pytest.mark.ci
def test_both_formats_give_the_very_same_tensors(state, tmp_path, monkeypatch):
    folder, file = tmp_path / "folder", tmp_path / "edgetam.pt"
    edgetam_transformers.model(monkeypatch).save_pretrained(folder)
    torch.save({"model": metas_own(state)}, file)
    of_folder, of_file = (inventory(CODE, PATH, OWN.config(), path) for path in (folder / "model.safetensors", file))
    assert of_folder == of_file
    drawn = inventory(CODE, SEED, OWN.config(), None)
    for component, lines in of_file.items():
        assert lines.keys() == drawn[component].keys()
        for name, tensor in load(CODE, component, PATH, OWN.config(), file, lines).items():
            assert torch.equal(tensor, state[name])


@pytest.mark.ci
def test_a_file_that_lacks_a_tensor_or_has_one_too_much_is_refused(state, tmp_path):
    tensors = metas_own(state)
    del tensors["spatial_perceiver.latents_2d"]
    torch.save({"model": tensors | {"spatial_perceiver.more": torch.ones(2)}}, tmp_path / "edgetam.pt")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, OWN.config(), tmp_path / "edgetam.pt")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "missing: spatial_perceiver.latents_2d [16, 64]",
        "unexpected: spatial_perceiver.more",
    ]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("image_encoder.trunk.patch_embed.proj.weight", "SAM 2"),
        ("vision_encoder.backbone.blocks.0.attn.qkv.weight", "SAM 2"),
        ("detector.backbone.vision_backbone.trunk.pos_embed", "SAM 3"),
        ("image_encoder.blocks.0.norm1.weight", "SAM (the first) or MobileSAM"),
    ],
)
def test_other_models_are_refused_by_name(name, what, tmp_path):
    save_file({name: torch.ones(2), "mask_decoder.iou_token.weight": torch.ones(2)}, tmp_path / "m.safetensors")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, OWN.config(), tmp_path / "m.safetensors")
    assert f"holds {what}, by the names of its tensors" in str(caught.value)
