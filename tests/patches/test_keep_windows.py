"""Windowed attention on toy graphs: the stream stays in windows between layers, and no value changes."""

from __future__ import annotations

import numpy as np
import pytest
from toy_graphs import F, info, n, operators, results, toy

from sam3_build.errors import BuildError

GRID, SIZE = 8, 3
DIMS = ("batch", GRID, GRID, SIZE)
SWAP = [0, 1, 3, 2, 4, 5]
RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "scale": RANDOM.standard_normal(SIZE).astype(np.float32),
    "bias": RANDOM.standard_normal(SIZE).astype(np.float32),
    "wide": RANDOM.standard_normal((SIZE, 5)).astype(np.float32),
    "narrow": RANDOM.standard_normal((5, SIZE)).astype(np.float32),
    "grid": np.array([-1, GRID, GRID, SIZE]),
}


def layer(number, source, window=4, mix=()):
    """One layer: attention in windows (a Softmax, which mixes tokens), then an MLP. Window 0 is the whole grid."""

    def name(tensor):
        return f"{tensor}{number}"

    count = GRID // window if window else 0
    inside, outside = name("inside"), name("outside")
    nodes = [n("LayerNormalization", [source, "scale", "bias"], [name("norm")], axis=-1)]
    shapes = {name("split"): [-1, count, window, count, window, SIZE], name("windows"): [-1, window, window, SIZE]}
    shapes[name("back")] = [-1, count, count, window, window, SIZE]
    if window:
        nodes += [
            n("Reshape", [name("norm"), name("split")], [name("a")]),
            n("Transpose", [name("a")], [name("b")], perm=SWAP),
            n("Reshape", [name("b"), name("windows")], [name("c")]),
            n("Softmax", [name("c")], [inside], axis=2),
            n("Reshape", [inside, name("back")], [name("d")]),
            n("Transpose", [name("d")], [name("e")], perm=SWAP),
            n("Reshape", [name("e"), "grid"], [outside]),
        ]
    else:
        nodes += [n("Softmax", [name("norm")], [outside], axis=1)]
    nodes += [
        n("Add", [source, outside], [name("h")]),
        n("LayerNormalization", [name("h"), "scale", "bias"], [name("norm2")], axis=-1),
        n("MatMul", [name("norm2"), "wide"], [name("f")]),
        n("Gelu", [name("f")], [name("g")]),
        n("MatMul", [name("g"), "narrow"], [name("i")]),
        n("Add", [name("i"), "bias"], [name("j")]),
        *mix,
        n("Add", [name("h"), name("k") if mix else name("j")], [name("x")]),
    ]
    return nodes, {key: np.array(value) for key, value in shapes.items() if window}


def network(*windows, mix=(), outputs=(), constants=None):
    nodes, shapes, source = [], {}, "x"
    for number, window in enumerate(windows):
        more, sizes = layer(number, source, window, mix if number == 0 else ())
        nodes, shapes, source = nodes + more, shapes | sizes, f"x{number}"
    nodes[-1].output[0] = "y"
    given = {**WEIGHTS, **shapes, **(constants or {})}
    used = {name for node in nodes for name in node.input}
    return toy(
        nodes, [info("x", F, DIMS)], [info("y", F, DIMS), *outputs], {k: v for k, v in given.items() if k in used}
    )


def equal(one, other):
    pictures = [RANDOM.standard_normal((batch, *DIMS[1:])).astype(np.float32) for batch in (1, 2, 5)]
    return all(results(one, x=x) == results(other, x=x) for x in pictures)


@pytest.mark.parametrize(
    ("windows", "rewrites", "transposes"),
    [((4, 4), 1, 2), ((4, 4, 4, 0), 2, 2), ((4, 4, 0, 2, 2), 2, 4), ((4, 2, 2, 4), 1, 6), ((0, 4, 4), 1, 2)],
)
def test_each_run_of_layers_enters_and_leaves_its_windows_once(patched, windows, rewrites, transposes):
    before = network(*windows)
    after, facts = patched(before, "keep_windows")
    assert facts["rewrites"] == {"keep_windows": rewrites}
    assert operators(after).count("Transpose") == transposes
    assert len(after.graph.node) == len(before.graph.node) - 6 * rewrites
    assert equal(before, after)


NEAR_MISSES = {
    "layers on the grid lie between": network(4, 0, 4),
    "other windows follow": network(4, 2),
    "tokens are mixed between the layers": network(4, 4, mix=[n("Softmax", ["j0"], ["k0"], axis=1)]),
    "a table of the grid is added between the layers": network(
        4,
        4,
        mix=[n("Add", ["j0", "table"], ["k0"])],
        constants={"table": RANDOM.standard_normal((GRID, GRID, SIZE)).astype(np.float32)},
    ),
    "the input is added between the layers": network(4, 4, mix=[n("Add", ["j0", "x"], ["k0"])]),
    "the stream between the layers is an output": network(4, 4, outputs=[info("x0", F, DIMS)]),
    "the residual is an output": network(4, 4, outputs=[info("h0", F, DIMS)]),
}


@pytest.mark.parametrize("what", NEAR_MISSES)
def test_a_near_miss_is_left_alone(patched, what):
    with pytest.raises(BuildError, match="no two layers with the same attention windows follow one another"):
        patched(NEAR_MISSES[what], "keep_windows")


def test_windows_that_hold_padding_are_refused_with_what_to_do(patched):
    """A grid of 8 x 8 in windows of 3: each layer pads it to 9 x 9 anew, and cuts that off again."""
    nodes, shapes, source = [], {}, "x"
    for number in range(2):
        more, sizes = layer(number, source, 3)
        before, split, after = more[0], more[1], more[7]
        before.output[0], split.input[0] = f"bare{number}", f"norm{number}"
        after.input[1], after.output[0] = "padded_grid", f"wide{number}"
        more[8:8] = [n("Slice", [f"wide{number}", "zeros", "sides", "axes"], [f"outside{number}"])]
        more[1:1] = [n("Pad", [f"bare{number}", "edges"], [f"norm{number}"])]
        parts = {f"split{number}": [-1, 3, 3, 3, 3, SIZE], f"back{number}": [-1, 3, 3, 3, 3, SIZE]}
        nodes, shapes, source = nodes + more, shapes | sizes | {k: np.array(v) for k, v in parts.items()}, f"x{number}"
    nodes[-1].output[0] = "y"
    given = {
        **WEIGHTS,
        **shapes,
        "edges": np.array([0, 0, 0, 0, 0, 1, 1, 0]),
        "padded_grid": np.array([-1, 9, 9, SIZE]),
    }
    given |= {"zeros": np.array([0, 0]), "sides": np.array([GRID, GRID]), "axes": np.array([1, 2])}
    used = {name for node in nodes for name in node.input}
    padded = toy(nodes, [info("x", F, DIMS)], [info("y", F, DIMS)], {k: v for k, v in given.items() if k in used})
    says = "windows of 3 x 3 do not divide the grid of 8 x 8, which every layer pads anew: leave keep_windows out"
    with pytest.raises(BuildError, match=says):
        patched(padded, "keep_windows")
