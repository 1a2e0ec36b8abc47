"""The typed-edge pass on toy graphs: one test per rule; every result passes the full checker and runs where it can."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3_build.errors import BuildError
from sam3_build.graph.casts import CastCounts, write_types

F, F16, B16, I64, BOOL = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT64,
    TensorProto.BOOL,
)


def info(name, elem=F, dims=("n", 4)):
    return helper.make_tensor_value_info(name, elem, dims)


def toy(nodes, inputs, outputs, constants=None, opset=20):
    initialisers = [numpy_helper.from_array(np.asarray(a), k) for k, a in (constants or {}).items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def lower(model, onnx_type="FLOAT16", keep=()) -> tuple[onnx.ModelProto, CastCounts]:
    """Run the pass on a copy, hold the result against the checker and the contract of inputs and outputs."""
    graph = ir.from_proto(model)
    done = write_types(graph, onnx_type, lambda name: "asked for" if name in keep else None)
    result = ir.to_proto(graph)
    for field in ("input", "output"):
        before, after = getattr(model.graph, field), getattr(result.graph, field)
        assert [v.SerializeToString() for v in before] == [v.SerializeToString() for v in after]
    result.graph.ClearField("value_info")
    onnx.checker.check_model(result, full_check=True)
    names = [n.name for n in result.graph.node]
    assert len(set(names)) == len(names)
    assert sum(n.op_type == "Cast" for n in result.graph.node) == done.casts + sum(
        n.op_type == "Cast" for n in model.graph.node
    )
    return result, done


def run(model, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def types(model):
    """Element type of every tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    return found | {t.name: t.data_type for t in inferred.initializer}


def node(model, name):
    return next(n for n in model.graph.node if n.name == name)


def casts(model):
    return [n for n in model.graph.node if n.op_type == "Cast"]


def n(op, inputs, outputs, name=None, **attributes):
    return helper.make_node(op, inputs, outputs, name=name or f"m/{op}_0", **attributes)


def test_a_chain_becomes_low_between_one_cast_at_the_input_and_one_at_the_output():
    w = np.eye(4, dtype=np.float32) * 3
    model = toy(
        [n("MatMul", ["x", "w"], ["a"], "m/MatMul_0"), n("Relu", ["a"], ["y"], "m/Relu_0")],
        [info("x")],
        [info("y")],
        {"w": w},
    )
    result, done = lower(model)
    assert done == CastCounts(
        low=2,
        gemms=1,
        low_gemms=1,
        kept={},
        kept_by_schema={},
        kept_by_output=0,
        kept_by_reader=0,
        casts=2,
        clamped=0,
        flushed=0,
    )
    assert types(result)["w"] == F16
    assert types(result)["a"] == F16
    assert [c.name for c in casts(result)] == ["m/Cast_0", "m/Cast_1"]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(result, x=x)[0], run(model, x=x)[0], rtol=2e-3, atol=1e-6)


def test_an_output_that_is_read_inside_too_is_low_inside_and_fp32_outside():
    model = toy(
        [
            n("Relu", ["x"], ["y"], "m/Relu_0"),
            n("Neg", ["y"], ["z"], "m/Neg_0"),
            n("Abs", ["y"], ["w"], "kept/Abs_0"),
        ],
        [info("x")],
        [info("y"), info("z"), info("w")],
    )
    result, done = lower(model, keep=("kept/Abs_0",))
    assert done.casts == 3  # x, y, z
    assert types(result)[node(result, "m/Neg_0").input[0]] == F16
    assert node(result, "kept/Abs_0").input[0] == "y"
    assert types(result)["y"] == F


def test_a_tensor_with_many_low_readers_is_cast_once():
    model = toy(
        [
            n("Relu", ["x"], ["a"], "m/Relu_0"),
            n("Neg", ["x"], ["b"], "m/Neg_0"),
            n("Add", ["a", "b"], ["y"], "m/Add_0"),
        ],
        [info("x")],
        [info("y")],
    )
    result, done = lower(model)
    assert done.casts == 2
    assert result.graph.node[0].op_type == "Cast"
    assert node(result, "m/Relu_0").input[0] == node(result, "m/Neg_0").input[0] == result.graph.node[0].output[0]


def test_a_constant_that_both_types_read_is_stored_in_both_and_never_cast_at_run_time():
    c = np.array([1, 2, 3, 1e-9], np.float32)
    model = toy(
        [n("Add", ["x", "c"], ["a"], "m/Add_0"), n("Mul", ["a", "c"], ["y"], "kept/Mul_0")],
        [info("x")],
        [info("y")],
        {"c": c},
    )
    result, done = lower(model, keep=("kept/Mul_0",))
    stored = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert {k: v.dtype for k, v in stored.items()} == {"c": np.float32, "c.float16": np.float16}
    assert node(result, "m/Add_0").input[1] == "c.float16"
    assert node(result, "kept/Mul_0").input[1] == "c"
    assert done.casts == 2  # x down, a up
    assert done.flushed == 1


def test_a_constant_that_only_low_nodes_read_keeps_its_name():
    model = toy(
        [n("Add", ["x", "layer.bias"], ["y"])], [info("x")], [info("y")], {"layer.bias": np.ones(4, np.float32)}
    )
    result, _ = lower(model)
    assert [(t.name, t.data_type) for t in result.graph.initializer] == [("layer.bias", F16)]


def test_finite_values_beyond_the_range_are_clamped_and_counted_and_infinities_stay():
    c = np.array([-3.4e38, np.inf, 7e4, 1], np.float32)
    result, done = lower(toy([n("Add", ["x", "c"], ["y"])], [info("x")], [info("y")], {"c": c}))
    assert done.clamped == 2
    np.testing.assert_array_equal(
        numpy_helper.to_array(result.graph.initializer[0]), np.array([-65504, np.inf, 65504, 1], np.float16)
    )


def test_scales_of_a_resize_stay_fp32_because_its_schema_has_no_other_type():
    model = toy(
        [n("Resize", ["x", "", "s"], ["y"], mode="nearest")],
        [info("x", dims=("n", 1, 2, 2))],
        [info("y", dims=("n", 1, 4, 4))],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )
    result, done = lower(model)
    assert done.low == 1
    assert types(result)["s"] == F
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(run(result, x=x)[0], run(model, x=x)[0])


def test_an_operator_whose_schema_lacks_the_type_stays_fp32():
    range_ = n("Range", ["start", "stop", "step"], ["r"])
    model = toy(
        [range_, n("Mul", ["r", "x"], ["y"], "m/Mul_0")],
        [info("stop", dims=()), info("x", dims=(1,))],
        [info("y", dims=("k",))],
        {"start": np.float32(0), "step": np.float32(1)},
    )
    result, done = lower(model)
    assert done.kept_by_schema == {"Range": 1}
    assert types(result)["r"] == F
    np.testing.assert_array_equal(run(result, stop=np.array(3, np.float32), x=np.ones(1, np.float32))[0], [0, 1, 2])


def test_the_schema_of_the_models_own_opset_decides():
    """Sin admits bfloat16 from opset 22 on."""
    nodes = [n("Sin", ["x"], ["y"])]
    assert lower(toy(nodes, [info("x")], [info("y")], opset=20), "BFLOAT16")[1].kept_by_schema == {"Sin": 1}
    assert lower(toy(nodes, [info("x")], [info("y")], opset=22), "BFLOAT16")[1].kept_by_schema == {}


def test_bfloat16_constants_are_written_as_bfloat16():
    c = np.array([1.00390625, -3.4e38, 3, 4], np.float32)
    result, done = lower(toy([n("Add", ["x", "c"], ["y"])], [info("x")], [info("y")], {"c": c}), "BFLOAT16")
    assert result.graph.initializer[0].data_type == B16
    assert done.clamped == 1
    stored = numpy_helper.to_array(result.graph.initializer[0]).astype(np.float32)
    assert stored[0] == 1.0
    assert np.isfinite(stored).all()


@pytest.mark.parametrize(
    ("source", "attribute"),
    [
        (n("Cast", ["i"], ["a"], "m/Source_0", to=F), "to"),
        (n("ConstantOfShape", ["i"], ["a"], "m/Source_0", value=numpy_helper.from_array(np.float32([7e9]))), "value"),
        (n("ConstantOfShape", ["i"], ["a"], "m/Source_0"), "value"),
        (n("RandomUniform", [], ["a"], "m/Source_0", dtype=F, seed=1.0, shape=[2]), "dtype"),
    ],
)
def test_a_node_that_takes_its_type_from_an_attribute_is_retargeted(source, attribute):
    model = toy([source, n("Neg", ["a"], ["y"])], [info("i", I64, (1,))], [info("y", F, ("k",))])
    result, done = lower(model)
    given = {a.name: a for a in node(result, "m/Source_0").attribute}[attribute]
    assert F16 in (given.i, given.t.data_type)
    assert done.casts == 1
    if source.op_type != "RandomUniform":  # which ONNX Runtime has in FP32 only
        assert np.isfinite(run(result, i=np.array([3], np.int64))[0]).all()


def test_a_kept_cast_to_float_stays_a_cast_to_float():
    model = toy([n("Cast", ["i"], ["a"], "kept/Cast_0", to=F), n("Neg", ["a"], ["y"])], [info("i", I64)], [info("y")])
    result, done = lower(model, keep=("kept/Cast_0",))
    assert done.casts == 2
    assert types(result)["a"] == F


def test_comparisons_stay_fp32_and_booleans_are_not_touched():
    model = toy(
        [
            n("Neg", ["x"], ["a"], "m/Neg_0"),
            n("Greater", ["a", "c"], ["b"], "m/Greater_0"),
            n("Not", ["b"], ["z"], "m/Not_0"),
            n("Where", ["z", "a", "low"], ["y"], "m/Where_0"),
        ],
        [info("x")],
        [info("y"), info("z", BOOL)],
        {"c": np.float32(0.1), "low": np.float32(-3.4e38)},
    )
    result, done = lower(model)
    assert (done.low, done.kept_by_output, done.clamped) == (2, 1, 1)
    found = types(result)
    assert found["c"] == F
    assert found[node(result, "m/Greater_0").input[0]] == F
    x = np.array([[0.5, -0.5, 0, -0.2]], np.float32)
    low, full = run(result, x=x), run(model, x=x)
    np.testing.assert_array_equal(low[1], full[1])
    np.testing.assert_array_equal(low[0], np.maximum(full[0], -65504).astype(np.float16).astype(np.float32))


def test_shape_and_cast_to_integer_read_a_tensor_in_the_type_it_has():
    model = toy(
        [
            n("Neg", ["x"], ["a"], "m/Neg_0"),
            n("Shape", ["a"], ["s"], "m/Shape_0"),
            n("Cast", ["a"], ["i"], "m/Source_0", to=I64),
        ],
        [info("x")],
        [info("s", I64, (2,)), info("i", I64)],
    )
    result, done = lower(model)
    assert done.casts == 1
    assert node(result, "m/Shape_0").input[0] == node(result, "m/Source_0").input[0] == "a"
    assert types(result)["a"] == F16


def test_values_that_are_only_moved_from_fp32_to_fp32_are_not_rounded_on_the_way():
    model = toy(
        [
            n("Transpose", ["x"], ["a"], "m/Transpose_0"),
            n("Unsqueeze", ["a", "axis"], ["b"], "m/Unsqueeze_0"),
            n("Sin", ["b"], ["y"], "kept/Sin_0"),
            n("Neg", ["b"], ["z"], "m/Neg_0"),
            n("Expand", ["table", "shape"], ["positions"], "m/Expand_0"),
            n("Identity", ["z"], ["w"], "m/Identity_0"),
        ],
        [info("x")],
        [info("y", dims=(1, 4, "n")), info("w", dims=(1, 4, "n")), info("positions", dims=(2, 4))],
        {"axis": np.array([0]), "table": np.array([[1e-3, 1 / 3, 1e5, 1e-9]], np.float32), "shape": np.array([2, 4])},
    )
    result, done = lower(model, keep=("kept/Sin_0",))
    assert (done.kept_by_reader, done.low, done.casts, done.clamped) == (3, 2, 2, 0)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    full, low = run(model, x=x), run(result, x=x)
    np.testing.assert_array_equal(low[0], full[0])
    np.testing.assert_array_equal(low[2], full[2])
    assert types(result)[node(result, "m/Neg_0").input[0]] == F16


def test_clip_and_a_cast_to_float_of_a_float_are_typed_right():
    model = toy(
        [n("Clip", ["x", "lo", "hi"], ["a"], "m/Clip_0"), n("Cast", ["a"], ["y"], "m/Source_0", to=F)],
        [info("x")],
        [info("y")],
        {"lo": np.float32(-1e9), "hi": np.float32(1)},
    )
    result, done = lower(model)
    assert (done.low, done.clamped) == (2, 1)
    x = np.array([[5, -5, 0.5, 1e9]], np.float32)
    np.testing.assert_array_equal(run(result, x=x)[0], [[1, -5, 0.5, 1]])


def test_an_optional_input_that_is_not_given_stays_absent():
    model = toy([n("Clip", ["x", "", "hi"], ["y"])], [info("x")], [info("y")], {"hi": np.float32(1)})
    result, _ = lower(model)
    assert node(result, "m/Clip_0").input[1] == ""


def test_a_statistic_of_layer_normalization_whose_type_is_fixed_keeps_the_node_fp32():
    model = toy(
        [n("LayerNormalization", ["x", "g"], ["y", "mean"])],
        [info("x")],
        [info("y"), info("mean", dims=("n", 1))],
        {"g": np.ones(4, np.float32)},
    )
    assert lower(model)[1].kept_by_schema == {"LayerNormalization": 1}


def test_constants_in_nodes_are_typed_per_reader_like_stored_ones():
    constant = n("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([3.5])))
    model = toy(
        [constant, n("Add", ["x", "c"], ["a"]), n("Mul", ["a", "c"], ["y"], "kept/Mul_0")], [info("x")], [info("y")]
    )
    result, done = lower(model, keep=("kept/Mul_0",))
    assert {t.name: t.data_type for t in result.graph.initializer} == {"c": F, "c.float16": F16}
    assert done.casts == 2


def test_an_input_that_is_an_output_and_a_constant_that_is_an_output_stay_fp32():
    model = toy(
        [n("Neg", ["x"], ["y"]), n("Add", ["y", "c"], ["z"])],
        [info("x")],
        [info("z"), info("c", dims=(4,))],
        {"c": np.ones(4, np.float32)},
    )
    result, _ = lower(model)
    assert {t.name: t.data_type for t in result.graph.initializer} == {"c": F, "c.float16": F16}


def test_double_tensors_are_not_touched():
    model = toy(
        [
            n("Cast", ["x"], ["d"], "m/Source_0", to=TensorProto.DOUBLE),
            n("Exp", ["d"], ["e"]),
            n("Cast", ["e"], ["y"], "m/Source_1", to=F),
        ],
        [info("x")],
        [info("y")],
    )
    result, done = lower(model)
    assert types(result)["e"] == TensorProto.DOUBLE
    assert (done.low, done.kept_by_output) == (1, 1)


def test_casts_get_free_names_in_the_module_path_of_their_neighbour():
    model = toy(
        [n("Cast", ["i"], ["c"], "a.b/Cast_0", to=I64), n("Neg", ["x"], ["y"], "a.b/Neg_0")],
        [info("x"), info("i", BOOL)],
        [info("y"), info("c", I64)],
    )
    result, _ = lower(model)
    assert [c.name for c in casts(result)] == ["a.b/Cast_0", "a.b/Cast_1", "a.b/Cast_2"]


def test_a_subgraph_is_refused_by_the_name_of_its_node():
    branch = helper.make_graph([n("Identity", ["x"], ["t"])], "branch", [], [info("t")])
    model = toy(
        [n("If", ["c"], ["y"], "m/If_0", then_branch=branch, else_branch=branch)],
        [info("x"), info("c", BOOL, ())],
        [info("y")],
    )
    with pytest.raises(BuildError, match=r"'m/If_0' \(If\) has a subgraph"):
        lower(model)


def test_the_pass_writes_the_same_bytes_each_time():
    model = toy(
        [n("Add", ["x", "c"], ["a"]), n("Mul", ["a", "c"], ["y"], "kept/Mul_0")],
        [info("x")],
        [info("y")],
        {"c": np.ones(4, np.float32)},
    )
    assert len({lower(model, keep=("kept/Mul_0",))[0].SerializeToString() for _ in range(3)}) == 1
