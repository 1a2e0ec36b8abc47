"""Checkpoints of EfficientSAM3: names both ways, what is left out and said, configs from shapes, what is refused."""

from __future__ import annotations

import json
import re
import sys
from functools import cache

import pytest
import torch
from miniature import ROOT
from safetensors.torch import save_file

sys.path.append(str(ROOT / "tests" / "families" / "sam3_image"))
from sam3_official import official_names, to_official

from sam3_build import registry
from sam3_build.commands.inspect import describe, render
from sam3_build.errors import BuildError
from sam3_build.families.efficientsam3 import modules, variants
from sam3_build.families.efficientsam3.config import detector_config
from sam3_build.families.efficientsam3.keys import FULL, IMAGE_MODEL, KEYS, LANGUAGE, TRUNK
from sam3_build.torch_modules.sam3 import shapes_of_whole
from sam3_build.weights import checkpoint_file, key_map, random_weights
from sam3_build.weights.inventory import describe as describe_tensors
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load
from sam3_build.weights.wanted import is_counter

pytestmark = pytest.mark.ci

CODE = registry.family_code("efficientsam3")
PATH = {"path": True}
VISION = "detector.backbone.vision_backbone."
MEMORY = "the tracker's memory, which clips need"
COMPONENTS = [(name, component) for name, layout in CODE.family.layouts.items() for component in layout.components]


@pytest.fixture(scope="module")
def config():
    return modules.complete_config(json.loads((ROOT / "manifests/efficientsam3/mini.json").read_text()))


@pytest.fixture(scope="module")
def state(config):
    """All tensors of the whole model by our names: what its components take, and what they do not."""
    drawn = {}
    for _, component in COMPONENTS:
        for recipe in random_weights.recipes(modules.skeleton(component.network("meta"), config), KEYS):
            drawn[recipe.key] = recipe.draw(0)
    generator = torch.Generator().manual_seed(1)
    whole = modules.whole_model(config)
    return {key: drawn.get(key, torch.randn(shape, generator=generator)) for key, shape in whole.items()}


@pytest.fixture(scope="module")
def authors(state, config):
    """The same as the authors keep it in a full file: their names, joined projections, a teacher, a tracker."""
    theirs, joined = {name: state[ours] for name, ours in of_tracker().items()}, {}
    for key, tensor in ((k, t) for k, t in state.items() if not k.startswith("tracker.")):
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
        f"detector.{LANGUAGE}encoder.projection_layer": torch.ones(4, 4),
        "detector.geometry_encoder.points_pool_project.weight": torch.ones(2),
        **{name: torch.ones(2) for name in official_names() if name.startswith("tracker.") and name not in theirs},
    }
    counters = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for key in theirs if "running_mean" in key
    }
    return theirs | teacher | counters


@cache
def of_tracker():
    """Return the names of Meta's file that the tracker's heads and its neck have there -> ours."""
    ours = {name: key_map.translate(name, FULL.sections) or "" for name in official_names()}
    return {name: key for name, key in ours.items() if key.startswith("tracker.")}


def sam3_names(ours, config):
    """Return the tensors that SAM 3 has too by Meta's names, as the hand-written table of its own tests has them."""
    others = shapes_of_whole(detector_config(config))
    made = to_official({key: ours.get(key, torch.zeros(shape)) for key, shape in others.items()}, prefix="")
    keep = ("backbone.vision_backbone.convs.", "geometry_encoder.", "transformer.", "segmentation_head.", "dot_prod")
    return {name: tensor for name, tensor in made.items() if name.startswith(keep) and ".points_" not in name}


def saved(tensors, path):
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)
    return path


def without_clicks(authors):
    """Return what a file for words alone has."""
    return {k: t for k, t in authors.items() if not k.startswith(("tracker.", f"{VISION}sam2_convs."))}


def image_model(authors):
    """Return the same as a model with heads for clicks saves itself."""
    renamed = {k.replace("tracker.", "inst_interactive_predictor.model."): t for k, t in authors.items()}
    return {key.removeprefix("detector."): tensor for key, tensor in renamed.items()}


def test_a_full_file_is_loaded_exactly_and_says_what_it_leaves_out(state, authors, config, tmp_path):
    file = saved(authors, tmp_path / "efficient_sam3.safetensors")
    for layout in ("v1", "previous_mask"):
        listed = inventory(CODE, PATH, config, file, layout)
        for component in CODE.family.laid_out(layout).components:
            loaded = load(CODE, component.network("meta"), PATH, config, file, listed[component.name])
            assert loaded and all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())
    found = checkpoint_file.read(file, KEYS)
    assert found.unknown == () and found.tensors.keys() == {k for k in state if not is_counter(k)}
    assert found.left_out_parts == {
        MEMORY: len([name for name in official_names() if name.startswith("tracker.") and name not in of_tracker()]),
        "the teacher's trunk, which the student's replaces": 2,
        "MobileCLIP's projection of one token; SAM 3 reads all": 1,
        "point prompts": 1,
    }


def test_a_model_with_heads_for_clicks_that_was_saved_itself_has_the_same_tensors(authors, tmp_path):
    full, image = (
        checkpoint_file.read(saved(tensors, tmp_path / f"{name}.safetensors"), KEYS)
        for name, tensors in (("full", authors), ("image", image_model(authors)))
    )
    assert image.format == IMAGE_MODEL and image.unknown == () and image.left_out_parts == full.left_out_parts
    assert {key: tensor.shape for key, tensor in image.tensors.items()} == {k: t.shape for k, t in full.tensors.items()}


def test_a_layout_says_what_of_a_full_file_is_left_out_for_others(authors, config, tmp_path):
    file = saved(authors, tmp_path / "efficient_sam3.safetensors")
    counts = {layout: describe_tensors(CODE, PATH, file, layout)["other_layouts"] for layout in ("v1", "clicks")}
    heads, mask = len(of_tracker()), 10  # beside what only the layout with an earlier mask has
    assert counts["v1"] == {"clicks": heads + 1 - mask, "previous_mask": mask}
    assert counts["clicks"].keys() == {"v1", "previous_mask"}


def test_words_need_no_heads_for_clicks_and_clicks_do(authors, config, tmp_path):
    file = saved(without_clicks(authors), tmp_path / "efficient_sam3.safetensors")
    assert inventory(CODE, PATH, config, file, "v1")["decoder"]
    assert "other_layouts" not in describe_tensors(CODE, PATH, file, "v1")
    with pytest.raises(BuildError, match=r"missing: tracker\.no_memory_embedding \[1, 1, 64\]"):
        inventory(CODE, PATH, config, file, "clicks")


def test_inspect_prints_a_table_of_the_files_parts(authors, tmp_path):
    found = describe(saved(authors, tmp_path / "efficient_sam3.safetensors"))
    assert found["family"] == "efficientsam3" and found["unexpected"] == 0
    rows = {(row["prefix"], row["component"]): row for row in found["inventory"]}
    trunk = rows[f"{VISION}trunk.blocks.*", "-"]
    assert trunk["parameters"] == 12 and trunk["status"].startswith("left out: the teacher's trunk")
    assert rows["detector.transformer.*", "decoder"]["status"] == "exported"
    assert rows[f"{VISION}sam2_convs.*", "vision_encoder"]["status"] == "exported in layout clicks"
    statuses = {row["status"] for (prefix, _), row in rows.items() if prefix == "tracker.*"}
    assert statuses == {"exported in layout clicks", "exported in layout previous_mask", f"left out: {MEMORY}"}
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
    extra = (f"{VISION}trunk.model.student_trunk.extra.weight", "tracker.sam_mask_decoder.extra.weight")
    broken |= {name: torch.ones(2) for name in extra}
    save_file({key: tensor.contiguous().clone() for key, tensor in broken.items()}, tmp_path / "x.safetensors")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, config, tmp_path / "x.safetensors")
    assert "missing: vision_encoder.head.0.weight" in str(caught.value)
    assert all(f"unexpected: {name}" in str(caught.value) for name in extra)


@pytest.mark.parametrize("trunk", variants.TRUNKS)
@pytest.mark.parametrize(("text", "context"), [("MobileCLIP-S0", 16), ("MobileCLIP-S1", 77), ("MobileCLIP2-L", 32)])
def test_the_config_of_a_published_file_follows_from_its_shapes(trunk, text, context):
    given = {"trunk": trunk, "text_config": {"name": text, "max_position_embeddings": context}}
    complete = modules.complete_config({"model_type": "efficientsam3", **given})
    parts = (modules.skeleton(name, complete) for name in ("vision_encoder", "text_encoder"))
    shapes = {key: tuple(tensor.shape) for part in parts for key, tensor in part.state_dict().items()}
    found = variants.official_config(shapes)
    assert variants.trunk_of(found["trunk"]) == variants.trunk_of(trunk)
    assert variants.text_config_of(found["text_config"]) == variants.text_config_of(given["text_config"])


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
        ({"tracker_config": 5}, "tracker_config should be an object, but is 5"),
        ({"tracker_config": {"mask_config": {}}}, "unknown key 'tracker_config.mask_config'; did you mean 'mask_dec"),
        ({"tracker_config": {"mask_decoder_config": {"hidden_size": 64}}}, "hidden_size should be 256 for the other"),
        ({"vision_config": {"fpn_hidden_size": 64}}, "fpn_hidden_size should be 256 for the other sizes, but is 64"),
        ({"detr_decoder_config": {"num_queries": "many"}}, "no EfficientSAM3 can be made of detr_decoder_config"),
    ],
)
def test_a_config_that_is_wrong_is_one_message(config, message):
    given = {"model_type": "efficientsam3", "trunk": "repvit_m0_9", "text_config": "MobileCLIP-S0"} | config
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(BuildError, match=re.escape(message)):
        modules.complete_config(given)


def test_the_names_that_the_recordings_used_are_those_that_files_are_read_by(state):
    assert key_map.translate(f"{TRUNK}backbone.model.features.0.0.c.weight", IMAGE_MODEL.sections) in state
    assert key_map.translate(f"{TRUNK}student_trunk.head.3.bias", IMAGE_MODEL.sections) in state
    assert key_map.translate(f"{LANGUAGE}projector.weight", IMAGE_MODEL.sections) in state
