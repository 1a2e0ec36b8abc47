"""Checkpoints of EfficientSAM3: names both ways, what is left out and said, configs from shapes, what is refused."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from miniature import ROOT
from safetensors.torch import save_file

sys.path.append(str(ROOT / "tests" / "families" / "sam3_image"))
from sam3_official import to_official

from sam3_build import registry
from sam3_build.commands.inspect import describe, render
from sam3_build.errors import BuildError
from sam3_build.families.efficientsam3 import modules, variants
from sam3_build.families.efficientsam3.config import detector_config
from sam3_build.families.efficientsam3.keys import KEYS, LANGUAGE, SECTIONS, TRUNK
from sam3_build.torch_modules.sam3 import shapes_of_whole
from sam3_build.weights import checkpoint_file, key_map, random_weights
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

CODE = registry.family_code("efficientsam3")
PATH = {"path": True}
VISION = "detector.backbone.vision_backbone."


@pytest.fixture(scope="module")
def config():
    return modules.complete_config(json.loads((ROOT / "manifests/efficientsam3/mini.json").read_text()))


@pytest.fixture(scope="module")
def state(config):
    """All tensors of the whole model by our names: what its components take, and what they do not."""
    drawn = {}
    for component in CODE.family.components:
        for recipe in random_weights.recipes(modules.skeleton(component.name, config), KEYS):
            drawn[recipe.key] = recipe.draw(0)
    generator = torch.Generator().manual_seed(1)
    whole = modules.whole_model(config)
    return {key: drawn.get(key, torch.randn(shape, generator=generator)) for key, shape in whole.items()}


@pytest.fixture(scope="module")
def authors(state, config):
    """The same as the authors keep it in a full file: their names, joined projections, a teacher, a tracker."""
    theirs, joined = {}, {}
    for key, tensor in state.items():
        name = key.replace("vision_encoder.backbone.", f"{TRUNK}student_trunk.backbone.model.")
        name = name.replace("vision_encoder.head.", f"{TRUNK}student_trunk.head.")
        name = re.sub(r"^text_encoder\.", f"{LANGUAGE}encoder.", name)
        name = name.replace("text_projection.", f"{LANGUAGE}projector.")
        if name == key:
            joined[key] = tensor
        theirs["detector." + name] = tensor
    for key in joined:  # the rest are SAM 3's names: tests/families/sam3_image has them
        theirs.pop("detector." + key)
    theirs |= {f"detector.{name}": tensor for name, tensor in sam3_names(joined, config).items()}
    teacher = {
        f"{VISION}trunk.blocks.0.attn.qkv.weight": torch.ones(3, 4),
        f"{VISION}trunk.pos_embed": torch.ones(5),
        f"{VISION}sam2_convs.0.conv_1x1.weight": torch.ones(2, 3),
        f"detector.{LANGUAGE}encoder.projection_layer": torch.ones(4, 4),
        "detector.geometry_encoder.points_pool_project.weight": torch.ones(2),
        "tracker.sam_mask_decoder.iou_token.weight": torch.ones(1, 7),
        "tracker.maskmem_backbone.x": torch.ones(2),
    }
    counters = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for key in theirs if "running_mean" in key
    }
    return theirs | teacher | counters


def sam3_names(ours, config):
    """Return the tensors that SAM 3 has too by Meta's names, as the hand-written table of its own tests has them."""
    others = shapes_of_whole(detector_config(config))
    made = to_official({key: ours.get(key, torch.zeros(shape)) for key, shape in others.items()}, prefix="")
    keep = ("backbone.vision_backbone.convs.", "geometry_encoder.", "transformer.", "segmentation_head.", "dot_prod")
    return {name: tensor for name, tensor in made.items() if name.startswith(keep) and ".points_" not in name}


def test_a_full_file_is_loaded_exactly_and_says_what_it_leaves_out(state, authors, config, tmp_path):
    file = tmp_path / "efficient_sam3.safetensors"
    save_file({key: tensor.contiguous().clone() for key, tensor in authors.items()}, file)
    listed = inventory(CODE, PATH, config, file)
    for component in CODE.family.components:
        loaded = load(CODE, component.name, PATH, config, file, listed[component.name])
        assert loaded and all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())
    found = checkpoint_file.read(file, KEYS)
    assert found.unknown == ()
    assert found.left_out_parts == {
        "the teacher's trunk, which the student's replaces": 2,
        "the tracker's neck": 1,
        "MobileCLIP's projection of one token; SAM 3 reads all": 1,
        "point prompts": 1,
        "tracker.*, no part of this model": 2,
    }


def test_inspect_prints_a_table_of_the_files_parts(authors, tmp_path):
    file = tmp_path / "efficient_sam3.safetensors"
    save_file({key: tensor.contiguous().clone() for key, tensor in authors.items()}, file)
    found = describe(file)
    assert found["family"] == "efficientsam3" and found["unexpected"] == 0
    rows = {(row["prefix"], row["component"]): row for row in found["inventory"]}
    trunk = rows[f"{VISION}trunk.blocks.*", "-"]
    assert trunk["parameters"] == 12 and trunk["status"].startswith("left out: the teacher's trunk")
    assert rows["detector.transformer.*", "decoder"]["status"] == "exported"
    assert rows["tracker.*", "-"]["status"] == "left out: tracker.*, no part of this model"
    assert rows["detector.geometry_encoder.*", "-"]["status"] == "left out: point prompts"
    held = {key: t for key, t in authors.items() if not key.endswith("num_batches_tracked")}
    assert sum(row["parameters"] for row in found["inventory"]) == sum(t.numel() for t in held.values())
    lines = render(found).splitlines()
    heading = lines[lines.index("inventory:") + 1]
    assert heading.split() == ["prefix", "parameters", "component", "status"]


def test_a_tensor_too_few_or_too_many_is_named_as_the_file_has_it(authors, config, tmp_path):
    broken = dict(authors)
    missing = f"{VISION}trunk.model.student_trunk.head.0.weight"
    del broken[missing]
    broken[f"{VISION}trunk.model.student_trunk.extra.weight"] = torch.ones(2)
    save_file({key: tensor.contiguous().clone() for key, tensor in broken.items()}, tmp_path / "x.safetensors")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, config, tmp_path / "x.safetensors")
    assert "missing: vision_encoder.head.0.weight" in str(caught.value)
    assert f"unexpected: {VISION}trunk.model.student_trunk.extra.weight" in str(caught.value)


@pytest.mark.parametrize("trunk", variants.TRUNKS)
@pytest.mark.parametrize(("text", "context"), [("MobileCLIP-S0", 16), ("MobileCLIP-S1", 77), ("MobileCLIP2-L", 32)])
def test_the_config_of_a_published_file_follows_from_its_shapes(trunk, text, context):
    given = {"model_type": "efficientsam3", "trunk": trunk}
    complete = modules.complete_config({**given, "text_config": {"name": text, "max_position_embeddings": context}})
    parts = (modules.skeleton(name, complete) for name in ("vision_encoder", "text_encoder"))
    shapes = {key: tuple(tensor.shape) for part in parts for key, tensor in part.state_dict().items()}
    assert modules.complete_config(variants.official_config(shapes)) == complete


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "sam3"}, "model_type should be 'efficientsam3', but is 'sam3'"),
        ({"trunk": "repvit_m0_8"}, "trunk is 'repvit_m0_8'; did you mean 'repvit_m0_9'"),
        ({"trunk": {"type": "repvitt"}}, "no trunk of type 'repvitt'; did you mean 'repvit'"),
        ({"trunk": {"type": "repvit", "widths": [1]}}, "RepViT lacks depths"),
        ({"text_config": "MobileCLIP-S2"}, "text_config is 'MobileCLIP-S2'; did you mean 'MobileCLIP-S"),
        ({"trunks": "x"}, "unknown key 'trunks'; did you mean 'trunk'"),
        ({"text_config": None}, "text_config is missing"),
        ({"detr_decoder_config": {"num_queries": "many"}}, "no EfficientSAM3 can be made of detr_decoder_config"),
    ],
)
def test_a_config_that_is_wrong_is_one_message(config, message):
    given = {"model_type": "efficientsam3", "trunk": "repvit_m0_9", "text_config": "MobileCLIP-S0"} | config
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(BuildError, match=re.escape(message)):
        modules.complete_config(given)


def test_the_names_that_the_recordings_used_are_those_that_files_are_read_by(state):
    assert key_map.translate(f"{TRUNK}backbone.model.features.0.0.c.weight", SECTIONS) in state
    assert key_map.translate(f"{TRUNK}student_trunk.head.3.bias", SECTIONS) in state
    assert key_map.translate(f"{LANGUAGE}projector.weight", SECTIONS) in state
