"""SAM 1 against what Meta's own code computed at random weights (`record.py`); and the checkpoints that are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from build_space import ROOT
from drawn import drawn_picture
from PIL import Image

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.families.sam1.family import config_of
from sam3_build.families.sam1.keys import FREQUENCIES, KEYS, SHARED
from sam3_build.families.sam1.modules import modeling, sam_config
from sam3_build.families.sam1.prompts import MEAN, STD, picture_arrays, prompt_arrays
from sam3_build.families.sam1.results import find, full_size
from sam3_build.pipeline import images
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights import checkpoint_file, key_map
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load
from sam3_build.weights.tensors import FileTensor, contiguous, read_tensor

CODE = registry.family_code("sam1")
PATH = {"path": True}
PHOTOGRAPHS = sorted((ROOT.parent / "shared" / "data" / "images").glob("*.jpg"))
LAYOUTS = ("multi", "single", "stability")


@pytest.fixture(scope="module")
def recorded():
    return official.record()


@pytest.fixture(scope="module")
def config():
    return CODE.modules.complete_config(official.CONFIG)


@pytest.fixture(scope="module")
def state(recorded):
    """Meta's state dict."""
    drawn = official.weights(official.shapes(recorded))
    return {name: torch.from_numpy(array) for name, array in drawn.items()}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "sam_small.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def network(file, config):
    """Return a function that gives a network with the weights of the file."""

    def made(name):
        layout, _, reference = name.partition("_as_")
        layout = layout if reference else "multi"
        component = "mask_decoder" if reference else name
        listed = inventory(CODE, PATH, config, file, layout)[component]
        return assemble(CODE.modules, name, config, load(CODE, name, PATH, config, file, listed))

    return made


def error(found, expected):
    """Return the largest difference, as a share of the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def decoded(network, layout, recorded, name):
    given = {"image_embeddings": recorded["image_embeddings"], **official.inputs(name)}
    return compute(network, given, ["iou_predictions", "low_res_masks"])


# ------------------------------------------------------------------ parity


def test_pictures_are_prepared_to_the_last_bit(recorded, config):
    for height, width in official.PICTURES:
        pixels = picture_arrays(drawn_picture(height, width), config)["images"]
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == str(recorded[f"pixels/{height}x{width}"])


@pytest.mark.skipif(not PHOTOGRAPHS, reason="no ../shared/data/images beside the checkout")
@pytest.mark.parametrize("number", range(3))
def test_photographs_are_prepared_as_metas_formula_says(number):
    """`ResizeLongestSide.apply_image` and `Sam.preprocess`, written out."""
    picture = images.read(PHOTOGRAPHS[number])
    scale = 1024 / max(picture.size)
    size = tuple(int(side * scale + 0.5) for side in picture.size)
    pixels = torch.from_numpy(np.array(picture.resize(size, Image.Resampling.BILINEAR))).permute(2, 0, 1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    expected = torch.nn.functional.pad((pixels - mean) / std, (0, 1024 - size[0], 0, 1024 - size[1]))
    assert (picture_arrays(picture, {})["images"][0] == expected.numpy()).all()


def test_points_are_brought_to_the_padded_picture(recorded, config):
    request = PromptRequest("multi", "interactive", "meta", (), None, {}, config)
    for size in official.PICTURES:
        prompt = ObjectPrompts((Point(1, 3.5, 7.25), Point(0, size[1] - 1, size[0] - 1)))
        given = prompt_arrays(request, [prompt], size)
        np.testing.assert_allclose(given["point_coords"][0, :2], recorded[f"points/{size[0]}x{size[1]}"], rtol=1e-6)
        assert given["point_coords"][0, 2].tolist() == [0, 0] and given["point_labels"].tolist() == [[1, 0, -1]]


def test_a_box_takes_the_place_of_the_point_that_is_none(config):
    request = PromptRequest("multi", "interactive", "meta", (), None, {}, config)
    given = prompt_arrays(request, [ObjectPrompts((Point(1, 5, 6),), (Box(1, 1, 2, 3, 4),))], (96, 96))
    assert given["point_coords"].tolist() == [[[5, 6], [1, 2], [4, 6]]]
    assert given["point_labels"].tolist() == [[1, 2, 3]] and given["has_mask_input"].tolist() == [0]


def test_the_image_encoder_gives_metas_embeddings(recorded, network, config):
    pixels = picture_arrays(drawn_picture(*official.PICTURES[0]), config)["images"]
    found = compute(network("image_encoder"), {"images": pixels}, ["image_embeddings"])["image_embeddings"]
    assert error(found, recorded["image_embeddings"]) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_decoder_gives_what_metas_onnx_model_gives(recorded, network, layout):
    """For a point, two points, a box, a box and a point, a point and a mask."""
    decoder = network(f"{layout}_as_meta")
    for name in official.PROMPTS:
        found = decoded(decoder, layout, recorded, name)
        masks = recorded[f"multi/{name}/low_res_masks"]
        if layout == "single":
            which = int(recorded[f"single/{name}/mask"])
            masks = masks[:, which : which + 1]
        assert found["low_res_masks"].shape == masks.shape, name
        assert error(found["low_res_masks"], masks) < 1e-5, name
        assert error(found["iou_predictions"], recorded[f"{layout}/{name}/iou_predictions"]) < 1e-5, name


def test_both_kinds_of_choice_are_recorded(recorded):
    """Else the layout `single` would be held against one half of its rule."""
    taken = {name: int(recorded[f"single/{name}/mask"]) for name in official.PROMPTS}
    assert taken["two points"] == taken["box and point"] == 0 and min(taken["point"], taken["box"]) > 0


def test_transformers_epsilon_is_another_function(recorded, network):
    """Meta's layer norms have 1e-5, transformers' config says 1e-6."""
    given = {name: decoded(network(f"multi_as_{name}"), "multi", recorded, "point") for name in ("meta", "hf")}
    expected = recorded["multi/point/low_res_masks"]
    assert error(given["meta"]["low_res_masks"], expected) < 1e-5 < error(given["hf"]["low_res_masks"], expected)


def test_the_reference_hf_is_transformers_own_decoder(recorded, network, config, file):
    tensors = checkpoint_file.read(file, CODE.keys).tensors
    model = modeling().SamModel(sam_config(config)).eval()
    model.load_state_dict({name: read_tensor(tensor)[0] for name, tensor in tensors.items()}, strict=True)
    given = official.inputs("two points")
    with torch.no_grad():
        theirs = model(
            image_embeddings=torch.from_numpy(recorded["image_embeddings"]),
            input_points=torch.from_numpy(given["point_coords"][:, None, :2]),
            input_labels=torch.from_numpy(given["point_labels"][:, None, :2]),
        )
    found = decoded(network("multi_as_hf"), "multi", recorded, "two points")
    assert error(found["low_res_masks"][:, 1:], theirs.pred_masks.numpy()[:, 0]) < 1e-5
    assert error(found["iou_predictions"][:, 1:], theirs.iou_scores.numpy()[:, 0]) < 1e-5


def test_rows_of_a_batch_are_the_prompts_alone(recorded, network):
    decoder = network("single_as_meta")
    rows = ["point", "box", "point and mask"]
    alone = [decoded(decoder, "single", recorded, name) for name in rows]
    together = {key: np.concatenate([official.inputs(name)[key] for name in rows]) for key in official.inputs("box")}
    embeddings = np.repeat(recorded["image_embeddings"], 3, axis=0)
    found = compute(decoder, {"image_embeddings": embeddings, **together}, ["iou_predictions", "low_res_masks"])
    for name, array in found.items():
        assert error(array, np.concatenate([one[name] for one in alone])) < 1e-5


def test_masks_at_the_size_of_pictures_are_metas(recorded):
    """Two resizes with a crop between; one alone gives other masks."""
    which = int(recorded["single/point/mask"])
    logits = recorded["multi/point/low_res_masks"][0, which]
    for height, width in official.SIZES:
        expected = recorded[f"masks/{height}x{width}"][0, 0]
        found = full_size(logits, (height, width))
        inside, outside = found > 0, expected > 0
        assert error(found, expected) < 1e-4
        assert (inside & outside).sum() / (inside | outside).sum() >= 0.9999


def test_of_several_masks_the_best_but_for_the_first_is_taken(recorded):
    outputs = {name: recorded[f"multi/box/{name}"][0] for name in ("iou_predictions", "low_res_masks")}
    found = find(outputs, (50, 70), 0.5)
    assert found.masks.shape == (4, 50, 70) and found.chosen == int(recorded["single/box/mask"]) > 0
    one = find({name: array[:1] for name, array in outputs.items()}, (50, 70), 0.5)
    assert one.chosen == 0 and (one.masks[0] == found.masks[0]).all()


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize(("size", "count"), [("vit_b", 314), ("vit_l", 482), ("vit_h", 594)])
def test_every_tensor_of_the_official_files_has_its_place_in_transformers_model(recorded, tmp_path, size, count):
    """Names and shapes of Meta's own code at full size: nothing is missing, nothing is unexpected."""
    shapes = official.shapes(recorded, size)
    stored = {key: FileTensor(tmp_path, "F32", shape, 0, contiguous(shape)) for key, shape in shapes.items()}
    form = key_map.recognise(shapes, KEYS)
    assert form and form.title == "official SAM, sam_vit_*.pth" and key_map.other_model(shapes, KEYS) is None
    renamed = key_map.rename(stored, form, KEYS.tied)
    found = {key: tensor.shape for key, tensor in renamed.tensors.items()}
    assert found == CODE.modules.whole_model(config_of(found))
    assert renamed.unknown == () and len(shapes) - len(renamed.left_out) == count


def test_a_file_of_transformers_is_read_though_one_of_two_tied_names_is_missing(config, file, tmp_path):
    official_tensors = checkpoint_file.read(file, CODE.keys).tensors
    tensors = {name: read_tensor(tensor)[0] for name, tensor in official_tensors.items()}
    model = modeling().SamModel(sam_config(config))
    model.load_state_dict(tensors, strict=True)
    model.save_pretrained(tmp_path)
    stored = checkpoint_file.read(tmp_path / "model.safetensors", CODE.keys)
    assert stored.format.title == "transformers' SamModel"
    assert {stored.keys[name] for name in (FREQUENCIES, SHARED)} == {SHARED}
    read = CODE.modules.complete_config(json.loads((tmp_path / "config.json").read_text()))
    of_folder = inventory(CODE, PATH, read, tmp_path / "model.safetensors", "multi")
    assert of_folder == inventory(CODE, PATH, config, file, "multi")


def test_a_file_that_lacks_a_tensor_or_has_one_too_many_is_refused(config, state, tmp_path):
    torch.save({name: t for name, t in state.items() if "blocks.1.attn.rel_pos_h" not in name}, tmp_path / "less.pth")
    with pytest.raises(BuildError, match=r"missing: vision_encoder\.layers\.1\.attn\.rel_pos_h"):
        inventory(CODE, PATH, config, tmp_path / "less.pth", "multi")
    torch.save({**state, "image_encoder.blocks.9.attn.proj.bias": torch.ones(24)}, tmp_path / "more.pth")
    with pytest.raises(BuildError, match=r"unexpected: image_encoder\.blocks\.9\.attn\.proj\.bias"):
        inventory(CODE, PATH, config, tmp_path / "more.pth", "multi")


def test_mobile_sams_decoder_is_read_and_its_image_encoder_is_not(state, config, network, recorded, tmp_path):
    tiny = {
        "image_encoder.layers.1.blocks.0.attn.qkv.weight": torch.ones(6, 2),
        "image_encoder.neck.0.weight": torch.ones(2),
    }
    mobile = {name: t for name, t in state.items() if not name.startswith("image_encoder.")} | tiny
    torch.save(mobile, tmp_path / "mobile_sam.pt")
    read = checkpoint_file.read(tmp_path / "mobile_sam.pt", CODE.keys)
    assert read.format.title.startswith("MobileSAM") and read.unknown == ()
    assert {*tiny} <= {*read.left_out}
    with pytest.raises(BuildError, match="no image encoder of SAM 1; MobileSAM"):
        config_of({name: tensor.shape for name, tensor in read.tensors.items()})
    skeleton = CODE.modules.skeleton("multi_as_meta", config)
    assert {*skeleton.state_dict()} <= {*read.tensors}


def test_an_unknown_size_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(BuildError, match=r"width 7 with 1 layers is no published size \(ViT-B 768 and 12, "):
        config_of({"vision_encoder.patch_embed.projection.weight": (7, 3, 16, 16), "vision_encoder.layers.0.x": (1,)})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision_config", {"patch_size": 8}, "vision_config.patch_size should be 16 for the other sizes, but is 8"),
        ("mask_decoder_config", {"hidden_size": 64}, "mask_decoder_config.hidden_size should be 32 for the other"),
        ("vision_config", {"image_size": 100}, "prompt_encoder_config.image_size should be 100 for the other"),
        ("vision_config", {"mlp_ratoi": 3}, "vision_config.mlp_ratoi; did you mean 'mlp_ratio'"),
    ],
)
def test_a_config_of_no_sam_1_is_refused_by_its_key(part, change, message):
    changed = {**official.CONFIG, part: {**official.CONFIG[part], **change}}
    with pytest.raises(BuildError, match=message):
        CODE.modules.complete_config(changed)


def test_another_models_config_is_refused():
    with pytest.raises(BuildError, match="model_type should be 'sam', but is 'sam3'"):
        CODE.modules.complete_config({"model_type": "sam3"})


def test_the_record_is_small() -> None:
    assert Path(official.RECORD).stat().st_size < 120_000
