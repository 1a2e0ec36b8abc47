"""Delta debugging over named nodes: what it returns passes, nothing of it can be left out, and it asks little."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sam3_build.diagnose.delta_debugging import minimal, one_by_one, starts

Nodes = frozenset[str]
BLOCKS = tuple(
    f"encoder.layers.{block}.{part}/{operator}_{count}"
    for block in range(32)
    for part in ("norm1", "attn.qkv", "attn", "mlp.fc1", "mlp")
    for operator in ("MatMul", "Add")
    for count in range(3)
)


class Counting:
    """A test that remembers every set that it was asked about, and answers each once."""

    def __init__(self, passes: Callable[[Nodes], bool]) -> None:
        self.passes = passes
        self.known: dict[Nodes, bool] = {}

    def __call__(self, nodes: Nodes) -> bool:
        if nodes not in self.known:
            self.known[nodes] = self.passes(nodes)
        return self.known[nodes]


def needs(*nodes: str) -> Counting:
    return Counting(frozenset(nodes).issubset)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_the_planted_nodes_are_found_in_about_their_number_times_the_logarithm_of_all(count: int, seed: int) -> None:
    wanted = random.Random(seed).sample(BLOCKS, count)
    test = needs(*wanted)
    assert minimal(BLOCKS, frozenset(BLOCKS), frozenset(), test) == frozenset(wanted)
    assert len(test.known) <= 2 + count * (2 * 10 + 1)  # 960 nodes: 10 halvings, and each member left out in the end


def test_neighbours_cost_less_than_nodes_far_apart() -> None:
    block = [name for name in BLOCKS if "layers.7.mlp/" in name]
    test = needs(*block)
    assert minimal(BLOCKS, frozenset(BLOCKS), frozenset(), test) == frozenset(block)
    assert len(test.known) < 60


def test_right_seeds_are_only_asked_about_one_by_one() -> None:
    wanted = frozenset((BLOCKS[3], BLOCKS[400]))
    test = needs(*wanted)
    assert minimal(BLOCKS, wanted, wanted, test) == wanted
    assert len(test.known) == 3


def test_what_is_not_seeded_is_dropped_first() -> None:
    seeds = frozenset((BLOCKS[3], BLOCKS[400]))
    test = needs(BLOCKS[3])
    assert minimal(BLOCKS, frozenset(BLOCKS), seeds, test) == {BLOCKS[3]}
    assert next(iter(test.known)) == seeds


def test_either_of_two_nodes_is_enough_and_one_is_returned() -> None:
    test = Counting(lambda nodes: bool(nodes & {BLOCKS[0], BLOCKS[900]}))
    assert len(minimal(BLOCKS, frozenset(BLOCKS), frozenset(), test)) == 1


def test_where_a_larger_set_can_fail_the_result_still_passes_and_needs_each_member() -> None:
    """Members of one kind only help in pairs, and 17 spoils what needs it not."""

    def passes(nodes: Nodes) -> bool:
        chosen = {BLOCKS.index(node) for node in nodes}
        return {1, 2} <= chosen and (17 not in chosen or 18 in chosen)

    test = Counting(passes)
    found = minimal(BLOCKS, frozenset(BLOCKS), frozenset(), test)
    assert passes(found)
    assert not any(passes(found - {node}) for node in found)


def test_a_start_that_is_minimal_stays() -> None:
    test = needs(*BLOCKS[:4])
    assert minimal(BLOCKS, frozenset(BLOCKS[:4]), frozenset(), test) == frozenset(BLOCKS[:4])


def test_leaving_single_nodes_out_goes_on_behind_one_that_was_left_out() -> None:
    test = needs(*BLOCKS[:80:2])
    assert one_by_one(BLOCKS, frozenset(BLOCKS[:80]), test) == frozenset(BLOCKS[:80:2])
    assert len(test.known) == 80 + 40, "each once, and what is left once more: not from the beginning after each"


def test_searching_again_asks_the_same() -> None:
    tests = [needs(BLOCKS[5], BLOCKS[500], BLOCKS[501]) for _ in range(2)]
    for test in tests:
        minimal(BLOCKS, frozenset(BLOCKS), frozenset(), test)
    assert list(tests[0].known) == list(tests[1].known)


def test_names_without_a_module_path_and_names_that_are_also_prefixes_are_nodes_of_their_own() -> None:
    names = ("Mul_0", "a/Mul_0", "a/Mul_01", "a.b/Mul_0", "a.b.c/Mul_0")
    for wanted in names:
        assert minimal(names, frozenset(names), frozenset(), needs(wanted)) == {wanted}


# ------------------------------------------------------------------ where to begin


def test_starts_grow_from_nothing_to_everything() -> None:
    seeds = frozenset(BLOCKS[:2])
    found = dict(starts(BLOCKS, seeds))
    assert list(found) == ["nothing", "seeds", "seeds and norm", "seeds and attention", "seeds and mlp", "everything"]
    assert found["nothing"] == frozenset() and found["everything"] == frozenset(BLOCKS)
    assert found["seeds and norm"] == seeds | {name for name in BLOCKS if ".norm1/" in name}
    assert [len(nodes) for nodes in found.values()] == sorted(len(nodes) for nodes in found.values())


def test_without_seeds_kinds_stand_alone_and_those_without_nodes_are_left_out() -> None:
    names = ("a/Softmax_0", "a/MatMul_0")
    assert list(starts(names, frozenset())) == [
        ("nothing", frozenset()),
        ("softmax", frozenset({"a/Softmax_0"})),
        ("everything", frozenset(names)),
    ]
