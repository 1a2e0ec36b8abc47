"""Checkpoint, samples and reference: what they write, and what a change of their inputs changes."""

from __future__ import annotations

import json
import subprocess
import sys

import miniature
import numpy as np
import pytest
import sam3_weights as weights
import torch
from miniature import CONFIG, SCENES, SOURCE, TOKENIZER, WEIGHTS
from safetensors.torch import load_file, save_file

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.stages import checkpoint, export, reference, samples, verify
from sam3_build.weights import hub

FAMILY = registry.family("sam3_image")
COMPONENTS = [c.name for c in FAMILY.components]
SAMPLES = [
    {"number": 0, "pictures": ["image0"], "prompts": {"text": "red circle"}},
    {"number": 1, "pictures": ["image1"], "prompts": {"boxes": [{"label": 1, "x": 40, "y": 40, "w": 30, "h": 30}]}},
]


def make_samples(which, out, given=SAMPLES):
    out.mkdir()
    of = {"family": "sam3_image", "layout": "v1", "pipeline": "image"}
    params = {**of, "reference": which, "samples": given, "padding": 1}
    files = {"tokenizer": TOKENIZER, "image0": SCENES / "scene1.png", "image1": SCENES / "scene2.png"}
    samples.run(params, {"config": miniature.folder("checkpoint") / "config.json", **files}, out)
    return out


@pytest.fixture(scope="module")
def meta():
    """Component -> its reference in the default manifest, whose three samples are fed as Meta's code does."""
    return {component: miniature.folder(f"reference:{component}") for component in COMPONENTS}


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """Component -> its reference for two samples that are fed as transformers does."""
    root = tmp_path_factory.mktemp("hf")
    folders = {"samples": make_samples("hf", root / "samples")}
    for component in COMPONENTS:
        out = root / component
        out.mkdir()
        given = {**miniature.inputs(f"reference:{component}"), **folders}
        reference.run(miniature.params(f"reference:{component}"), given, out)
        folders[component] = out
    return folders


def read(folder, case):
    with np.load(folder / f"{case}.npz") as arrays:
        return dict(arrays)


def names(folder):
    return sorted(p.stem for p in folder.glob("*.npz"))


def test_the_checkpoint_lists_every_component_and_the_config(tmp_path):
    checkpoint.run({"family": "sam3_image", "layout": "v1", "source": SOURCE}, {"config": CONFIG}, tmp_path)
    expected = {"config.json", *(f"{c.name}.json" for c in FAMILY.components)}
    assert {p.name for p in tmp_path.iterdir()} == expected
    tensors = json.loads((tmp_path / "text_encoder.json").read_text())["tensors"]
    assert list(tensors) == sorted(tensors)
    assert tensors["text_projection.bias"]["shape"] == [64]


def test_what_a_config_says_about_its_making_does_not_matter(tmp_path):
    config = json.loads(CONFIG.read_text())
    other = {**config, "transformers_version": "9.9", "architectures": ["Sam3Model"]}
    for name, text in (("a", json.dumps(config)), ("b", json.dumps(other, indent=3))):
        (tmp_path / f"{name}.json").write_text(text)
        (tmp_path / name).mkdir()
        params = {"family": "sam3_image", "layout": "v1", "source": SOURCE}
        checkpoint.run(params, {"config": tmp_path / f"{name}.json"}, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_config_is_written_with_every_default(tmp_path):
    short = {"model_type": "sam3", "detr_decoder_config": {"num_queries": 7, "hidden_size": 256}}
    (tmp_path / "short.json").write_text(json.dumps(short))
    (tmp_path / "out").mkdir()
    inputs = {"config": tmp_path / "short.json"}
    checkpoint.run({"family": "sam3_image", "layout": "v1", "source": SOURCE}, inputs, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    dims = FAMILY.static_dims(config)
    assert (dims["image_height"], dims["image_width"], dims["num_queries"]) == (1008, 1008, 7)
    for side in ("height", "width"):
        assert [dims[f"feat_{level}_{side}"] for level in range(3)] == [288, 144, 72]


def config_with(**text):
    config = json.loads(CONFIG.read_text())
    # It stands first because the part that is to blame is sought in order, and each takes half a second.
    return json.dumps({"text_config": config.pop("text_config") | text, **config})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not JSON"),
        ("[1]", "config.json should hold a model config"),
        ("{}", "model_type should be 'sam3' or 'sam3_video', but is None"),
        (config_with(hidden_size="wide"), "can be made of text_config: .*'hidden_size' expected int, got str"),
        (config_with(num_attention_heads=7), r"hidden size \(64\) is not a multiple of the number of attention heads"),
        (config_with(hidden_act="nope"), "no Sam3Model can be made of text_config: KeyError: 'nope'"),
        (config_with(hidden_size=-64), "no Sam3Model can be made of text_config: RuntimeError: .* negative dimension"),
    ],
)
def test_a_file_that_is_no_config_is_refused(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildError, match=message):
        checkpoint.run(
            {"family": "sam3_image", "layout": "v1", "source": SOURCE},
            {"config": tmp_path / "config.json"},
            tmp_path / "out",
        )


def test_an_adapter_at_the_hub_is_not_taken_for_its_base_model(tmp_path, monkeypatch):
    names = ("adapter_config.json", "config.json", "model.safetensors")
    monkeypatch.setattr(hub, "look_up", lambda *_: hub.Snapshot("o/n", "0" * 40, names))
    source = {"hub": "o/n", "revision": "main", "tokenizer": False}
    with pytest.raises(BuildError, match=r"o/n at main holds an adapter \(adapter_config\.json\), .*merge_and_unload"):
        checkpoint.run({"family": "sam3_image", "layout": "v1", "source": source}, {}, tmp_path)


def test_samples_give_the_same_bytes_each_time(tmp_path):
    one, two = make_samples("meta", tmp_path / "one"), make_samples("meta", tmp_path / "two")
    files = sorted(p.name for p in one.iterdir())
    assert files == ["batch.npz", "cases.json", "sample0.npz", "sample1.npz"]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    assert json.loads((one / "cases.json").read_text())[-1] == {"name": "batch", "samples": [0, 1]}


def test_every_case_runs_every_component_under_meta(meta):
    for component in FAMILY.components:
        assert names(meta[component.name]) == ["batch", *(f"sample{i}" for i in range(6))]


def test_the_geometry_encoder_does_not_run_without_boxes_under_hf(hf):
    assert names(hf["geometry_encoder"]) == ["batch", "sample1"]
    assert names(hf["decoder"]) == ["batch", "batch_without_boxes", "sample0", "sample1"]


def test_a_component_that_runs_in_no_case_still_has_an_output_to_hand_on(tmp_path):
    """Only text, fed as transformers does: the decoder can be measured, the geometry encoder has nothing to run on."""
    folders = {"samples": make_samples("hf", tmp_path / "samples", SAMPLES[:1])}
    for component in COMPONENTS:
        folders[component] = tmp_path / component
        folders[component].mkdir()
        given = {**miniature.inputs(f"reference:{component}"), **folders}
        reference.run(miniature.params(f"reference:{component}"), given, folders[component])
    assert [p.name for p in folders["geometry_encoder"].iterdir()] == ["cases.json"]
    assert (folders["geometry_encoder"] / "cases.json").read_bytes() == b"[]"
    assert json.loads((folders["decoder"] / "cases.json").read_text()) == names(folders["decoder"])
    asked = {"component": "geometry_encoder", "precision": "fp32", "keep_outputs": True, "rows": 0}
    given = {"onnx": miniature.folder("precision:geometry_encoder.fp32"), "reference": folders["geometry_encoder"]}
    with pytest.raises(BuildError, match="no recorded case runs 'geometry_encoder'"):
        verify.run(asked, given, tmp_path)


def test_a_record_has_the_inputs_and_outputs_of_the_contract(meta):
    for component in FAMILY.components:
        arrays = read(meta[component.name], "batch")
        for prefix, tensors in (("inputs", component.inputs), ("outputs", component.outputs)):
            assert {n for n in arrays if n.startswith(prefix)} == {f"{prefix}/{t.name}" for t in tensors}
            assert all(arrays[f"{prefix}/{t.name}"].dtype == t.dtype for t in tensors)
            assert all(arrays[f"{prefix}/{t.name}"].ndim == len(t.dims) for t in tensors)


def test_text_comes_before_geometry_in_the_prompt(meta, hf):
    prompt = read(meta["decoder"], "sample0")["inputs/prompt_features"]
    np.testing.assert_array_equal(prompt[:, :32], read(meta["text_encoder"], "sample0")["outputs/text_features"])
    np.testing.assert_array_equal(
        prompt[:, 32:], read(meta["geometry_encoder"], "sample0")["outputs/geometry_features"]
    )
    assert prompt.shape[1] == 34
    assert read(hf["decoder"], "sample0")["inputs/prompt_features"].shape[1] == 32


def test_a_fed_input_is_what_the_upstream_component_gave(meta):
    np.testing.assert_array_equal(
        read(meta["decoder"], "batch")["inputs/fpn_feat_0"], read(meta["vision_encoder"], "batch")["outputs/fpn_feat_0"]
    )


def test_recorded_inputs_have_what_parity_must_see(meta):
    """Masked rows, ignored and negative boxes, a prompt without boxes, batches."""
    batch = read(meta["decoder"], "batch")
    assert batch["inputs/prompt_mask"].shape[0] > 1
    assert not batch["inputs/prompt_mask"].all() and batch["inputs/prompt_mask"][:, -1].all()
    labels = read(meta["geometry_encoder"], "batch")["inputs/input_boxes_labels"]
    assert {-10, 0, 1} == set(labels.ravel().tolist())


def test_outputs_are_finite_and_not_flat(meta):
    for component in FAMILY.components:
        for name, array in read(meta[component.name], "batch").items():
            if name.startswith("outputs") and array.dtype != bool:
                assert np.isfinite(array).all() and array.std() > 0.01, name


def test_a_reference_that_is_not_finite_is_refused_by_case_and_output(tmp_path):
    state = load_file(WEIGHTS)
    state["text_projection.weight"] = state["text_projection.weight"].index_fill(0, torch.tensor([5]), 3e38)
    save_file(state, tmp_path / "model.safetensors")
    for name in ("checkpoint", "out"):
        (tmp_path / name).mkdir()
    params = {"family": "sam3_image", "layout": "v1", "source": {"path": True}}
    given = {"config": CONFIG, "weights": tmp_path / "model.safetensors"}
    checkpoint.run(params, given, tmp_path / "checkpoint")
    with pytest.raises(BuildError, match=r"case 'sample0': .* gives 32 NaN .* \(of 2048\) in 'text_features'"):
        run_on(reference, "text_encoder", tmp_path, "model.safetensors", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# ------------------------------------------------------------------ weights that are not those that were listed


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A weights file, its inventory, and the same file after one tensor of the text encoder was trained."""
    root = tmp_path_factory.mktemp("weights")
    config = json.loads(CONFIG.read_text())
    inventory = weights.inventory(SOURCE, config, None)
    held = {k: t for c in COMPONENTS for k, t in weights.load(c, SOURCE, config, None, inventory[c]).items()}
    state = {k: held.get(k, torch.zeros(shape)) for k, shape in weights.whole_model(config).items()}
    save_file(state, root / "model.safetensors")
    save_file({**state, "text_projection.bias": state["text_projection.bias"] + 1}, root / "tuned.safetensors")
    (root / "checkpoint").mkdir()
    params = {"family": "sam3_image", "layout": "v1", "source": {"path": True}}
    checkpoint.run(params, {"config": CONFIG, "weights": root / "model.safetensors"}, root / "checkpoint")
    return root


def run_on(stage, component, listed, file, out):
    name = stage.STAGE.name
    tensors = listed / "checkpoint" / f"{component}.json"
    given = {**miniature.inputs(f"{name}:{component}"), "tensors": tensors, "weights": listed / file}
    stage.run({**miniature.params(f"{name}:{component}"), "source": {"path": True}}, given, out)


@pytest.mark.parametrize("stage", [reference, export], ids=["reference", "export"])
def test_weights_that_changed_after_they_were_listed_are_refused_by_tensor(stage, listed, tmp_path):
    message = r"tuned\.safetensors changed after .* listed its tensors: text_projection\.bias; run the build again"
    with pytest.raises(BuildError, match=message):
        run_on(stage, "text_encoder", listed, "tuned.safetensors", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_component_may_change_after_they_were_listed(listed, tmp_path):
    run_on(reference, "vision_encoder", listed, "tuned.safetensors", tmp_path)
    assert names(tmp_path) == names(miniature.folder("reference:vision_encoder"))


@pytest.mark.ci
def test_weights_from_a_file_give_the_bytes_that_the_same_weights_from_a_seed_give(listed, tmp_path):
    for name in ("file", "seed"):
        (tmp_path / name).mkdir()
    run_on(export, "text_encoder", listed, "model.safetensors", tmp_path / "file")
    export.run(*seeded(0, tmp_path), tmp_path / "seed")
    found = [(tmp_path / name / "text_encoder.onnx").read_bytes() for name in ("file", "seed")]
    assert found[0] == found[1]


def seeded(seed, folder):
    """Return params and inputs of the text encoder's export from random weights, listed in `folder` as of seed 0."""
    (folder / "listed").mkdir()
    checkpoint.run({"family": "sam3_image", "layout": "v1", "source": SOURCE}, {"config": CONFIG}, folder / "listed")
    given = {**miniature.inputs("export:text_encoder"), "tensors": folder / "listed" / "text_encoder.json"}
    del given["weights"]
    return {**miniature.params("export:text_encoder"), "source": {"random": {"seed": seed}}}, given


def test_another_seed_than_the_one_that_was_listed_is_refused(tmp_path):
    with pytest.raises(BuildError, match="seed 1 changed after the checkpoint action listed its tensors"):
        export.run(*seeded(1, tmp_path), tmp_path)


@pytest.mark.slow
def test_the_whole_build_passes_when_prompts_are_fed_as_transformers_does(tmp_path):
    """Under `hf` the geometry encoder has no cases without boxes; the exports are those of the default manifest."""
    manifest = tmp_path / "sam3_mini_hf.yaml"
    manifest.write_text(f"extends: {miniature.ROOT / 'manifests' / 'sam3_mini.yaml'}\nreference: hf\n")
    for command in ("verify", "clean"):
        argv = [sys.executable, "-m", "doit", f"manifest={manifest}", command]
        done = subprocess.run(argv, cwd=miniature.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert command == "clean" or "34 passed, 0 failed" in done.stdout
