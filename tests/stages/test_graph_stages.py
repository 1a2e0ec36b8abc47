"""Simplify, patch and precision on the four components of the miniature, as the default manifest builds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatchcase

import miniature
import numpy as np
import onnx
import pytest
from miniature import run_onnx
from onnx import TensorProto

from sam3_build import registry
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.families.sam3_image.modules import DYNAMIC_SIZES
from sam3_build.graph.names import module_path
from sam3_build.params import PrecisionParams
from sam3_build.plugins import Precision
from sam3_build.stages import export, patch, precision, simplify

COMPONENTS = [c.name for c in FAMILY.components]
PATCHED = ("vision_encoder", "decoder")
F16 = TensorProto.FLOAT16
GEMMS = ("MatMul", "Gemm", "Conv", "ConvTranspose")

# Every graph after export.
GRAPHS = [
    *(f"simplify:{component}" for component in COMPONENTS),
    *(f"patch:{component}" for component in PATCHED),
    *(f"precision:{component}.{recipe}" for component in COMPONENTS for recipe in ("fp32", "fp16")),
]


def before_precision(component):
    """The action whose graph the precision stage of a component reads."""
    return f"patch:{component}" if component in PATCHED else f"simplify:{component}"


def component_of(action):
    return action.partition(":")[2].partition(".")[0]


def recorded(component, rows=None):
    """What PyTorch got for the batched samples: masked rows, ignored and negative boxes. Repeated to `rows` rows."""
    with np.load(miniature.folder(f"reference:{component}") / "batch.npz") as arrays:
        found = {n.removeprefix("inputs/"): arrays[n] for n in arrays.files if n.startswith("inputs/")}
    return found if rows is None else {n: np.concatenate([a] * rows)[:rows] for n, a in found.items()}


def typed(action):
    """The graph of an action, and the element type of each of its tensors."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(miniature.onnx(action)), strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return graph, {v.name: v.type.tensor_type.elem_type for v in values} | {
        t.name: t.data_type for t in graph.initializer
    }


@pytest.mark.parametrize("action", GRAPHS)
@pytest.mark.ci
def test_every_node_carries_a_module_path_and_its_own_name(action):
    names = [node.name for node in onnx.load(miniature.onnx(action)).graph.node]
    modules = FAMILY.component(component_of(action)).modules
    assert [name for name in names if (module_path(name) or "").split(".")[0] not in modules] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("action", GRAPHS)
def test_no_stage_changes_what_callers_see(action):
    """Names, types and order; each dim that the family calls dynamic is still symbolic."""
    before = onnx.load(miniature.onnx(f"export:{component_of(action)}")).graph
    after = onnx.load(miniature.onnx(action)).graph
    assert list(after.input) == list(before.input) and list(after.output) == list(before.output)
    spec = FAMILY.component(component_of(action))
    for tensor, value in zip((*spec.inputs, *spec.outputs), (*after.input, *after.output), strict=True):
        symbolic = [d.dim_param for d in value.type.tensor_type.shape.dim if d.dim_param]
        assert symbolic == [d for d in tensor.dims if str(d).removesuffix("+1") in DYNAMIC_SIZES]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.ci
def test_a_simplified_component_is_smaller_and_computes_the_same(component):
    facts = miniature.facts(f"simplify:{component}")
    assert facts["nodes"] < facts["nodes_before"]
    for rows in (1, 4):
        given = recorded(component, rows)
        before = run_onnx(miniature.onnx(f"export:{component}"), given)
        after = run_onnx(miniature.onnx(f"simplify:{component}"), given)
        assert list(before) == list(after)
        for name, value in before.items():
            assert value.dtype == after[name].dtype
            scale = 1.0 if value.dtype == bool else float(value.std())
            np.testing.assert_allclose(after[name].astype(float), value.astype(float), atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize(
    ("component", "rewrites", "gone"),
    [
        ("vision_encoder", {"fold_position_tables": 1, "rope": 2 * 4}, {"Sin", "Cos", "Neg"}),
        ("decoder", {"einsum_to_matmul": 1}, {"Einsum"}),
    ],
)
def test_patches_change_no_bit_of_any_output(component, rewrites, gone):
    assert miniature.facts(f"patch:{component}")["rewrites"] == rewrites
    patched = miniature.onnx(f"patch:{component}")
    assert not {node.op_type for node in onnx.load(patched).graph.node} & gone
    for rows in (1, 2, 5):
        given = recorded(component, rows)
        before, after = run_onnx(miniature.onnx(f"simplify:{component}"), given), run_onnx(patched, given)
        assert {n: v.tobytes() for n, v in before.items()} == {n: v.tobytes() for n, v in after.items()}


@pytest.mark.ci
def test_a_vision_encoder_whose_windowed_layers_are_neighbours_keeps_its_windows_and_every_bit(tmp_path):
    """The miniature alternates between windows and the grid; the real model has runs of seven layers with windows."""
    given = miniature.inputs("export:vision_encoder")
    config = json.loads(given["config"].read_bytes())
    config["vision_config"]["backbone_config"]["global_attn_indexes"] = [3]
    (tmp_path / "config.json").write_text(json.dumps(config))
    folders = [tmp_path / stage for stage in ("export", "simplify", "patch")]
    for folder in folders:
        folder.mkdir()
    export.run(miniature.params("export:vision_encoder"), {**given, "config": tmp_path / "config.json"}, folders[0])
    simplify.run({"component": "vision_encoder"}, {"onnx": folders[0]}, folders[1])
    names = ["fold_position_tables", "rope", "keep_windows"]
    facts = patch.run({"component": "vision_encoder", "patches": names}, {"onnx": folders[1]}, folders[2])
    assert facts["rewrites"] == {"fold_position_tables": 1, "rope": 8, "keep_windows": 2}
    for rows in (1, 3):
        pictures = recorded("vision_encoder", rows)
        before, after = (run_onnx(folder / "vision_encoder.onnx", pictures) for folder in folders[1:])
        assert {n: v.tobytes() for n, v in before.items()} == {n: v.tobytes() for n, v in after.items()}


def test_rotary_arithmetic_has_a_module_path_of_its_own():
    names = [node.name for node in onnx.load(miniature.onnx("patch:vision_encoder")).graph.node]
    for layer in range(4):
        scope = f"vision_encoder.backbone.layers.{layer}.attention.rope/"
        found = sorted(name.removeprefix(scope) for name in names if name.startswith(scope))
        counts = {"Add": 2, "Concat": 2, "Mul": 4, "Reshape": 4, "Split": 2}
        assert found == [f"{operator}_{number}" for operator, count in counts.items() for number in range(count)]


@pytest.mark.parametrize("component", COMPONENTS)
def test_fp32_leaves_the_graph_as_it_is(component):
    before = miniature.onnx(before_precision(component))
    assert miniature.onnx(f"precision:{component}.fp32").read_bytes() == before.read_bytes()


@pytest.mark.parametrize("component", COMPONENTS)
def test_fp16_is_half_the_size_and_close_to_fp32(component):
    facts = miniature.facts(f"precision:{component}.fp16")
    assert facts["weight_bytes"] < 0.55 * facts["weight_bytes_before"]
    full, low = (run_onnx(miniature.onnx(f"precision:{component}.{p}"), recorded(component)) for p in ("fp32", "fp16"))
    for name, value in full.items():
        assert low[name].dtype == value.dtype
        if value.dtype == bool:
            np.testing.assert_array_equal(low[name], value)
        else:
            one, other = value.ravel().astype(float), low[name].ravel().astype(float)
            assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) >= 0.999


@pytest.mark.parametrize("component", COMPONENTS)
def test_under_fp16_matrix_products_are_half_precision_and_nothing_kept_is(component):
    graph, types = typed(f"precision:{component}.fp16")
    params = PrecisionParams.of(miniature.params(f"precision:{component}.fp16"))
    patterns = (*params.keep_fp32, *params.fp32_nodes)

    def kept(node):
        return any(fnmatchcase(node.name, pattern) for pattern in patterns)

    gemms = [n for n in graph.node if n.op_type in GEMMS and not kept(n)]
    assert len(gemms) > 10
    assert [n.name for n in gemms if {types[t] for t in (*n.input, *n.output) if t} != {F16}] == []
    full = [n for n in graph.node if kept(n) and n.op_type != "Cast"]
    assert [n.name for n in full if F16 in {types[t] for t in (*n.input, *n.output) if t}] == []


@pytest.mark.parametrize("component", ["geometry_encoder", "decoder"])
def test_coordinate_arithmetic_stays_fp32(component):
    """Told by operators, not by the names that the patterns go by: where these stand, a position is computed."""
    graph, types = typed(f"precision:{component}.fp16")
    operators = {"Sin", "Cos", "Ceil", "Sign"} if component == "geometry_encoder" else {"Sin", "Cos", "Log", "Sign"}
    positions = [n for n in graph.node if n.op_type in operators]
    assert len(positions) >= len(operators)
    assert {types[t] for n in positions for t in n.output} == {TensorProto.FLOAT}
    inside = [n for n in graph.node if ".coordinates." in n.name and n.op_type != "Cast"]
    assert len(inside) > 20
    assert [n.name for n in inside if F16 in {types[t] for t in (*n.input, *n.output) if t}] == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_no_tensor_is_cast_twice_to_the_same_type(component):
    graph, _ = typed(f"precision:{component}.fp16")
    casts = Counter((n.input[0], n.attribute[0].i) for n in graph.node if n.op_type == "Cast")
    assert [edge for edge, count in casts.items() if count > 1] == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_bfloat16_as_a_recipe_needs_no_new_code(monkeypatch, tmp_path, component):
    recipe = Precision("bf16", "bfloat16 inside", "BFLOAT16", {})
    monkeypatch.setattr(registry, "precision", lambda name: recipe)
    params = {"component": component, "precision": "bf16", "fp32_nodes": FAMILY.component(component).fp32_nodes}
    facts = precision.run(params, {"onnx": miniature.onnx(before_precision(component))}, tmp_path)
    assert facts["low"] > 0
    assert ("Conv" in facts["kept_by_schema"]) == (component != "text_encoder")


@pytest.mark.ci
@pytest.mark.parametrize("component", ["vision_encoder", "decoder"])
def test_the_stages_write_the_same_bytes_in_another_process(component, tmp_path):
    """With another hash seed than the store's, so that an order taken from a set would show."""
    code = """
import json, sys
from importlib import import_module
from pathlib import Path
for action, stage, params, source, out in json.load(sys.stdin):
    Path(out).mkdir()
    import_module(f"sam3_build.stages.{stage}").run(params, {"onnx": Path(source)}, Path(out))
"""
    actions = [a for a in GRAPHS if component_of(a) == component]
    steps = [
        (a, a.partition(":")[0], miniature.params(a), str(miniature.inputs(a)["onnx"]), str(tmp_path / a))
        for a in actions
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    argv = [sys.executable, "-c", code]
    subprocess.run(argv, input=json.dumps(steps), text=True, check=True, env=environment, cwd=miniature.ROOT)
    for action in actions:
        [ours] = (tmp_path / action).iterdir()
        assert ours.read_bytes() == miniature.onnx(action).read_bytes(), action


@pytest.mark.parametrize("component", COMPONENTS)
def test_tensorrt_rtx_builds_every_fp16_component_for_ada(component):
    pytest.importorskip("tensorrt_rtx")
    [engine] = miniature.folder(f"build:{component}.fp16.ada").iterdir()
    assert engine.stat().st_size > 100_000
