"""Checkpoints by other names: Meta's sam3.pt, transformers' video model, several files, other models, broken files."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import sam3_weights as weights
import torch
from roi_align_oracle import roi_align
from safetensors.torch import save_file
from sam3_official import official_names, to_official, to_official_3_1

from sam3_build.commands.inspect import describe, render
from sam3_build.errors import BuildError
from sam3_build.families.sam3_image.config import sam3_config
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.families.sam3_image.keys import KEYS
from sam3_build.torch_modules.sam3 import modeling
from sam3_build.weights import key_map
from sam3_build.weights.tensors import FileTensor, contiguous, read_tensor

pytestmark = pytest.mark.ci

PATH = {"path": True}


@pytest.fixture(scope="module")
def state(config):
    """A whole Sam3Model's state dict; no two tensors are alike, biases included."""
    generator = torch.Generator().manual_seed(1)
    shapes = weights.whole_model(config)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def official(state):
    return to_official(state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, state, official):
    """The same weights as one safetensors file and as sam3.pt."""
    root = tmp_path_factory.mktemp("weights")
    save_file(state, root / "model.safetensors")
    torch.save({"model": official}, root / "sam3.pt")
    return root


@pytest.fixture
def pooling(monkeypatch):
    """Let transformers pool with the operator's definition, as ONNX Runtime implements it; torchvision is not here."""
    fake = SimpleNamespace(ops=SimpleNamespace(roi_align=lambda f, boxes, size: roi_align(f, torch.stack(boxes), size)))
    monkeypatch.setattr(modeling(), "torchvision", fake, raising=False)


def whole(path):
    """Return every tensor of a checkpoint by Sam3Model's names."""
    return {key: read_tensor(tensor)[0] for key, tensor in weights.read(path).tensors.items()}


# ------------------------------------------------------------------ sam3.pt


def test_every_tensor_of_the_official_file_has_its_place_in_transformers_sam3(tmp_path):
    """1465 names and shapes of Meta's own code against transformers' model at full size."""
    names = official_names()
    assert len(names) == 1465
    stored = {key: FileTensor(tmp_path, "F32", shape, 0, contiguous(shape)) for key, shape in names.items()}
    form = key_map.recognise(names, KEYS)
    assert form.title == "official SAM 3 or 3.1" and key_map.other_model(names, KEYS) is None
    renamed = key_map.rename(stored, form, KEYS.tied)
    assert {key: tensor.shape for key, tensor in renamed.tensors.items()} == weights.whole_model({"model_type": "sam3"})
    assert renamed.unknown == ()
    detector = [key for key in renamed.left_out if key.startswith("detector.")]
    exceptions = [re.sub(r"\.\d+\.", ".N.", key) for key in detector if "sam2_convs" not in key]
    assert exceptions.count("detector.backbone.vision_backbone.trunk.blocks.N.attn.freqs_cis") == 32
    assert len([key for key in exceptions if ".points_" in key]) == 6
    assert len(exceptions) == 38


def test_the_hand_made_official_file_has_the_names_that_the_real_one_has(official):
    def kinds(names):
        return {re.sub(r"\.\d+\.", ".N.", name) for name in names if name.startswith("detector.")}

    real, made = kinds(official_names()), kinds(official)
    assert made <= real
    assert {name for name in real - made if "sam2_convs" not in name} == set()


@pytest.mark.usefixtures("pooling")
def test_sam3_pt_is_the_model_that_it_was_made_of(folder, config, state):
    """Joined projections come apart as q, k and v, in this order: the whole model computes what it did."""
    loaded = whole(folder / "sam3.pt")
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())
    outputs = []
    for tensors in (state, loaded):
        model = modeling().Sam3Model(sam3_config(config)).eval()
        model.load_state_dict(tensors)
        size = FAMILY.static_dims(config)["image_height"]
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(
                model(
                    pixel_values=torch.randn(1, 3, size, size),
                    input_ids=torch.arange(32)[None] % 40,
                    attention_mask=torch.ones(1, 32, dtype=torch.int64),
                    input_boxes=torch.tensor([[[0.5, 0.5, 0.3, 0.4]]]),
                    input_boxes_labels=torch.tensor([[1]]),
                )
            )
    for name in ("pred_masks", "pred_boxes", "pred_logits", "presence_logits"):
        assert torch.equal(outputs[0][name], outputs[1][name]) and outputs[0][name].abs().max() > 0


def test_sam3_pt_and_safetensors_of_the_same_weights_have_one_inventory(folder, config):
    ours = weights.inventory(PATH, config, folder / "model.safetensors")
    assert weights.inventory(PATH, config, folder / "sam3.pt") == ours
    tensors = weights.load("decoder", PATH, config, folder / "sam3.pt", ours["decoder"])
    assert set(tensors) == set(ours["decoder"])


def test_of_sam_3_1_the_detector_is_loaded_and_its_tracker_named_as_left_out(state, config, tmp_path, folder, caplog):
    torch.save(to_official_3_1(state), tmp_path / "sam3.1_multiplex.pt")
    listed = weights.inventory(PATH, config, tmp_path / "sam3.1_multiplex.pt")
    assert listed == weights.inventory(PATH, config, folder / "sam3.pt")
    with caplog.at_level("INFO"):
        facts = weights.describe(PATH, tmp_path / "sam3.1_multiplex.pt")
    parts = {"tracker.model.*, no part of this model": 6, "the tracker's neck": 12, "point prompts": 6}
    assert facts["left_out_parts"] == parts
    assert "left out 6 tensors: tracker.model.*, no part of this model" in caplog.text
    described = describe(tmp_path)
    assert described["left_out_parts"] == parts and described["unexpected"] == 0


def test_sam_3_1_is_loaded_strictly(state, config, tmp_path):
    damaged = to_official_3_1(state)
    del damaged["detector.dot_prod_scoring.hs_proj.weight"]
    damaged["detector.backbone.vision_backbone.other_convs.0.conv_1x1.bias"] = torch.ones(3)
    torch.save(damaged, tmp_path / "odd.pt")
    with pytest.raises(BuildError) as caught:
        weights.inventory(PATH, config, tmp_path / "odd.pt")
    assert "missing: dot_product_scoring.query_proj.weight" in str(caught.value)
    assert "unexpected: detector.backbone.vision_backbone.other_convs.0.conv_1x1.bias" in str(caught.value)


@pytest.mark.parametrize("prefix", ["detector.", ""])
def test_a_state_dict_may_lie_bare_in_its_file_and_be_that_of_the_image_model(state, config, tmp_path, prefix, folder):
    torch.save(to_official(state, prefix), tmp_path / "bare.pth")
    listed = weights.inventory(PATH, config, tmp_path / "bare.pth")
    assert listed == weights.inventory(PATH, config, folder / "model.safetensors")


def test_tensors_that_lie_out_of_order_are_read_in_order(state, config, tmp_path, folder):
    turned = {key: t.T.contiguous().T if t.ndim == 2 else t for key, t in state.items()}
    torch.save(turned, tmp_path / "turned.pt")
    assert weights.inventory(PATH, config, tmp_path / "turned.pt") == weights.inventory(
        PATH, config, folder / "model.safetensors"
    )


def test_half_precision_in_a_pt_is_read_as_fp32_and_listed_as_it_is(official, config, tmp_path):
    torch.save({key: t.half() if t.is_floating_point() else t for key, t in official.items()}, tmp_path / "half.pt")
    listed = weights.inventory(PATH, config, tmp_path / "half.pt")
    assert {line["dtype"] for line in listed["text_encoder"].values()} == {"float16"}
    tensors = weights.load("text_encoder", PATH, config, tmp_path / "half.pt", listed["text_encoder"])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_what_lacks_what_is_too_many_and_what_has_the_wrong_shape_is_listed_by_kind(official, config, tmp_path):
    wrong = {key: t for key, t in official.items() if not key.startswith("detector.dot_prod_scoring.hs_proj.")}
    wrong["detector.segmentation_head.another_head.weight"] = torch.ones(2)
    wrong["detector.geometry_encoder.points_extra_project.weight"] = torch.ones(2)
    wrong["another_module.weight"] = torch.ones(2)
    key = "detector.transformer.encoder.layers.0.self_attn.in_proj_weight"
    wrong[key] = wrong[key][:, :-1]
    wrong["detector.transformer.encoder.layers.0.self_attn.in_proj_bias"] = torch.ones(194)
    torch.save(wrong, tmp_path / "half_matching.pt")
    with pytest.raises(BuildError) as caught:
        weights.inventory(PATH, config, tmp_path / "half_matching.pt")
    attention = "detr_encoder.layers.0.self_attn"
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("half_matching.pt (official SAM 3 or 3.1) does not hold the weights of")
    assert "  missing: dot_product_scoring.query_proj.weight [64, 64]" in lines
    assert f"  missing: {attention}.q_proj.bias [64]" in lines
    assert f"  shape: {attention}.v_proj.weight (of {key}) is [64, 63], the config asks for [64, 64]" in lines
    assert [line for line in lines if line.startswith("  unexpected")] == [
        "  unexpected: another_module.weight",
        "  unexpected: detector.geometry_encoder.points_extra_project.weight",
        "  unexpected: detector.segmentation_head.another_head.weight",
        "  unexpected: detector.transformer.encoder.layers.0.self_attn.in_proj_bias",
    ]


# ------------------------------------------------------------------ other models


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (["detector.backbone.vision_backbone.trunk.model.backbone.model.features.0.c.weight"], "EfficientSAM3"),
        (["image_encoder.trunk.pos_embed", "memory_attention.layers.0.norm1.weight"], "SAM 2"),
        (["image_encoder.trunk.body.layer0.weight", "sam_mask_decoder.x"], "EdgeTAM"),
        (["vision_encoder.backbone.blocks.0.attn.qkv.weight"], "SAM 2"),
        (["image_encoder.patch_embed.proj.weight", "mask_decoder.transformer.x"], "SAM (the first)"),
        (["detector_model.text_encoder.layers.0.fc1.weight"], "SAM 3 LiteText"),
        (["base_model.model.detr_encoder.layers.0.lora_A.weight"], "LoRA"),
        (["tracker.maskmem_tpos_enc"], "no tensor of SAM 3's image model: its names are tracker.maskmem_tpos_enc.*"),
        (["tracker.model.no_obj_ptr"], "no tensor of SAM 3's image model: its names are tracker.model.*"),
    ],
)
def test_another_model_is_refused_by_what_it_is(keys, what, tmp_path, config):
    torch.save({key: torch.ones(2) for key in keys}, tmp_path / "other.pt")
    with pytest.raises(BuildError) as caught:
        weights.inventory(PATH, config, tmp_path / "other.pt")
    assert f"other.pt holds {what}" in str(caught.value)
    assert "expected is SAM 3's image model" in str(caught.value)


def test_the_trackers_names_are_let_pass_only_beside_a_detector(state, config, tmp_path):
    save_file({**state, "tracker_model.x": torch.ones(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(BuildError, match=r"unexpected: tracker_model\.x"):
        weights.inventory(PATH, config, tmp_path / "odd.safetensors")


# ------------------------------------------------------------------ broken files


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "a web page"),
        (b'{"error": "Access to model is restricted"}', "JSON, probably a server's refusal"),
    ],
)
def test_what_a_failed_download_left_is_called_so(name, content, what, tmp_path, config):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BuildError, match=rf"{re.escape(name)} is {what}"):
        weights.inventory(PATH, config, tmp_path / name)


def test_a_pt_that_was_cut_short_is_refused(folder, config, tmp_path):
    data = (folder / "sam3.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(BuildError, match=r"short\.pt is cut short, or not a file that torch\.save wrote"):
        weights.inventory(PATH, config, tmp_path / "short.pt")


class Planted:
    """What weights-only loading must not build."""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": {"a": Planted()}}, "holds Python objects besides tensors"),
        (
            {"optimizer": {}, "epoch": 3},
            r"should hold a state dict, .*; it holds 'optimizer' \(dict\), 'epoch' \(int\)",
        ),
        ([1, 2], "it holds a list"),
    ],
)
def test_a_pt_that_is_no_state_dict_is_refused_without_running_it(content, says, tmp_path, config):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(BuildError, match=says):
        weights.inventory(PATH, config, tmp_path / "odd.pt")


# ------------------------------------------------------------------ inspect


def test_a_checkpoint_is_described_by_component(folder, shards, config, tmp_path):
    listed = weights.inventory(PATH, config, folder / "model.safetensors")
    several, metas = describe(shards), describe(folder / "sam3.pt")
    assert several["format"] == "transformers' Sam3Model" and metas["format"] == "official SAM 3 or 3.1"
    assert several["components"] == metas["components"] == describe(folder)["components"]
    assert set(several["components"]) == set(listed)
    text = several["components"]["text_encoder"]
    assert text["bytes"] == 4 * text["parameters"] and text["dtypes"] == "F32"
    assert text["tensors"] >= len(listed["text_encoder"])
    assert len(several["files"]) == 4
    assert "text_encoder      tensors" in render(several)
    cache = tmp_path / "models--org--sam3"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "snapshots" / "abc").symlink_to(folder)
    assert describe(cache)["components"] == several["components"]
    (tmp_path / "none").mkdir()
    torch.save({"tracker.model.x": torch.ones(2)}, tmp_path / "other.pt")
    for path, says in (
        (tmp_path / "other.pt", "other.pt holds no tensor of SAM 3's image model: its names are tracker.model.*"),
        (tmp_path / "none", "holds none of model.safetensors"),
    ):
        with pytest.raises(BuildError, match=says):
            describe(path)


# ------------------------------------------------------------------ several files, and the video model


@pytest.fixture
def shards(tmp_path, state):
    """The weights in three files with an index, as transformers writes a large model."""
    keys = sorted(state)
    thirds = {f"model-0000{n + 1}-of-00003.safetensors": keys[n::3] for n in range(3)}
    for name, mine in thirds.items():
        save_file({key: state[key] for key in mine}, tmp_path / name)
    index = {"metadata": {}, "weight_map": {key: name for name, mine in thirds.items() for key in mine}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def change_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))
    return path


def test_several_files_have_the_inventory_of_one(shards, folder, config):
    one = weights.inventory(PATH, config, folder / "model.safetensors")
    assert weights.inventory(PATH, config, shards / "model.safetensors.index.json") == one


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda m: m.update({"text_projection.gone": m["text_projection.bias"]}),
            "names tensors that are not there: tex",
        ),
        (lambda m: m.pop("text_projection.bias"), "does not name all tensors: text_projection.bias of model-0000"),
        (lambda m: m.update({"text_projection.bias": "../up.safetensors"}), "all its files must lie beside it"),
        (lambda m: m.update({"text_projection.bias": "/tmp/up.safetensors"}), "all its files must lie beside it"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(shards, config, change, says):
    path = change_index(shards, change)
    with pytest.raises(BuildError, match=says):
        weights.inventory(PATH, config, path)


def test_an_index_that_is_none_is_refused(tmp_path, config):
    (tmp_path / "model.safetensors.index.json").write_text('{"weights": {}}')
    with pytest.raises(BuildError, match="is not an index of safetensors files: it has no 'weight_map'"):
        weights.inventory(PATH, config, tmp_path / "model.safetensors.index.json")


@pytest.fixture(scope="module")
def video(tmp_path_factory, config, state):
    """What Sam3VideoModel.save_pretrained writes, in several files, with a data type in its config."""
    from transformers import Sam3VideoConfig
    from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import Sam3TrackerVideoConfig
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    folder = tmp_path_factory.mktemp("video")
    detector = {key: value for key, value in config.items() if key not in ("transformers_version", "architectures")}
    tracker = Sam3TrackerVideoConfig(vision_config=config["vision_config"]).to_dict()
    model = Sam3VideoModel(Sam3VideoConfig(detector_config=detector, tracker_config=tracker))
    model.detector_model.load_state_dict(state)
    model.save_pretrained(folder, max_shard_size="20MB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    written = json.loads((folder / "config.json").read_text())
    assert written["model_type"] == "sam3_video" and written["dtype"] == "float32"
    return folder


def test_transformers_video_model_holds_the_image_model(video, folder, config):
    listed = weights.inventory(PATH, config, video / "model.safetensors.index.json")
    assert listed == weights.inventory(PATH, config, folder / "model.safetensors")


def test_the_config_of_the_video_model_is_that_of_its_detector(video, config):
    written = json.loads((video / "config.json").read_text())
    assert weights.complete_config(written) == weights.complete_config(config)


def test_a_video_config_without_a_detector_is_refused():
    with pytest.raises(BuildError, match=r"is 'sam3_video' \(and has no detector_config\)"):
        weights.complete_config({"model_type": "sam3_video"})
