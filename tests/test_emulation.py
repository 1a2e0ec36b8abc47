"""The BFLOAT16 emulation: it rounds what the shipped graph would round, and no optimizer of ONNX Runtime undoes it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from sam3_build.emulation import emulate
from sam3_build.typed_edges import write_types
from tests.toy_graphs import I64, F, info, n, toy

FINE = np.float32(1 + 2**-12)  # BFLOAT16 has no number between 1 and 1 + 2**-7


def bf16(array):
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def emulated(model, keep=()):
    """Write BFLOAT16 into a model and emulate what came out; the result passes the full checker."""
    typed = ir.from_proto(model)
    write_types(typed, "BFLOAT16", lambda name: "asked for" if name in keep else None)
    shipped = ir.from_proto(ir.to_proto(typed))
    rounded = emulate(shipped, "BFLOAT16")
    result = ir.to_proto(shipped)
    result.graph.ClearField("value_info")
    onnx.checker.check_model(result, full_check=True)
    names = [node.name for node in result.graph.node]
    assert len(set(names)) == len(names)
    return result, rounded


LEVELS = onnxruntime.GraphOptimizationLevel


def run(model, level=LEVELS.ORT_ENABLE_ALL, **feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.fixture(params=[LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL], ids=lambda v: v.name)
def level(request):
    return request.param


def test_an_input_is_rounded(level):
    model, _ = emulated(toy([n("Neg", ["x"], ["y"])], [info("x")], [info("y")]))
    (found,) = run(model, level, x=np.full((1, 4), FINE, np.float32))
    np.testing.assert_array_equal(found, -1.0)


def test_a_result_is_rounded_behind_a_matrix_multiplication(level):
    """The products are exact; only their sum, 1 + 2**-12, needs rounding."""
    weight = np.array([[1], [2**-12], [0], [0]], np.float32)
    model, _ = emulated(
        toy(
            [n("MatMul", ["x", "w"], ["a"]), n("Neg", ["a"], ["y"])],
            [info("x")],
            [info("y", dims=("batch", 1))],
            {"w": weight},
        )
    )
    (found,) = run(model, level, x=np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(found, -1.0)


def test_a_constant_is_rounded_and_keeps_its_size_in_the_file(level):
    constant = np.full(4, FINE, np.float32)
    model, _ = emulated(toy([n("Mul", ["x", "c"], ["y"])], [info("x")], [info("y")], {"c": constant}))
    assert [t.data_type for t in model.graph.initializer] == [onnx.TensorProto.BFLOAT16]
    (found,) = run(model, level, x=np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(found, 1.0)


def test_each_step_of_a_chain_is_what_numpy_rounds(level):
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((4, 4)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    nodes = [
        n("MatMul", ["x", "w"], ["a"]),
        n("Reshape", ["a", "shape"], ["r"]),
        n("Mul", ["r", "r"], ["y"]),
    ]
    model, rounded = emulated(toy(nodes, [info("x")], [info("y", dims=("k",))], {"w": w, "shape": np.array([-1])}))
    product = bf16(bf16(x) @ bf16(w)).reshape(-1)
    np.testing.assert_array_equal(run(model, level, x=x)[0], bf16(product * product))
    assert rounded == 4  # x, a, r (only moved) and y


def test_what_the_shipped_graph_keeps_in_fp32_is_not_rounded():
    model, _ = emulated(
        toy([n("Neg", ["x"], ["a"], "kept/Neg_0"), n("Abs", ["a"], ["y"], "kept/Abs_0"), n("Neg", ["x"], ["z"])],
            [info("x")], [info("y"), info("z")]),
        keep=("kept/Neg_0", "kept/Abs_0"),
    )  # fmt: skip
    exact, rounded = run(model, x=np.full((1, 4), FINE, np.float32))
    np.testing.assert_array_equal(exact, FINE)
    np.testing.assert_array_equal(rounded, -1.0)


@pytest.mark.parametrize(
    "source",
    [
        n("Cast", ["i"], ["a"], "m/Source_0", to=F),
        n("ConstantOfShape", ["i"], ["a"], "m/Source_0", value=onnx.numpy_helper.from_array(np.float32([257]))),
    ],
)
def test_a_node_whose_type_is_an_attribute_is_rounded_too(source):
    model, _ = emulated(toy([source, n("Neg", ["a"], ["y"])], [info("i", I64, (1,))], [info("y", F, ("k",))]))
    found = run(model, i=np.array([257], np.int64))[0]
    np.testing.assert_array_equal(found, np.full(found.shape, -256, np.float32))


def test_inputs_and_outputs_keep_names_types_and_dims():
    model = toy([n("Neg", ["x"], ["y"])], [info("x")], [info("y")])
    result, _ = emulated(model)
    for field in ("input", "output"):
        before, after = getattr(model.graph, field), getattr(result.graph, field)
        assert [v.SerializeToString() for v in before] == [v.SerializeToString() for v in after]
