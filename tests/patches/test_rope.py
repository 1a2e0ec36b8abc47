"""Rotary position embeddings on toy graphs: every form that exporters write becomes the short one, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from toy_graphs import F, info, n, operators, results, toy

from sam3_build.errors import BuildError

HEADS, LENGTH, SIZE = 2, 3, 8
DIMS = ("batch", HEADS, LENGTH, SIZE)
ANGLES = np.random.default_rng(0).standard_normal((1, LENGTH, SIZE)).astype(np.float32)
SHORT = ["Mul", "Reshape", "Split", "Concat", "Reshape", "Mul", "Add"]
CONSTANTS = {
    "cos": np.cos(ANGLES),
    "sin": np.sin(ANGLES),
    "in_pairs": np.array([0, HEADS, LENGTH, SIZE // 2, 2]),
    "whole": np.array([0, HEADS, LENGTH, SIZE]),
    **{str(number): np.array([number]) for number in (-1, 0, 1, 2, 4)},
    "even": np.int64(0),
    "odd": np.int64(-1),
}


def half(how, index, name):
    """Take one element of each pair, as onnxsim leaves it, as torch exports it, or with Gather."""
    taken = {
        "Slice": [n("Slice", ["pairs", f"{index}", f"{index + 1}", "4", "1"], [name])],
        "Slice, Squeeze": [
            n("Slice", ["pairs", f"{index}", "2" if index else "1", "-1"], [f"{name}_"]),
            n("Squeeze", [f"{name}_", "-1"], [f"{name}__"]),
            n("Unsqueeze", [f"{name}__", "-1"], [name]),
        ],
        "Gather": [
            n("Gather", ["pairs", "odd" if index else "even"], [f"{name}_"], axis=-1),
            n("Unsqueeze", [f"{name}_", "4"], [name]),
        ],
    }
    return taken[how]


def rotation(how="Slice", first=("negative", "a"), changed=()):
    """The nodes of x * cos + rotate(x) * sin by name; `changed` puts others in their place, None takes one out."""
    nodes = [
        n("Mul", ["x", "cos"], ["kept"], "m.attention/Mul_0"),
        n("Reshape", ["x", "in_pairs"], ["pairs"], "m.attention/Reshape_0"),
        *half(how, 0, "a"),
        *half(how, 1, "b"),
        n("Neg", ["a" if "a" not in first else "b"], ["negative"]),
        n("Concat", list(first), ["rotated"], "m.attention/Concat_0", axis=-1),
        n("Reshape", ["rotated", "whole"], ["flat"]),
        n("Mul", ["flat", "sin"], ["turned"]),
        n("Add", ["kept", "turned"], ["y"]),
    ]
    replaced = {node.output[0]: node for node in changed}
    return [replaced.pop(node.output[0], node) for node in nodes] + list(replaced.values())


def model(nodes, *outputs, **constants):
    used = {name for node in nodes for name in node.input}
    given = {name: value for name, value in {**CONSTANTS, **constants}.items() if name in used}
    return toy(nodes, [info("x", F, DIMS)], [info("y", F, DIMS), *outputs], given)


def picture(batch=3):
    """Random numbers, and those at which a rewrite could show: zeros of both signs, subnormals, infinities."""
    x = np.random.default_rng(batch).standard_normal((batch, *DIMS[1:])).astype(np.float32)
    x.flat[::7], x.flat[1::11], x.flat[2::13], x.flat[3::17] = -0.0, 0.0, 1e-41, -np.inf
    return x


@pytest.mark.parametrize("how", ["Slice", "Slice, Squeeze", "Gather"])
@pytest.mark.parametrize("first", [("negative", "a"), ("b", "negative")], ids=["(-b, a)", "(b, -a)"])
def test_a_rotation_becomes_seven_nodes_and_changes_no_bit(patched, how, first):
    before = model(rotation(how, first))
    after, facts = patched(before, "rope")
    assert facts["rewrites"] == {"rope": 1}
    assert operators(after) == SHORT
    assert {node.name.partition("/")[0] for node in after.graph.node} == {"m.attention.rope"}
    for batch in (1, 2, 5):
        assert results(after, x=picture(batch)) == results(before, x=picture(batch))


def test_rotations_that_share_a_table_share_the_signed_one_and_leave_the_plain_one_to_others(patched):
    twice = [*rotation(), *(rename(node, "2_") for node in rotation())]
    before = model([*twice, n("Exp", ["sin"], ["z"])], info("2_y", F, DIMS), info("z", F, (1, LENGTH, SIZE)))
    after, facts = patched(before, "rope")
    assert facts["rewrites"] == {"rope": 2}
    tables = [t for t in after.graph.initializer if list(t.dims) == [1, LENGTH, SIZE]]
    assert len(tables) == 3
    assert results(after, x=picture()) == results(before, x=picture())


def rename(node, prefix):
    copy = n(node.op_type, node.input, node.output, f"other.{node.name}")
    copy.attribute.extend(node.attribute)
    copy.input[:] = [i if i == "x" or i in CONSTANTS else prefix + i for i in node.input]
    copy.output[:] = [prefix + o for o in node.output]
    return copy


NEAR_MISSES = {
    "nothing is negated": rotation(changed=[n("Abs", ["b"], ["negative"])]),
    "the halves keep their places": rotation(first=("a", "negative")),
    "the negated half is read elsewhere": [*rotation(), n("Exp", ["negative"], ["z"])],
    "the halves are of two tensors": rotation(
        changed=[n("Slice", ["others", "0", "1", "4", "1"], ["a"]), n("Reshape", ["kept", "in_pairs"], ["others"])]
    ),
    "the sine depends on the input": rotation(changed=[n("Mul", ["flat", "x"], ["turned"])]),
    "the cosine scales something else": [
        n("Abs", ["x"], ["size"]),
        *rotation(changed=[n("Mul", ["size", "cos"], ["kept"])]),
    ],
    "it is subtracted": rotation(changed=[n("Sub", ["kept", "turned"], ["y"])]),
    "the sine is one number": rotation(changed=[n("Mul", ["flat", "one"], ["turned"])]),
    "the halves are the two ends of the axis": rotation(
        changed=[
            n("Reshape", ["x", "in_halves"], ["pairs"]),
            n("Slice", ["pairs", "0", "1", "3", "1"], ["a"]),
            n("Slice", ["pairs", "1", "2", "3", "1"], ["b"]),
            n("Concat", ["negative", "a"], ["rotated"], axis=3),
        ]
    ),
}


@pytest.mark.parametrize("what", NEAR_MISSES)
def test_a_near_miss_is_left_alone(patched, what):
    nodes = NEAR_MISSES[what]
    if "others" in {name for node in nodes for name in node.output}:  # in the order of their use
        nodes = [nodes[0], nodes[-1], *nodes[1:-1]]
    outputs = [info("z", F, (*DIMS[:-1], SIZE // 2, 1))] if any("z" in node.output for node in nodes) else []
    constants = {"one": np.float32([0.5]), "in_halves": np.array([0, HEADS, LENGTH, 2, SIZE // 2]), "3": np.array([3])}
    with pytest.raises(BuildError, match="toy: patch 'rope' cannot be applied: no tensor is rotated"):
        patched(model(nodes, *outputs, **constants), "rope")
