"""Simplify, patch and precision on the four components of the miniature, exported from seeded weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sam3_build import registry
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.naming import module_path
from sam3_build.spec import Precision
from sam3_build.stages import checkpoint, export, patch, precision, simplify

ROOT = Path(__file__).parents[2]
COMPONENTS = [c.name for c in FAMILY.components]
PATCHES = {"vision_encoder": ["fold_position_tables"]}
SOURCE = {"random": {"seed": 0}}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Folders of every component after export, simplify, patch, fp32 and fp16, and the facts of each stage."""
    root = tmp_path_factory.mktemp("stages")
    folders, facts = {}, {}

    def run(stage, action, component, params, inputs):
        out = root / action / component
        out.mkdir(parents=True)
        facts[action, component] = stage.run({"component": component, **params}, inputs, out)
        folders[action, component] = out
        return out

    listed = root / "checkpoint"
    listed.mkdir()
    config = ROOT / "manifests" / "sam3_mini.json"
    checkpoint.run({"family": "sam3_image", "source": SOURCE}, {"config": config}, listed)
    for component in FAMILY.components:
        name = component.name
        spec = {"inputs": [asdict(t) for t in component.inputs], "outputs": [asdict(t) for t in component.outputs]}
        params = {"family": "sam3_image", "source": SOURCE, "opset": 20, "dynamic_dims": FAMILY.dynamic_dims}
        inputs = {"config": listed / "config.json", "tensors": listed / f"{name}.json"}
        exported = run(export, "export", name, {**params, "spec": spec}, inputs)
        simplified = run(simplify, "simplify", name, {}, {"onnx": exported})
        patched = run(patch, "patch", name, {"patches": PATCHES.get(name, [])}, {"onnx": simplified})
        for recipe in ("fp32", "fp16"):
            params = {"precision": recipe, "keep_fp32": [], "fp32_nodes": component.fp32_nodes}
            run(precision, recipe, name, params, {"onnx": patched})
    return folders, facts


@pytest.fixture(scope="module")
def feeds(stages):
    """Inputs of each component for a batch of 2 with masked rows, a box to ignore and a picture without boxes."""
    folders, _ = stages
    rng = np.random.default_rng(7)
    coarse = rng.uniform(-1, 1, (2, 3, 12, 12)).astype(np.float32)
    padded = np.ones((2, 32), np.int64)
    padded[0, 9:] = padded[1, 4:] = 0
    boxes = rng.uniform(0.2, 0.7, (2, 3, 4)).astype(np.float32)
    found = {
        "vision_encoder": {"images": coarse.repeat(14, axis=2).repeat(14, axis=3)},
        "text_encoder": {"input_ids": rng.integers(0, 256, (2, 32)) * padded, "attention_mask": padded},
    }
    vision = outputs(folders["export", "vision_encoder"], found["vision_encoder"])
    text = outputs(folders["export", "text_encoder"], found["text_encoder"])
    levels = {name: vision[name] for name in ("fpn_feat_2", "fpn_pos_2")}
    labels = np.array([[1, 0, -10], [-10, -10, -10]])
    found["geometry_encoder"] = {"input_boxes": boxes, "input_boxes_labels": labels, **levels}
    geometry = outputs(folders["export", "geometry_encoder"], found["geometry_encoder"])
    found["decoder"] = {
        **vision,
        "prompt_features": np.concatenate([text["text_features"], geometry["geometry_features"]], 1),
        "prompt_mask": np.concatenate([text["text_mask"], geometry["geometry_mask"]], 1),
    }
    return found


def outputs(folder, feeds):
    [file] = folder.glob("*.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def with_batch(feeds, batch):
    """The same inputs at another batch size."""
    return {name: np.concatenate([value] * batch)[:batch] for name, value in feeds.items()}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("action", ["simplify", "patch", "fp32", "fp16"])
def test_every_node_carries_a_module_path_and_its_own_name(stages, action, component):
    [file] = stages[0][action, component].glob("*.onnx")
    names = [node.name for node in onnx.load(file).graph.node]
    assert [name for name in names if module_path(name) is None] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_simplified_component_is_smaller_and_computes_the_same(stages, feeds, component):
    folders, facts = stages
    assert facts["simplify", component]["nodes"] < facts["simplify", component]["nodes_before"]
    for batch in (1, 3):
        given = with_batch(feeds[component], batch)
        before = outputs(folders["export", component], given)
        after = outputs(folders["simplify", component], given)
        assert list(before) == list(after)
        for name, value in before.items():
            assert value.dtype == after[name].dtype
            scale = 1.0 if value.dtype == bool else float(value.std())
            np.testing.assert_allclose(after[name].astype(float), value.astype(float), atol=1e-5 * scale, rtol=1e-4)


def test_folding_the_position_tables_changes_no_bit_of_any_output(stages, feeds):
    folders, facts = stages
    assert facts["patch", "vision_encoder"]["rewrites"] == {"fold_position_tables": 1}
    [file] = folders["patch", "vision_encoder"].glob("*.onnx")
    operators = {node.op_type for node in onnx.load(file).graph.node}
    assert not operators & {"Sin", "Cos"}
    for batch in (1, 2, 5):
        given = with_batch(feeds["vision_encoder"], batch)
        before = outputs(folders["simplify", "vision_encoder"], given)
        after = outputs(folders["patch", "vision_encoder"], given)
        assert {n: v.tobytes() for n, v in before.items()} == {n: v.tobytes() for n, v in after.items()}


@pytest.mark.parametrize("component", COMPONENTS)
def test_fp32_leaves_the_graph_as_it_is(stages, component):
    folders, _ = stages
    name = f"{component}.onnx"
    fp32 = folders["fp32", component] / f"{component}.fp32.onnx"
    assert fp32.read_bytes() == (folders["patch", component] / name).read_bytes()


@pytest.mark.parametrize("component", COMPONENTS)
def test_fp16_is_half_the_size_and_close_to_fp32(stages, feeds, component):
    folders, facts = stages
    done = facts["fp16", component]
    assert done["low"] > 0
    assert done["unmatched_patterns"] == []
    assert done["weight_bytes"] < 0.55 * done["weight_bytes_before"]
    full, low = (outputs(folders[p, component], feeds[component]) for p in ("fp32", "fp16"))
    for name, value in full.items():
        assert low[name].dtype == value.dtype
        if value.dtype == bool:
            np.testing.assert_array_equal(low[name], value)
        else:
            one, other = value.ravel().astype(float), low[name].ravel().astype(float)
            assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) >= 0.999


@pytest.mark.parametrize("component", ["geometry_encoder", "decoder"])
def test_coordinate_arithmetic_stays_fp32(stages, component):
    folders, facts = stages
    [file] = folders["fp16", component].glob("*.onnx")
    inferred = onnx.shape_inference.infer_shapes(onnx.load(file), strict_mode=True).graph
    half = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    kept = [n for n in inferred.node if ".coordinates." in n.name and n.op_type != "Cast"]
    assert facts["fp16", component]["kept_by_pattern"] > 20
    assert [n.name for n in kept if half & {*n.input, *n.output}] == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_bfloat16_as_a_recipe_needs_no_new_code(stages, monkeypatch, tmp_path, component):
    recipe = Precision("bf16", "bfloat16 inside", "BFLOAT16")
    monkeypatch.setattr(registry, "precision", lambda name: recipe)
    params = {"component": component, "precision": "bf16", "fp32_nodes": FAMILY.component(component).fp32_nodes}
    facts = precision.run(params, {"onnx": stages[0]["patch", component]}, tmp_path)
    assert facts["low"] > 0
    assert ("Conv" in facts["kept_by_schema"]) == (component != "text_encoder")


def test_the_stages_write_the_same_bytes_in_another_process(stages, tmp_path):
    """With other hash seeds, so that an order taken from a set would show."""
    code = """
import sys
from pathlib import Path
from sam3_build.stages import patch, precision, simplify
source, out, component, patches = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
steps = [("simplify", simplify, {}), ("patch", patch, {"patches": patches})]
for name, stage, params in [*steps, ("fp16", precision, {"precision": "fp16", "fp32_nodes": ["*.coordinates.*"]})]:
    (out / name).mkdir()
    stage.run({"component": component, **params}, {"onnx": source}, out / name)
    source = out / name
"""
    folders, _ = stages
    for seed, component in (("1", "vision_encoder"), ("2", "decoder")):
        out = tmp_path / component
        out.mkdir()
        argv = [sys.executable, "-c", code, folders["export", component], out, component, *PATCHES.get(component, [])]
        subprocess.run(argv, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT)
        for action in ("simplify", "patch", "fp16"):
            [ours], [theirs] = folders[action, component].glob("*.onnx"), (out / action).glob("*.onnx")
            assert ours.read_bytes() == theirs.read_bytes()


def test_tensorrt_rtx_builds_every_fp16_component_for_ada(stages, feeds):
    pytest.importorskip("tensorrt_rtx")
    code = """
import json, sys
from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
from polygraphy.backend.trt import Profile, engine_bytes_from_network, network_from_onnx_path
sizes = {}
for file, shapes in json.load(sys.stdin).items():
    profile = Profile()
    for name, shape in shapes.items():
        profile.add(name, min=shape, opt=shape, max=shape)
    config = CreateConfigRTX(compute_capabilities=[(8, 9)], profiles=[profile])
    sizes[file] = len(bytes(engine_bytes_from_network(network_from_onnx_path(file, strongly_typed=True), config)))
print(json.dumps(sizes))
"""
    request = {
        str(folders / f"{component}.fp16.onnx"): {name: value.shape for name, value in feeds[component].items()}
        for component in COMPONENTS
        if (folders := stages[0]["fp16", component])
    }
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, input=json.dumps(request), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = json.loads(done.stdout.splitlines()[-1])
    assert list(sizes) == list(request)
    assert min(sizes.values()) > 100_000
