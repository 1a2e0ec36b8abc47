"""Position tables on toy graphs: what becomes a constant, what stays, and that no value changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from toy_graphs import F, info, n, operators, results, toy

from sam3_build.errors import BuildError
from sam3_build.stages import patch

BATCH = [n("Shape", ["x"], ["b"], start=0, end=1)]
TABLE = [
    *BATCH,
    n("Concat", ["b", "four"], ["s"], axis=0),
    n("Expand", ["positions", "s"], ["e"]),
    n("Sin", ["e"], ["table"]),
]
CONSTANTS = {"four": np.array([4]), "positions": np.linspace(0, 9, 4, dtype=np.float32)[None]}


@pytest.mark.parametrize("output", [True, False])
def test_a_table_becomes_one_row_and_one_expand(patched, output):
    reads = [n("Add", ["x", "table"], ["y"])]
    outputs = [info("y"), *([info("table")] if output else [])]
    model = toy([*TABLE, *reads], [info("x")], outputs, CONSTANTS)
    result, facts = patched(model, "fold_position_tables")
    assert facts["rewrites"] == {"fold_position_tables": 1}
    assert operators(result) == ["Shape", "Concat", "Expand", "Add"]
    assert all(node.name.startswith("m.") for node in result.graph.node)
    for batch in (1, 2, 7):
        x = np.random.default_rng(batch).standard_normal((batch, 4)).astype(np.float32)
        assert results(result, x=x) == results(model, x=x)


def test_folding_twice_finds_nothing_the_second_time(patched, tmp_path):
    model = toy([*TABLE, n("Add", ["x", "table"], ["y"])], [info("x")], [info("y")], CONSTANTS)
    once, _ = patched(model, "fold_position_tables")
    (tmp_path / "again").mkdir()
    onnx.save(once, tmp_path / "once.onnx")
    params = {"component": "toy", "patches": ["fold_position_tables"]}
    with pytest.raises(BuildError, match="no floating tensor is computed from constants and the batch size alone"):
        patch.run(params, {"onnx": tmp_path / "once.onnx"}, tmp_path / "again")


def test_a_table_that_differs_between_pictures_is_left_alone_and_reported(patched):
    nodes = [
        *BATCH,
        n("Squeeze", ["b"], ["count"]),
        n("Range", ["zero", "count", "one"], ["r"]),
        n("Cast", ["r"], ["f"], to=F),
        n("Unsqueeze", ["f", "one_"], ["table"]),
        n("Add", ["x", "table"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "one_": np.array([1])}
    with pytest.raises(BuildError, match="'fold_position_tables' found nothing to rewrite"):
        patched(toy(nodes, [info("x")], [info("y")], constants), "fold_position_tables")


def test_a_tensor_that_depends_on_another_dynamic_size_is_no_table(patched):
    table = [n("Shape", ["x"], ["s"]), n("Expand", ["c", "s"], ["e"]), n("Sin", ["e"], ["t"])]
    dims = ("batch", "length")
    nodes = [*table, n("Add", ["x", "t"], ["y"])]
    model = toy(nodes, [info("x", dims=dims)], [info("y", dims=dims)], {"c": np.float32([2])})
    with pytest.raises(BuildError, match="no floating tensor is computed from constants and the batch size alone"):
        patched(model, "fold_position_tables")


def test_inputs_without_a_common_batch_are_refused(patched):
    model = toy([n("Neg", ["x"], ["y"])], [info("x", dims=(2, 4))], [info("y", dims=(2, 4))])
    with pytest.raises(BuildError, match="toy: patch 'fold_position_tables' cannot be applied: its inputs share no"):
        patched(model, "fold_position_tables")
