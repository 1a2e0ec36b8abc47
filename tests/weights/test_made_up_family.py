"""Weights of a family that is no SAM: names by its own tables, buffers that are weights, tensors that are one."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from made_up_tables import CODE, FAMILY, MODULES, TABLES
from miniature import CONFIG
from safetensors.torch import save_file

from sam3_build import registry
from sam3_build.commands.inspect import describe
from sam3_build.errors import BuildError
from sam3_build.params import ExportParams, InterfaceParams, ReferenceParams
from sam3_build.stages import checkpoint, export, reference
from sam3_build.torch_modules.assemble import arguments, assemble, compute
from sam3_build.weights import checkpoint_file, random_weights, recognise
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

SEED = {"random": {"seed": 0}}
PATH = {"path": True}


@pytest.fixture
def state():
    """Component -> its tensors by our names, drawn from a seed."""
    listed = inventory(CODE, SEED, {}, None)
    return {name: load(CODE, name, SEED, {}, None, lines) for name, lines in listed.items()}


@pytest.fixture
def authors(state):
    """The same weights as the model's authors keep them."""
    layer = "body.layers.0"
    made = {
        "net.trunk.table": torch.cat([torch.ones(1, 4), state["body"]["body.positions"]]),
        "net.trunk.units.0.qkv.weight": torch.cat([state["body"][f"{layer}.{p}.weight"] for p in "qkv"]),
        "net.trunk.units.0.bn.num_batches_tracked": torch.tensor(7),
        "net.exit.matrix": state["head"]["head.weight"].T.contiguous(),
        "net.exit.unused.weight": torch.ones(2),
        "teacher.trunk.table": torch.ones(3),
    }
    norms = {key: tensor for key, tensor in state["body"].items() if ".norm." in key}
    return made | {key.replace(f"{layer}.norm", "net.trunk.units.0.bn"): tensor for key, tensor in norms.items()}


def test_a_checkpoint_is_read_by_the_familys_own_table(state, authors, tmp_path):
    save_file(authors, tmp_path / "kite.safetensors")
    listed = inventory(CODE, PATH, {}, tmp_path / "kite.safetensors")
    for name, tensors in state.items():
        loaded = load(CODE, name, PATH, {}, tmp_path / "kite.safetensors", listed[name])
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[key], tensor) for key, tensor in tensors.items())
    found = checkpoint_file.read(tmp_path / "kite.safetensors", TABLES)
    assert found.format.title == "the kites' authors" and found.unknown == ()
    assert found.left_out == {
        "net.exit.unused.weight": "an exit that is not used",
        "net.trunk.units.0.bn.num_batches_tracked": "tables that every build computes",
        "teacher.trunk.table": "teacher.*, no part of this model",
    }
    assert found.facts()["left_out_parts"] == {"an exit that is not used": 1, "teacher.*, no part of this model": 1}


def test_other_names_than_the_familys_are_refused_by_what_they_are(tmp_path):
    save_file({"wings.left.weight": torch.ones(2)}, tmp_path / "dragon.safetensors")
    with pytest.raises(
        BuildError, match=r"holds a Dragon, .*; expected is the Kite model, as our own names, the kites"
    ):
        inventory(CODE, PATH, {}, tmp_path / "dragon.safetensors")


def test_what_a_file_lacks_and_has_too_much_is_said_in_its_own_names(authors, tmp_path):
    del authors["net.trunk.units.0.bn.running_var"]
    authors["net.trunk.more"] = torch.ones(2)
    save_file(authors, tmp_path / "kite.safetensors")
    with pytest.raises(BuildError) as caught:
        inventory(CODE, PATH, {}, tmp_path / "kite.safetensors")
    assert str(caught.value).splitlines() == [
        "kite.safetensors (the kites' authors) does not hold the weights of Kite for this config:",
        "  missing: body.layers.0.norm.running_var [4]",
        "  unexpected: net.trunk.more",
    ]


# ------------------------------------------------------------------ buffers, ties, counters


def test_buffers_that_are_kept_are_weights_and_counters_are_none(state):
    assert set(state["body"]) == {
        "body.positions",
        *(f"body.layers.0.{p}.weight" for p in "qkv"),
        *(f"body.layers.0.norm.{p}" for p in ("weight", "bias", "running_mean", "running_var")),
    }
    assert state["body"]["body.layers.0.norm.running_var"].min() > 0


@pytest.mark.parametrize("name", ["body", "head"])
def test_a_network_takes_exactly_these_weights(name, state):
    model = assemble(MODULES, name, {}, state[name])
    loaded = {key: tensor for key, tensor in model.state_dict().items() if "num_batches" not in key}
    assert loaded.keys() == state[name].keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state[name].items())
    assert not any(tensor.is_meta for tensor in (*model.buffers(), *model.parameters()))
    with pytest.raises(RuntimeError, match="Missing key"):
        assemble(MODULES, name, {}, {})


def test_a_tensor_with_two_names_is_one_in_a_file_and_one_from_a_seed(state, tmp_path):
    assert torch.equal(state["body"]["body.positions"], state["head"]["head.positions"])
    whole = state["body"] | state["head"]
    for name, absent in (("a", "head.positions"), ("b", "body.positions")):
        path = tmp_path / f"{name}.safetensors"
        save_file({key: tensor for key, tensor in whole.items() if key != absent}, path)
        listed = inventory(CODE, PATH, {}, path)
        assert listed["body"]["body.positions"] == listed["head"]["head.positions"]
        assert torch.equal(
            load(CODE, "head", PATH, {}, path, listed["head"])["head.positions"], whole["head.positions"]
        )


def test_a_familys_own_scales_go_before_the_usual_ones(state):
    assert state["body"]["body.layers.0.norm.weight"].abs().max() < 1e-2
    recipes = {recipe.key: recipe for recipe in random_weights.recipes(MODULES.skeleton("body", {}), TABLES)}
    mean = recipes["body.layers.0.norm.running_mean"]
    assert (mean.mean, mean.deviation) == (0.0, 0.1)


def test_a_table_that_nobody_computes_is_refused(monkeypatch, state):
    monkeypatch.setattr(MODULES, "compute_tables", lambda model: None)
    with pytest.raises(BuildError, match=r"body: compute_tables of its family does not compute body\.sines"):
        assemble(MODULES, "body", {}, state["body"])


# ------------------------------------------------------------------ names with dots


def run_stages(component, out):
    """Run checkpoint, reference and export of one component; return what PyTorch recorded and the ONNX."""
    for name in ("checkpoint", "samples", "reference", "export"):
        (out / name).mkdir()
    (out / "config.json").write_text("{}")
    (out / "samples/cases.json").write_text(json.dumps([{"name": "one", "samples": [0, 1, 2]}]))
    arrays = {f"maps.{i}": torch.randn(3, 5, 4).numpy() for i in range(2)}
    np.savez(out / "samples/one.npz", **arrays)
    checkpoint.run(
        {"family": "kite", "layout": "v1", "source": SEED}, {"config": out / "config.json"}, out / "checkpoint"
    )
    spec = FAMILY.component(component)
    interface = InterfaceParams(inputs=spec.inputs, outputs=spec.outputs)
    shared = {"family": "kite", "component": component, "network": component, "source": SEED, "spec": interface}
    given = {
        "config": out / "checkpoint/config.json",
        "tensors": out / f"checkpoint/{component}.json",
        "samples": out / "samples",
    }
    reference.run(ReferenceParams(**shared, feeds=()).document(), given, out / "reference")
    export.run(ExportParams(**shared, opset=20, dynamic_dims=("batch",)).document(), given, out / "export")
    with np.load(out / "reference/one.npz") as recorded:
        return arrays, dict(recorded), out / f"export/{component}.onnx"


@pytest.mark.ci
@pytest.mark.parametrize("component", ["body", "head"])
def test_the_stages_run_a_family_that_is_no_sam_and_whose_tensors_have_dots_in_their_names(
    component, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "family_code", {"kite": CODE}.__getitem__)
    arrays, recorded, onnx = run_stages(component, tmp_path)
    session = onnxruntime.InferenceSession(onnx)
    assert [tensor.name for tensor in session.get_inputs()] == list(arrays)
    names = [tensor.name for tensor in session.get_outputs()]
    assert recorded.keys() == {*(f"inputs/{n}" for n in arrays), *(f"outputs/{n}" for n in names)}
    for name, found in zip(names, session.run(None, arrays), strict=True):
        np.testing.assert_allclose(found, recorded[f"outputs/{name}"], rtol=1e-5, atol=1e-5)


def test_inputs_with_dots_are_computed_by_the_names_that_are_declared(state):
    model = assemble(MODULES, "body", {}, state["body"])
    arrays = {f"maps.{i}": torch.randn(3, 5, 4).numpy() for i in range(2)}
    found = compute(model, arrays, ["body.0", "body.1"])
    expected = model(torch.from_numpy(arrays["maps.0"]), torch.from_numpy(arrays["maps.1"]))
    assert [torch.equal(torch.from_numpy(found[f"body.{i}"]), expected[i]) for i in range(2)] == [True, True]


def test_two_inputs_that_are_one_argument_are_refused():
    with pytest.raises(BuildError, match=r"two of the inputs maps\.0, maps_0 are one argument"):
        arguments({"maps.0": 1, "maps_0": 2})


# ------------------------------------------------------------------ whose checkpoint it is


@pytest.fixture
def tables():
    return {**registry.key_tables(), "kite": TABLES}


@pytest.fixture
def asks_kite_too(tables, monkeypatch):
    own = registry.family
    monkeypatch.setattr(registry, "key_tables", lambda: tables)
    monkeypatch.setattr(registry, "family", lambda name: FAMILY if name == "kite" else own(name))


def test_the_family_that_knows_a_files_names_is_found(authors, tables, tmp_path):
    save_file(authors, tmp_path / "kite.safetensors")
    assert list(recognise.recognise(tmp_path / "kite.safetensors", tables)) == ["kite"]
    why = recognise.other_family(tmp_path / "kite.safetensors", "sam3_image", tables)
    assert why == (
        "kite.safetensors holds the weights of the family 'kite' (the kites' authors), and the manifest's is "
        "'sam3_image'; write `family: kite`, or name a checkpoint of SAM 3's image model"
    )
    assert recognise.other_family(tmp_path / "kite.safetensors", "kite", tables) is None


def test_of_two_families_that_know_a_file_the_one_that_knows_more_of_it_is_first(
    state, tables, asks_kite_too, tmp_path
):
    save_file(state["body"] | {"detr_encoder.x": torch.ones(2)}, tmp_path / "both.safetensors")
    assert list(recognise.recognise(tmp_path / "both.safetensors", tables)) == ["kite", "sam3_image"]
    found = describe(tmp_path / "both.safetensors")
    assert (found["family"], found["also_known_to"]) == ("kite", ["sam3_image"])


def test_what_no_family_knows_is_refused_by_each(tables, tmp_path):
    save_file({"wheels.front": torch.ones(2)}, tmp_path / "car.safetensors")
    with pytest.raises(BuildError) as caught:
        recognise.recognise(tmp_path / "car.safetensors", tables)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == list(tables)
    assert "kite: car.safetensors holds no tensor of the Kite model: its names are wheels.front.*" in lines[-1]


@pytest.mark.parametrize("config", [pytest.param(CONFIG.read_text(), marks=pytest.mark.ci), '{"model_type": "kite"}'])
def test_the_checkpoint_action_refuses_another_familys_weights_by_that_familys_name(
    authors, tables, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "key_tables", lambda: tables)
    save_file(authors, tmp_path / "kite.safetensors")
    (tmp_path / "config.json").write_text(config)
    params = {"family": "sam3_image", "layout": "v1", "source": PATH}
    given = {"config": tmp_path / "config.json", "weights": tmp_path / "kite.safetensors"}
    with pytest.raises(BuildError, match=r"^kite\.safetensors holds the weights of the family 'kite'"):
        checkpoint.run(params, given, tmp_path)


def test_inspect_names_the_family_that_knows_the_names(authors, asks_kite_too, tmp_path):
    save_file(authors, tmp_path / "kite.safetensors")
    found = describe(tmp_path / "kite.safetensors")
    assert (found["family"], found["format"]) == ("kite", "the kites' authors")
    assert found["components"]["body"]["tensors"] == 8 and found["components"]["head"]["tensors"] == 2
    assert "also_known_to" not in found
