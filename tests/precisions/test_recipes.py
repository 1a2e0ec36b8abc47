"""The recipes that keep nodes by their role: which nodes of a toy transformer each keeps, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph.keep_fp32 import gemm_types, kept
from sam3_build.params import PrecisionParams
from sam3_build.precisions import _roles
from tests.toy_graphs import info, n, toy

SIDE = 4
WEIGHT = np.eye(SIDE, dtype=np.float32)
TABLE = np.ones((3, SIDE), np.float32)


def block(path, x, y, *, mask="mask"):
    """A pre-norm transformer block with rotary embeddings as they are exported: x -> y."""
    attention = f"{path}.attention"

    def t(name):
        return f"{path}:{name}"

    return [
        n("LayerNormalization", [x, "gain"], [t("n")], f"{path}.norm/LayerNormalization_0"),
        n("MatMul", [t("n"), "w"], [t("q")], f"{attention}.q_proj/MatMul_0"),
        n("Mul", [t("q"), "cos"], [t("qc")], f"{attention}/Mul_0"),
        n("Neg", [t("q")], [t("qr")], f"{attention}/Neg_0"),
        n("Mul", [t("qr"), "sin"], [t("qs")], f"{attention}/Mul_1"),
        n("Add", [t("qc"), t("qs")], [t("rot")], f"{attention}/Add_0"),
        n("Transpose", [t("n")], [t("k")], f"{attention}/Transpose_0", perm=[0, 2, 1]),
        n("MatMul", [t("rot"), t("k")], [t("s")], f"{attention}/MatMul_0"),
        n("Add", [t("s"), mask], [t("m")], f"{attention}/Add_1"),
        n("Softmax", [t("m")], [t("p")], f"{attention}/Softmax_0"),
        n("MatMul", [t("p"), t("n")], [t("a")], f"{attention}/MatMul_1"),
        n("Add", [t("a"), "bias"], [t("ab")], f"{attention}.o_proj/Add_0"),
        n("Add", [x, t("ab")], [y], f"{path}/Add_0"),
    ]


def transformer(*paths):
    """Blocks behind an embedding, a head behind them; the mask is computed from the stream before the first block."""
    nodes = [
        n("MatMul", ["x", "w"], ["e"], "embed/MatMul_0"),
        n("Add", ["e", "bias"], ["stream0"], "embed/Add_0"),
        n("ReduceMax", ["e"], ["mask"], "masks/ReduceMax_0"),
    ]
    for index, path in enumerate(paths):
        nodes += block(path, f"stream{index}", f"stream{index + 1}")
    nodes.append(n("MatMul", [f"stream{len(paths)}", "w"], ["y"], "head/MatMul_0"))
    constants = {"w": WEIGHT, "gain": np.ones(SIDE, np.float32), "bias": np.ones(SIDE, np.float32)}
    shape = ("batch", 3, SIDE)
    return ir.from_proto(
        toy(nodes, [info("x", dims=shape)], [info("y", dims=shape)], {**constants, "cos": TABLE, "sin": TABLE})
    )


def params(precision, **more):
    return PrecisionParams.of({"component": "toy", "precision": precision, **more})


def keeps(precision, model, **more):
    return kept(model, registry.precision(precision), params(precision, **more))


def test_fp16_safe_keeps_norm_softmax_rotation_and_the_residual_add_and_nothing_else():
    assert keeps("fp16_safe", transformer("m.layers.0")) == {
        "m.layers.0.norm/LayerNormalization_0": "normalization",
        "m.layers.0.attention/Softmax_0": "softmax",
        "m.layers.0.attention/Mul_0": "rope",
        "m.layers.0.attention/Mul_1": "rope",
        "m.layers.0.attention/Add_0": "rope",
        "m.layers.0/Add_0": "residual add",
    }


def test_what_is_added_to_attention_scores_is_no_residual_though_scores_depend_on_it():
    """From the second block on, the scores come from what the mask took part in."""
    names = set(_roles.residual_adds(transformer("m.layers.0", "m.layers.1")))
    assert names == {"m.layers.0/Add_0", "m.layers.1/Add_0"}


def test_the_first_residual_starts_at_an_input_of_the_graph():
    nodes = [
        n("Transpose", ["x"], ["t"], "m/Transpose_0"),
        n("MatMul", ["t", "w"], ["b"], "m/MatMul_0"),
        n("Add", ["b", "t"], ["y"], "m/Add_0"),
    ]
    shape = (SIDE, SIDE)
    model = ir.from_proto(toy(nodes, [info("x", dims=shape)], [info("y", dims=shape)], {"w": WEIGHT}))
    assert list(_roles.residual_adds(model)) == ["m/Add_0"]


def test_a_gate_without_a_matrix_multiplication_is_no_residual():
    nodes = [n("Sigmoid", ["x"], ["s"], "m/Sigmoid_0"), n("Add", ["x", "s"], ["y"], "m/Add_0")]
    assert list(_roles.residual_adds(ir.from_proto(toy(nodes, [info("x")], [info("y")])))) == []


def test_the_module_path_that_the_rope_patch_writes_is_enough():
    nodes = [n("Reshape", ["x", "shape"], ["y"], "m.attention.rope/Reshape_0")]
    model = ir.from_proto(toy(nodes, [info("x")], [info("y", dims=("k",))], {"shape": np.array([-1])}))
    assert list(_roles.rotary(model)) == ["m.attention.rope/Reshape_0"]


def test_fp16_islands_leaves_only_matrix_multiplications_low():
    model = transformer("m.layers.0")
    found = keeps("fp16_islands", model)
    assert set(found.values()) == {"not a GEMM"}
    assert {node.op_type for node in model.graph if node.name not in found} == {"MatMul"}


def test_a_prefix_keeps_the_first_blocks_and_what_feeds_them():
    model = transformer("enc.layers.0", "enc.layers.1", "dec.layers.0")
    found = set(keeps("fp16_prefix", model, options={"blocks": 2}))
    low = {node.name for node in model.graph} - found
    assert low == {name for name in low if name.startswith(("dec.", "head"))}
    assert {"embed/MatMul_0", "masks/ReduceMax_0", "enc.layers.1/Add_0"} <= found


@pytest.mark.parametrize(("count", "kept_blocks"), [(1, 0), (2, 1), (3, 1), (4, 2), (8, 5)])
def test_without_a_number_a_prefix_is_five_eighths_of_the_blocks(count, kept_blocks):
    model = transformer(*(f"m.layers.{i}" for i in range(count)))
    found = keeps("fp16_prefix", model, options={"blocks": None})
    assert {name.split("/")[0].split(".")[2] for name in found if name.startswith("m.layers")} == {
        str(i) for i in range(kept_blocks)
    }


def test_a_prefix_beyond_the_last_block_lists_the_blocks():
    with pytest.raises(
        BuildError, match=r"toy\.fp16_prefix: blocks is 999, but the graph has 2, .*: m\.layers\.0, m\.lay"
    ):
        keeps("fp16_prefix", transformer("m.layers.0", "m.layers.1"), options={"blocks": 999})


def test_a_prefix_without_blocks_lists_the_modules_and_layers_of_a_plain_mlp_are_no_blocks():
    nodes = [n("MatMul", ["x", "w"], ["y"], "m.mlp.layers.0/MatMul_0")]
    model = ir.from_proto(toy(nodes, [info("x")], [info("y")], {"w": WEIGHT}))
    with pytest.raises(
        BuildError, match=r"toy\.fp16_prefix: the graph has no blocks .* its modules are m\.mlp\.layers"
    ):
        keeps("fp16_prefix", model, options={"blocks": 1})


def test_the_expected_type_of_each_gemm_follows_recipe_patterns_and_schemas():
    model = transformer("m.layers.0")
    more = {"keep_fp32": ["head/*"]}
    types = gemm_types(model, registry.precision("fp16"), params("fp16", **more))
    assert types == {
        "embed/MatMul_0": "FLOAT16",
        "m.layers.0.attention.q_proj/MatMul_0": "FLOAT16",
        "m.layers.0.attention/MatMul_0": "FLOAT16",
        "m.layers.0.attention/MatMul_1": "FLOAT16",
        "head/MatMul_0": "FLOAT",
    }
    assert set(gemm_types(model, registry.precision("fp32"), params("fp32")).values()) == {"FLOAT"}


@pytest.mark.parametrize(
    "paths", [("m.blocks.0", "m.blocks.1"), ("m.stages.0.blocks.0", "m.stages.0.blocks.1"), ("h.3", "h.4")]
)
def test_a_prefix_finds_blocks_of_any_name_the_innermost_counted_module_with_attention(paths):
    model = transformer(*paths)
    assert list(_roles.blocks(model)) == list(paths)
    found = keeps("fp16_prefix", model, options={"blocks": 1})
    assert {name for name in found if name.startswith(paths[1])} == set()
    assert f"{paths[0]}.attention/Softmax_0" in found


def test_what_is_counted_inside_a_block_belongs_to_the_block():
    model = transformer("m.blocks.0")
    model.graph.node("m.blocks.0.norm/LayerNormalization_0").name = "m.blocks.0.norms.1/LayerNormalization_0"
    assert "m.blocks.0.norms.1/LayerNormalization_0" in _roles.blocks(model)["m.blocks.0"]


def test_fp16_safe_is_fp16_where_nothing_has_its_roles_and_says_so(caplog):
    caplog.set_level("INFO")
    model = ir.from_proto(toy([n("MatMul", ["x", "w"], ["y"])], [info("x")], [info("y")], {"w": WEIGHT}))
    assert keeps("fp16_safe", model) == {}
    assert "the graph has no normalization, softmax, rotary embedding or residual add: this is fp16" in caplog.text


def test_fp16_safe_refuses_a_graph_with_parts_of_its_roles_that_it_does_not_recognize():
    nodes = [n("MatMul", ["x", "w"], ["s"]), n("Exp", ["s"], ["y"], "attention/Exp_0")]
    model = ir.from_proto(toy(nodes, [info("x")], [info("y")], {"w": WEIGHT}))
    with pytest.raises(BuildError, match=r"toy\.fp16_safe: no normalization, .* has the Exp 'attention/Exp_0': name"):
        keeps("fp16_safe", model)
