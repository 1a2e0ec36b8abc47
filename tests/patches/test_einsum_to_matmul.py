"""Einsum on toy graphs: what is a product of matrices becomes MatMul with the same bits, nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from toy_graphs import F, info, n, operators, results, toy

from sam3_build.errors import BuildError

ROWS, COLUMNS = ("batch", 5, 7), ("batch", 7, 4, 3)


def product(equation, rows=ROWS, columns=COLUMNS, result=("batch", 5, 4, 3)):
    node = n("Einsum", ["rows", "columns"], ["y"], "decoder.masks/Einsum_0", equation=equation)
    return toy([node], [info("rows", F, rows), info("columns", F, columns)], [info("y", F, result)])


@pytest.mark.parametrize("equation", ["bqc,bchw->bqhw", "b q c, b c h w -> b q h w"])
def test_a_product_of_matrices_becomes_a_matmul_with_the_same_bits(patched, equation):
    before = product(equation)
    after, facts = patched(before, "einsum_to_matmul")
    assert facts["rewrites"] == {"einsum_to_matmul": 1}
    assert operators(after) == ["Reshape", "MatMul", "Reshape"]
    assert {node.name.partition("/")[0] for node in after.graph.node} == {"decoder.masks"}
    random = np.random.default_rng(0)
    for batch in (1, 2, 5):
        rows, columns = (random.standard_normal((batch, *dims[1:])).astype(np.float32) for dims in (ROWS, COLUMNS))
        assert results(after, rows=rows, columns=columns) == results(before, rows=rows, columns=columns)


def test_a_number_of_rows_that_is_not_known_stays_so(patched):
    before = product("bqc,bchw->bqhw", ("batch", "count", 7), result=("batch", "count", 4, 3))
    after, _ = patched(before, "einsum_to_matmul")
    rows, columns = np.ones((2, 6, 7), np.float32), np.ones((2, 7, 4, 3), np.float32)
    assert results(after, rows=rows, columns=columns) == results(before, rows=rows, columns=columns)


@pytest.mark.parametrize("alone", ["rows", "columns"])
def test_one_matrix_for_all_pictures_is_broadcast_as_before(patched, alone):
    shapes = {"rows": ROWS, "columns": COLUMNS}
    shapes[alone] = (1, *shapes[alone][1:])
    before = product("bqc,bchw->bqhw", **shapes)
    after, _ = patched(before, "einsum_to_matmul")
    random = np.random.default_rng(0)
    sizes = {name: [dim if isinstance(dim, int) else 3 for dim in dims] for name, dims in shapes.items()}
    feeds = {name: random.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    assert results(after, **feeds) == results(before, **feeds)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bqc,bchw->bqwh", {"result": ("batch", 5, 3, 4)}),
        ("bqc,bhcw->bqhw", {"columns": ("batch", 4, 7, 3)}),
        ("bqc,bchw->bhwq", {"result": ("batch", 4, 3, 5)}),
        ("bqc,bchw->bqhw", {"rows": ("batch", 5, 1)}),
        ("bqc,bchw->bqhw", {"columns": ("batch", 7, "h", 3), "result": ("batch", 5, "h", 3)}),
    ],
    ids=["turned", "shared axis elsewhere", "rows last", "broadcast", "unknown height"],
)
def test_a_near_miss_is_left_alone(patched, equation, shapes):
    with pytest.raises(BuildError, match="no Einsum is a product of matrices"):
        patched(product(equation, **shapes), "einsum_to_matmul")


# ------------------------------------------------------------------ relative positions

QUERIES = ("batch", 5, 4, 7)


def by_table(equation, table, *, constant=True, queries=QUERIES):
    """A table [rows of it, 6, 7] of relative positions, a weight or computed."""
    weights = np.random.default_rng(1).standard_normal(table).astype(np.float32)
    inputs = [info("queries", F, queries)] if constant else [info("queries", F, queries), info("table", F, table)]
    given = {"table": weights} if constant else {}
    node = n("Einsum", ["queries", "table"], ["y"], "encoder.attn/Einsum_0", equation=equation)
    return toy([node], inputs, [info("y", F, (*queries[:3], 6))], given)


@pytest.mark.parametrize(
    ("equation", "table", "operators_after"),
    [
        ("bhwc,hkc->bhwk", (5, 6, 7), ["MatMul"]),
        ("bhwc,wkc->bhwk", (4, 6, 7), ["Transpose", "MatMul", "Transpose"]),
    ],
)
@pytest.mark.parametrize("constant", [True, False], ids=["weight", "computed"])
def test_relative_positions_become_a_matmul_with_a_turned_table(patched, equation, table, operators_after, constant):
    before = by_table(equation, table, constant=constant)
    after, facts = patched(before, "einsum_to_matmul")
    assert facts["rewrites"] == {"einsum_to_matmul": 1}
    assert sorted(operators(after)) == sorted([*operators_after, *([] if constant else ["Transpose"])])
    random = np.random.default_rng(0)
    feeds = {} if constant else {"table": random.standard_normal(table).astype(np.float32)}
    for batch in (1, 3):
        queries = random.standard_normal((batch, 5, 4, 7)).astype(np.float32)
        assert results(after, queries=queries, **feeds) == results(before, queries=queries, **feeds)


@pytest.mark.parametrize(
    ("equation", "table"),
    [("bhwc,hkc->bhwk", (1, 6, 7)), ("bhwc,kwc->bhwk", (6, 4, 7))],
    ids=["broadcast", "another order"],
)
def test_a_near_miss_of_relative_positions_is_left_alone(patched, equation, table):
    with pytest.raises(BuildError, match="no Einsum is a product of matrices"):
        patched(by_table(equation, table), "einsum_to_matmul")
