"""Pictures of other sizes, also not square: dims, positions, preprocessing, and what a manifest may ask for.

Against transformers' whole model: test_sam3_sizes_onnx.py.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from miniature import CONFIG, ROOT, SCENES, TOKENIZER
from PIL import Image
from sam3_cases import cases_of

from sam3_build import registry
from sam3_build.errors import ManifestError
from sam3_build.families.sam3_image.config import complete_config, sam3_config
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.manifest.load import load
from sam3_build.plan.make import make_plan
from sam3_build.stages import checkpoint
from sam3_build.torch_modules.sam3 import modeling


def resized(config, size):
    assert FAMILY.resized is not None
    return FAMILY.resized(config, size)


@pytest.mark.parametrize("size", [(168, 168), (644, 644), (560, 1008), (1008, 560)])
def test_every_level_has_the_sides_of_the_patch_grid_times_a_power_of_two(config, size):
    dims = FAMILY.static_dims(resized(config, size))
    for axis, side in zip(("height", "width"), size, strict=True):
        assert dims[f"image_{axis}"] == side
        assert [dims[f"feat_{level}_{axis}"] for level in range(3)] == [4 * side // 14, 2 * side // 14, side // 14]


def test_a_square_is_one_number_and_the_size_that_a_config_has_changes_nothing(config):
    assert resized(config, (168, 168)) == config
    assert resized(config, (644, 644))["vision_config"]["backbone_config"]["image_size"] == 644


def test_transformers_reads_a_pair_as_width_and_height_and_the_config_is_written_so():
    """What it makes of the pair in the other order has as many positions, and they are wrong: nothing else says so."""

    def second_row(image_size):
        backbone = {"model_type": "sam3_vit_model", "image_size": image_size}
        config = {"model_type": "sam3", "vision_config": {"backbone_config": backbone}}
        backbone = sam3_config(config).vision_config.backbone_config
        positions = modeling().Sam3ViTLayer.precompute_positions(backbone, 0)
        assert positions.shape == (40 * 72, 2)
        return positions[72].tolist()  # x and y of row 1, column 0, in windows of 24

    written = resized({}, (560, 1008))["vision_config"]["backbone_config"]["image_size"]
    assert written == [1008, 560]
    assert second_row(written) == pytest.approx([0, 24 / 72])
    assert second_row([560, 1008]) == pytest.approx([32 * 24 / 40, 24 / 40])


def test_a_config_of_another_size_is_complete(config):
    complete = complete_config(config)
    assert complete_config(resized(complete, (560, 1008))) == resized(complete, (560, 1008))


def test_a_picture_is_squashed_to_height_and_width_and_boxes_do_not_notice(config):
    sample = {"image": "p", "text": "star", "boxes": [{"label": 1, "xywh": (40, 20, 30, 60)}]}
    square, wide = (
        cases_of("meta", [sample], TOKENIZER, {"p": SCENES / "scene1.png"}, resized(config, size))[0].arrays
        for size in ((168, 168), (56, 112))
    )
    assert wide["images"].shape == (1, 3, 56, 112)
    with Image.open(SCENES / "scene1.png") as picture:
        small = np.asarray(picture.convert("RGB").resize((112, 56), Image.Resampling.BILINEAR), np.float64)
    np.testing.assert_allclose(wide["images"][0], small.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert all(np.array_equal(square[name], wide[name]) for name in square if name != "images")


# ------------------------------------------------------------------ manifests


def written(folder, text):
    path = folder / "m.yaml"
    path.write_text(f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n{text}\n")
    return load(str(path), ROOT)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("170", "is 170, no multiple of patch_size, 14; nearest: 168, 182"),
        ("[560, 1000]", "width is 1000, no multiple of patch_size, 14; nearest: 994, 1008"),
        (
            "[9, 1000]",
            "height is 9, no multiple of patch_size, 14; nearest: 14; "
            "width is 1000, no multiple of patch_size, 14; nearest: 994, 1008",
        ),
        ("[560]", "must be one integer (a square) or [height, width] in pixels, found the list [560]"),
        ("wide", "must be one integer (a square) or [height, width] in pixels, found the string 'wide'"),
        ("0", "must be one integer (a square) or [height, width] in pixels, found the number 0"),
    ],
)
def test_a_size_that_cannot_be_is_an_error_of_the_manifest(given, says, tmp_path):
    with pytest.raises(ManifestError) as caught:
        written(tmp_path, f"image_size: {given}")
    (problem,) = caught.value.problems
    assert problem.endswith(f"m.yaml:2: image_size: {says}")


def test_a_size_is_judged_before_the_model_is_downloaded(tmp_path):
    with pytest.raises(ManifestError, match=r"image_size: is 650, no multiple of patch_size, 14; nearest: 644, 658"):
        written(tmp_path, "checkpoint: {path: null, hub: facebook/sam3}\nimage_size: 650")


def test_only_the_checkpoint_action_is_told_of_the_size_and_all_others_read_its_config(tmp_path):
    before, after = make_plan(written(tmp_path, "")), make_plan(written(tmp_path, "image_size: [56, 112]"))
    changed = [a.name for a, b in zip(before.actions, after.actions, strict=True) if a != b]
    assert changed == ["checkpoint"]
    readers = {a.stage for a in after.actions if any(i.file == "config.json" for i in a.inputs.values())}
    assert readers >= {"samples", "reference", "export", "model"}


def test_the_checkpoint_action_writes_the_size_and_the_same_inventory(tmp_path):
    configs, inventories = [], []
    for size in (None, [56, 112]):
        out = tmp_path / f"{size}"
        out.mkdir()
        document = {"family": "sam3_image", "layout": "two_files", "source": {"random": {"seed": 0}}}
        checkpoint.run({**document, **({"image_size": size} if size else {})}, {"config": CONFIG}, out)
        configs.append(json.loads((out / "config.json").read_bytes()))
        inventories.append({p.name: p.read_bytes() for p in out.iterdir() if p.name != "config.json"})
    assert inventories[0] == inventories[1] and set(inventories[0]) == {"vision_encoder.json", "detector.json"}
    assert FAMILY.static_dims(configs[0])["image_width"] == 168
    dims = FAMILY.static_dims(configs[1])
    assert (dims["image_height"], dims["image_width"]) == (56, 112)


def test_a_family_of_one_size_refuses_another(monkeypatch, tmp_path):
    fixed = replace(FAMILY, resized=None)
    monkeypatch.setattr(registry, "family", lambda name: fixed)
    with pytest.raises(ManifestError, match=r"m\.yaml:2: image_size: family 'sam3_image' has one size of pictures"):
        written(tmp_path, "image_size: 644")
