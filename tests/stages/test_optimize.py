"""What export does to a traced graph: each rewrite finds its form and keeps the bits, in time linear in the nodes."""

from __future__ import annotations

import cProfile
import pstats

import numpy as np
import onnx_ir
import pytest
from toy_graphs import I64, info, n, operators, results, toy

from sam3_build.stages import export

END = np.iinfo(np.int64).max


def one(op, *constants, dims=("batch", 4), out=("batch", 4), **attributes):
    """A graph of one node that reads `x` and constants."""
    names = [f"c{index}" for index in range(len(constants))]
    node = n(op, ["x", *names], ["y"], **attributes)
    return toy([node], [info("x", dims=dims)], [info("y", dims=out)], dict(zip(names, constants, strict=True)))


def two(first, second, constants=None, dims=("batch", 4), out=("batch", 4), middle=("batch", 4)):
    """A graph of two nodes, one behind the other, each an operator, its further inputs and its attributes."""
    (op, given, attributes), (other, more, others) = first, second
    nodes = [n(op, ["x", *given], ["h"], **attributes), n(other, ["h", *more], ["y"], **others)]
    model = toy(nodes, [info("x", dims=dims)], [info("y", dims=out)], constants)
    model.graph.value_info.append(info("h", dims=middle))
    return model


def computed_shape():
    """[batch, 4] as [batch, 2, 2], the sizes computed from x."""
    nodes = [
        n("Shape", ["x"], ["sizes"]),
        n("Slice", ["sizes", "batch", "one"], ["first"]),
        n("Concat", ["first", "rest"], ["wanted"], axis=0),
        n("Reshape", ["x", "wanted"], ["y"]),
    ]
    constants = {"batch": ints(0), "one": ints(1), "rest": ints(2, 2)}
    return toy(nodes, [info("x")], [info("y", dims=("batch", 2, 2))], constants)


def size_of_a_vector():
    """A size of `x` on its way to a shape: from a vector to a number and back."""
    nodes = [
        n("Shape", ["x"], ["size"], start=0, end=1),
        n("Squeeze", ["size"], ["number"]),
        n("Reshape", ["number", "flat"], ["y"]),
    ]
    return toy(nodes, [info("x")], [info("y", I64, (1,))], {"flat": ints(-1)})


def ints(*values):
    return np.array(values, np.int64)


IMAGE = ("batch", 3, 4, 4)
KERNEL = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
CASES = {
    "mul_by_1_rule": (one("Mul", np.float32(1)), []),
    "collapse_slice_rule": (one("Slice", ints(0), ints(END), ints(1), ints(1)), []),
    "materialize_reshape_shape_rule": (computed_shape(), ["Reshape"]),
    "max_min_rule": (
        two(("Max", ["low"], {}), ("Min", ["high"], {}), {"low": np.float32(-0.5), "high": np.float32(0.5)}),
        ["Clip"],
    ),
    "reshape_reshape_rule": (
        two(
            ("Reshape", ["a"], {}),
            ("Reshape", ["b"], {}),
            {"a": ints(-1, 2, 2), "b": ints(-1, 4)},
            out=("rows", 4),
            middle=("batch", 2, 2),
        ),
        ["Reshape"],
    ),
    "transpose_transpose_rule": (
        two(
            ("Transpose", [], {"perm": [0, 2, 1, 3]}),
            ("Transpose", [], {"perm": [0, 1, 3, 2]}),
            dims=IMAGE,
            middle=("batch", 4, 3, 4),
            out=("batch", 4, 4, 3),
        ),
        ["Transpose"],
    ),
    "unsqueeze_unsqueeze_rule": (
        two(
            ("Unsqueeze", ["a"], {}),
            ("Unsqueeze", ["b"], {}),
            {"a": ints(1), "b": ints(3)},
            middle=("batch", 1, 4),
            out=("batch", 1, 4, 1),
        ),
        ["Unsqueeze"],
    ),
    "squeeze_reshape_1d_rule": (size_of_a_vector(), ["Shape"]),
    "remove_optional_bias_from_conv_rule": (
        one("Conv", KERNEL, np.zeros(2, np.float32), dims=IMAGE, out=("batch", 2, 3, 3)),
        ["Conv"],
    ),
}


def optimized(model):
    """Return what export makes of `model`."""
    ir = onnx_ir.from_proto(model)
    export.optimize(ir)
    return onnx_ir.to_proto(ir)


def reads(model):
    return sum(len(node.input) for node in model.graph.node)


def feed(model):
    shape = [dim.dim_value or 3 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rule", export.REWRITES)
def test_a_rewrite_finds_its_form_and_keeps_the_bits(rule):
    model, left = CASES[rule]
    found = optimized(model)
    assert [op for op in operators(found) if op != "Identity"] == left
    assert reads(found) < reads(model)  # without its bias, Conv is still a Conv
    x = feed(model)
    assert results(found, x=x) == results(model, x=x)


def test_constants_are_folded_and_equal_nodes_become_one():
    nodes = [
        n("Transpose", ["layer.weight"], ["turned"], perm=[1, 0]),
        n("MatMul", ["x", "turned"], ["a"]),
        n("MatMul", ["x", "turned"], ["b"]),
        n("Add", ["a", "b"], ["y"]),
        n("Neg", ["x"], ["unused"]),
    ]
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    model = toy(nodes, [info("x")], [info("y")], {"layer.weight": weight})
    found = optimized(model)
    assert operators(found) == ["MatMul", "Add"]
    x = feed(model)
    assert results(found, x=x) == results(model, x=x)


def calls(length):
    """How many calls of Python functions `optimize` needs for a chain of so many slices."""
    constants = {name: ints(value) for name, value in (("start", -4), ("end", END), ("axis", 1))}
    names = ["x", *(f"h{index}" for index in range(length - 1)), "y"]
    nodes = [n("Slice", [names[i], "start", "end", "axis"], [names[i + 1]]) for i in range(length)]
    model = onnx_ir.from_proto(
        toy(nodes, [info("x", dims=("batch", "length"))], [info("y", dims=("batch", 4))], constants)
    )
    profile = cProfile.Profile()
    profile.runcall(export.optimize, model)
    assert len(model.graph) == length
    return pstats.Stats(profile).total_calls


def test_four_times_the_nodes_take_four_times_the_work():
    calls(2)  # imports
    assert calls(400) < 5 * calls(100)
