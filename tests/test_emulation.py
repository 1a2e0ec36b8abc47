"""The emulation of low types: it rounds what the shipped graph rounds, and no optimizer of ONNX Runtime undoes it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from sam3_build.graph.casts import write_types
from sam3_build.graph.emulation import emulate, write_emulation
from tests.toy_graphs import I64, F, info, n, toy

FINE = np.float32(1 + 2**-12)  # rounds to 1 in either type
DTYPES = {"FLOAT16": np.dtype(np.float16), "BFLOAT16": np.dtype(ml_dtypes.bfloat16)}
LEVELS = onnxruntime.GraphOptimizationLevel


@pytest.fixture(params=DTYPES)
def low(request):
    return request.param


@pytest.fixture(params=[LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL], ids=lambda v: v.name)
def level(request):
    return request.param


def lowered(model, low, keep=()):
    typed = ir.from_proto(model)
    write_types(typed, low, lambda name: "asked for" if name in keep else None)
    return ir.to_proto(typed)


def emulated(model, low, keep=()):
    """Write a low type into a model and emulate what came out; the result passes the full checker."""
    shipped = ir.from_proto(lowered(model, low, keep))
    rounded = emulate(shipped)
    result = ir.to_proto(shipped)
    result.graph.ClearField("value_info")
    onnx.checker.check_model(result, full_check=True)
    names = [node.name for node in result.graph.node]
    assert len(set(names)) == len(names)
    for field in ("input", "output"):
        before, after = getattr(model.graph, field), getattr(result.graph, field)
        assert [v.SerializeToString() for v in before] == [v.SerializeToString() for v in after]
    return result, rounded


def run(model, level=LEVELS.ORT_ENABLE_ALL, **feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_an_input_is_rounded(low, level):
    model, _ = emulated(toy([n("Neg", ["x"], ["y"])], [info("x")], [info("y")]), low)
    (found,) = run(model, level, x=np.full((1, 4), FINE, np.float32))
    np.testing.assert_array_equal(found, -1.0)


def test_a_result_is_rounded_behind_a_matrix_multiplication(low, level):
    """The products are exact; only their sum, 1 + 2**-12, needs rounding."""
    weight = np.array([[1], [2**-12], [0], [0]], np.float32)
    nodes = [n("MatMul", ["x", "w"], ["a"]), n("Neg", ["a"], ["y"])]
    model, _ = emulated(toy(nodes, [info("x")], [info("y", dims=("batch", 1))], {"w": weight}), low)
    (found,) = run(model, level, x=np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(found, -1.0)


def test_a_constant_is_rounded_and_keeps_its_size_in_the_file(low, level):
    constant = np.full(4, FINE, np.float32)
    model, _ = emulated(toy([n("Mul", ["x", "c"], ["y"])], [info("x")], [info("y")], {"c": constant}), low)
    assert [t.data_type for t in model.graph.initializer] == [onnx.TensorProto.DataType.Value(low)]
    (found,) = run(model, level, x=np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(found, 1.0)


def test_each_step_of_a_chain_is_what_numpy_rounds(low, level):
    def rounded_by_numpy(array):
        return np.asarray(array, np.float32).astype(DTYPES[low]).astype(np.float32)

    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((4, 4)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    nodes = [n("MatMul", ["x", "w"], ["a"]), n("Reshape", ["a", "shape"], ["r"]), n("Mul", ["r", "r"], ["y"])]
    model, rounded = emulated(toy(nodes, [info("x")], [info("y", dims=("k",))], {"w": w, "shape": np.array([-1])}), low)
    product = rounded_by_numpy(rounded_by_numpy(x) @ rounded_by_numpy(w)).reshape(-1)
    np.testing.assert_array_equal(run(model, level, x=x)[0], rounded_by_numpy(product * product))
    assert rounded == 5  # x, w, a, r (only moved) and y


HUGE = [
    [n("Identity", ["a"], ["b"])],
    [n("Relu", ["a"], ["b"])],
    [n("Transpose", ["a"], ["t"], perm=[1, 0]), n("Transpose", ["t"], ["b"], perm=[1, 0])],
    [n("MatMul", ["a", "eye"], ["b"])],
    [n("LayerNormalization", ["a", "gain"], ["l"]), n("Add", ["l", "a"], ["b"])],
]


@pytest.mark.parametrize("between", HUGE, ids=lambda nodes: nodes[0].op_type)
def test_an_inner_overflow_shows_though_the_next_node_would_bring_it_back(between, level):
    """In FLOAT16 itself, ONNX Runtime's CPU computes these in FP32 and shows nothing."""
    nodes = [n("Mul", ["x", "up"], ["a"]), *between, n("Mul", ["b", "down"], ["y"])]
    constants = {
        "up": np.float32(2**14),
        "down": np.float32(2**-14),
        "eye": np.eye(4, dtype=np.float32),
        "gain": np.ones(4, np.float32),
    }
    used = {name for node in nodes for name in node.input}
    model = toy(nodes, [info("x")], [info("y")], {name: c for name, c in constants.items() if name in used})
    x = np.arange(4, 8, dtype=np.float32).reshape(1, 4)
    (found,) = run(emulated(model, "FLOAT16")[0], level, x=x)
    assert not np.isfinite(found).any()
    (wide,) = run(emulated(model, "BFLOAT16")[0], level, x=x)
    assert np.isfinite(wide).all()


def test_what_the_shipped_graph_keeps_in_fp32_is_not_rounded(low):
    nodes = [n("Neg", ["x"], ["a"], "kept/Neg_0"), n("Abs", ["a"], ["y"], "kept/Abs_0"), n("Neg", ["x"], ["z"])]
    model, _ = emulated(toy(nodes, [info("x")], [info("y"), info("z")]), low, keep=("kept/Neg_0", "kept/Abs_0"))
    exact, rounded = run(model, x=np.full((1, 4), FINE, np.float32))
    np.testing.assert_array_equal(exact, FINE)
    np.testing.assert_array_equal(rounded, -1.0)


@pytest.mark.parametrize(
    "source",
    [
        n("Cast", ["i"], ["a"], "m/Source_0", to=F),
        n("ConstantOfShape", ["i"], ["a"], "m/Source_0", value=onnx.numpy_helper.from_array(np.float32([2049]))),
    ],
)
def test_a_node_whose_type_is_an_attribute_is_rounded_too(low, source):
    model, _ = emulated(toy([source, n("Neg", ["a"], ["y"])], [info("i", I64, (1,))], [info("y", F, ("k",))]), low)
    found = run(model, i=np.array([2049], np.int64))[0]
    np.testing.assert_array_equal(found, np.full(found.shape, -2048, np.float32))


def test_a_file_without_a_low_type_runs_as_it_is(tmp_path, low):
    model = toy([n("Neg", ["x"], ["y"])], [info("x")], [info("y")])
    onnx.save(model, tmp_path / "toy.fp32.onnx")
    onnx.save(lowered(model, low), tmp_path / "toy.low.onnx")
    assert write_emulation(tmp_path / "toy.fp32.onnx", tmp_path) is None
    assert write_emulation(tmp_path / "toy.low.onnx", tmp_path) == tmp_path / "toy.low.emulated.onnx"
    (found,) = run(onnx.load(tmp_path / "toy.low.emulated.onnx"), x=np.full((1, 4), FINE, np.float32))
    np.testing.assert_array_equal(found, -1.0)
