"""Weights of SAM 2.1: Meta's names and transformers' give the same tensors, and other models are refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from recorded_names import official
from safetensors.torch import save_file

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.families.sam2.config import SIZES, config_of
from sam3_build.params import CheckpointParams
from sam3_build.stages import checkpoint
from sam3_build.weights import checkpoint_file, key_map
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load
from sam3_build.weights.tensors import FileTensor, contiguous

pytestmark = pytest.mark.ci

MINI = Path(__file__).parents[3] / "manifests" / "sam2_mini.json"
CODE = registry.family_code("sam2")
SEED = {"random": {"seed": 0}}
PATH = {"path": True}
TRANSFORMERS, METAS = CODE.keys.formats


def renamed(shapes):
    """Return the tensors of a file of Meta's, by our names."""
    stored = {key: FileTensor(Path("sam2.pt"), "F32", shape, 0, contiguous(shape)) for key, shape in shapes.items()}
    assert key_map.recognise(stored, CODE.keys) is METAS
    return key_map.rename(stored, METAS, CODE.keys.tied)


@pytest.mark.parametrize("size", SIZES)
def test_an_official_file_has_all_tensors_of_the_size_that_its_shapes_tell_and_no_others(size):
    found = renamed(official(size))
    shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
    assert not found.left_out and not found.unknown
    assert config_of(shapes) == SIZES[size].config()
    assert shapes == CODE.modules.whole_model(config_of(shapes))


def test_sam_2_0_and_an_unknown_trunk_are_refused_by_name():
    shapes = {name: tensor.shape for name, tensor in renamed(official("tiny")).tensors.items()}
    old = {name: shape for name, shape in shapes.items() if "temporal_positional_encoding_projection" not in name}
    with pytest.raises(BuildError, match=r"^this is SAM 2\.0, .*take the SAM 2\.1 checkpoint of the same size"):
        config_of(old)
    config = {"model_type": "sam2_video", "enable_occlusion_spatial_embedding": False}
    with pytest.raises(BuildError, match=r"enable_occlusion_spatial_embedding is false: this is SAM 2\.0"):
        CODE.modules.complete_config(config)
    odd = {name: shape for name, shape in shapes.items() if ".blocks.11." not in name}
    with pytest.raises(BuildError, match=r"width 96 with 11 layers is no published size .*name the model's config"):
        config_of(odd)


def test_sizes_that_do_not_fit_together_are_refused():
    config = json.loads(MINI.read_text())
    with pytest.raises(BuildError) as caught:
        CODE.modules.complete_config({**config, "memory_attention_rope_feat_sizes": [64, 64], "num_maskmem": 5})
    wrong = (
        "memory_attention_rope_feat_sizes is [64, 64], which should be [8, 8], and num_maskmem is 5, which should be 7"
    )
    assert str(caught.value) == f"model config: {wrong}"


# ------------------------------------------------------------------ files of the miniature


@pytest.fixture(scope="module")
def config():
    return CODE.modules.complete_config(json.loads(MINI.read_text()))


@pytest.fixture(scope="module")
def state(config):
    """Our name -> tensor, of all components."""
    listed = inventory(CODE, SEED, config, None)
    return {k: t for name, lines in listed.items() for k, t in load(CODE, name, SEED, config, None, lines).items()}


@pytest.fixture(scope="module")
def whole(config, state):
    """The same with what no component uses."""
    return {name: state.get(name, torch.zeros(shape)) for name, shape in CODE.modules.whole_model(config).items()}


def transformers_own(whole):
    """Return the state dict of transformers' model: what four labels add is one tensor, and nothing is tied."""
    labels = [key for key in whole if ".point_embed." in key]
    joined = {"prompt_encoder.point_embed.weight": torch.cat([whole[key] for key in labels])}
    return {key: tensor.contiguous() for key, tensor in whole.items() if key not in labels} | joined


def metas_own(whole):
    """Return Meta's state dict; blocks of the miniature widen where others of the published sizes do."""
    listed = [name for size in SIZES for name in official(size)]
    listed += [re.sub(r"blocks\.\d+", "blocks.4", name) for name in listed]
    names = {key_map.translate(name, METAS.sections): name for name in listed}
    assert whole.keys() - names.keys() == {"shared_image_embedding.positional_embedding"}
    return {names[ours]: tensor for ours, tensor in whole.items() if ours in names}


def test_both_formats_give_the_very_same_tensors(config, state, whole, tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "sam2.1_hiera_mini.pt"
    folder.mkdir()
    save_file(transformers_own(whole), folder / "model.safetensors")
    torch.save({"model": metas_own(whole)}, file)
    of_folder, of_file = (inventory(CODE, PATH, config, path) for path in (folder / "model.safetensors", file))
    assert of_folder == of_file
    assert checkpoint_file.read(file, CODE.keys).format is METAS
    lines = of_file["mask_decoder"]
    tensors = load(CODE, "mask_decoder", PATH, config, file, lines)
    assert tensors.keys() == lines.keys() and all(torch.equal(state[key], tensor) for key, tensor in tensors.items())


def test_a_file_that_lacks_a_tensor_or_has_one_too_much_is_refused(config, whole, tmp_path):
    tensors = metas_own(whole)
    del tensors["no_obj_ptr"]
    torch.save({"model": tensors | {"memory_encoder.more": torch.ones(2)}}, tmp_path / "sam2.pt")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, config, tmp_path / "sam2.pt")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "missing: no_object_pointer [1, 128]",
        "unexpected: memory_encoder.more",
    ]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("image_encoder.trunk.body.stem.conv.weight", "EdgeTAM"),
        ("detector.backbone.vision_backbone.trunk.pos_embed", "SAM 3"),
        ("image_encoder.blocks.0.norm1.weight", "SAM (the first) or MobileSAM"),
        ("vision_encoder.layers.0.layer_norm1.weight", "SAM (the first), transformers'"),
    ],
)
def test_other_models_are_refused_by_name(name, what, config, tmp_path):
    save_file({name: torch.ones(2), "mask_decoder.iou_token.weight": torch.ones(2)}, tmp_path / "m.safetensors")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, config, tmp_path / "m.safetensors")
    assert f"holds {what}, by the names of its tensors" in str(caught.value)


def test_the_checkpoint_action_tells_the_size_of_a_file_without_a_config(whole, tmp_path):
    torch.save({"model": metas_own(whole)}, tmp_path / "sam2.1_hiera_tiny.pt")
    params = CheckpointParams(family="sam2", layout="deepstream", source=PATH).document()
    with pytest.raises(BuildError, match="an image encoder of width 16 with 5 layers is no published size"):
        checkpoint.run(params, {"weights": tmp_path / "sam2.1_hiera_tiny.pt"}, tmp_path)


def test_random_weights_see_every_object(state):
    assert state["mask_decoder.pred_obj_score_head.proj_out.bias"].item() > 2
