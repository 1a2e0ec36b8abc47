"""Which block is named, from statistics made by hand; and the picture of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from sam3_build.compare.depth import EVERYWHERE, Depth, depths, parting, times_gate
from sam3_build.compare.depth_plot import svg
from sam3_build.compare.judge import default_gates, holds
from sam3_build.spec import Gate

SOUND = {"cosine": 1.0, "max_abs_over_range": 0.0, "max_abs_over_std": 0.0, "std_ratio": 1.0}
CLEAN = {"nonfinite": 0, "incomparable": 0}


def statistics(error: float, **changes: object) -> dict[str, object]:
    """Return a tensor's statistics whose largest error is `error` times FP16's gate on it."""
    metrics = {**SOUND, **CLEAN, "max_abs_over_range": 0.02 * error}
    return {"metrics": metrics, "reference": {"min": -4.0, "max": 4.0}, "nonfinite_reference": 0, **changes}


def block(name: str, *errors: float, after: Sequence[int] = ()) -> dict[str, object]:
    tensors = {f"{name}:{i}": {"node": f"{name}/Add_{i}", "statistics": statistics(e)} for i, e in enumerate(errors)}
    return {"name": name, "after": list(after), "tensors": tensors}


def chain(*errors: float) -> tuple[Depth, ...]:
    """Return blocks `b0`, `b1`, ... of which each reads from the one before it."""
    blocks = [block(f"b{i}", error, after=range(max(0, i - 1), i)) for i, error in enumerate(errors)]
    return depths({"precision": "fp16", "blocks": blocks})


def named(found: Sequence[Depth]) -> str:
    parts = parting(found)
    assert parts
    return parts.block


@pytest.mark.parametrize(
    ("errors", "block"),
    [
        ((0.02, 0.03, 40.0, 60.0, 90.0), "b2"),
        ((0.02, 0.3, 0.6, 1.1, 8.0, 9.0), "b4"),  # b3 is the first above the gate, and only where rounding has grown up
        ((0.02, 0.9, 1.3, 1.6), "b1"),  # nobody jumps above the gate: b1 adds most
        ((5.0, 5.0, 5.0), "b0"),
        ((0.001, 0.02, 0.6, 0.9, 1.4), "b2"),  # b1 grows 20 times, from nothing to nothing
    ],
)
def test_the_block_that_jumps_is_named_and_not_the_first_one_above_its_gate(
    errors: tuple[float, ...], block: str
) -> None:
    assert named(chain(*errors)) == block


def test_a_block_is_held_against_what_it_reads_and_not_against_its_neighbour() -> None:
    blocks = [
        block("trunk", 0.05),
        block("faulty", 9.0, after=[0]),
        block("other", 0.06, after=[0]),
        block("behind", 10.0, after=[1]),
    ]
    found = depths({"precision": "fp16", "blocks": blocks})
    assert named(found) == "faulty"
    assert (found[2].before, found[3].before) == (pytest.approx(0.05), pytest.approx(9))


def test_a_block_is_as_wrong_as_the_worst_tensor_that_leaves_it() -> None:
    (found,) = depths({"precision": "fp16", "blocks": [block("b", 0.1, 7.0, 0.2)]})
    assert (found.node, found.error) == ("b/Add_1", pytest.approx(7.0))


def test_masks_and_what_was_not_compared_are_no_errors() -> None:
    tensors = {
        "mask": {"node": "b/Where_0", "statistics": statistics(50, reference={"min": -3.4e38, "max": 0.0})},
        "other mask": {"node": "b/Where_1", "statistics": statistics(math.inf, nonfinite_reference=3)},
        "elsewhere": {"node": "b/Add_0", "statistics": None},
        "empty": {"node": "b/Slice_0", "statistics": {"metrics": dict.fromkeys(SOUND) | CLEAN}},
    }
    assert depths({"precision": "fp16", "blocks": [{"name": "b", "after": [], "tensors": tensors}]}) == ()
    tensors["signal"] = {"node": "b/Add_1", "statistics": statistics(0.5)}
    (found,) = depths({"precision": "fp16", "blocks": [{"name": "b", "after": [], "tensors": tensors}]})
    assert found.node == "b/Add_1"


@pytest.mark.parametrize(
    ("problem", "told"), [({"nonfinite": 9}, "NaN or Inf"), ({"incomparable": 2}, "another shape")]
)
def test_a_tensor_without_one_comparable_value_is_infinitely_wrong(problem: dict[str, int], told: str) -> None:
    blocks = [block("b0", 0.1), block("b1", after=[0]), block("b2", after=[1])]
    wrong = {"metrics": dict.fromkeys(SOUND) | CLEAN | problem}
    for number in (1, 2):
        blocks[number]["tensors"] = {"t": {"node": f"b{number}/Add_0", "statistics": wrong}}
    found = depths({"precision": "fp16", "blocks": blocks})
    assert named(found) == "b1"
    assert [depth.told for depth in found] == ["0.1", told, told]
    assert found[2].growth == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("value", [0.0, 1e-6, 1e-3, 0.02, 0.0200001, 0.5, 0.98, 0.999, 0.9989999, 1.0, 1.02, 1.03, 3.0])
def test_an_error_is_above_one_exactly_when_the_judge_fails_it(precision: str, value: float) -> None:
    gates = [gate for gate in default_gates(precision, "float32") if gate.metric in EVERYWHERE]
    assert {"nonfinite", "incomparable"} < {gate.metric for gate in gates}
    for gate in gates:
        assert (times_gate([gate], {gate.metric: value}) > 1) == (not holds(gate, value)), gate


def test_an_error_of_twice_the_size_is_twice_as_far_from_every_gate() -> None:
    gates = {gate.metric: gate for gate in default_gates("fp16", "float32")}
    for metric, small, large in (
        ("max_abs_over_range", 0.001, 0.002),
        ("std_ratio", 1.003, 1.006),
        ("cosine", 1 - 1e-5, 1 - 4e-5),
    ):
        once, twice = (times_gate([gates[metric]], {metric: value}) for value in (small, large))
        assert twice == pytest.approx(2 * once), metric


def test_gates_on_what_only_whole_outputs_have_are_left_out() -> None:
    assert times_gate([Gate("rows", 0.02), Gate("cosine", 0.999, at_least=True)], {"cosine": 1.0}) == 0


# ------------------------------------------------------------------ the picture


def picture(found: Sequence[Depth]) -> tuple[str, ElementTree.Element]:
    text = svg("net <fp16> & more", found, parting(found))
    return text, ElementTree.fromstring(text)


def test_the_picture_shows_every_block_in_order_and_marks_the_one_that_parts() -> None:
    text, root = picture(chain(0.02, 0.03, 40.0, 60.0))
    space = "{http://www.w3.org/2000/svg}"
    rows = root.findall(f"{space}g")
    assert [row.find(f"{space}title").text for row in rows] == ["b0", "b1", "b2", "b3"]
    assert [row.find(f"{space}text").text for row in rows] == [f"b{i}/Add_0" for i in range(4)]
    assert [row.get("class") for row in rows] == ["block", "block", "parts", "block"]
    across = [float(row.find(f"{space}circle").get("cx")) for row in rows]
    gate = float(root.find(f"{space}line[@class='gate']").get("x1"))
    assert across == sorted(across) and across[1] < gate < across[2]
    assert "prefers-color-scheme: dark" in text and "net &lt;fp16&gt; &amp; more" in text


def test_no_error_and_an_infinite_one_stand_at_the_edges_of_the_picture() -> None:
    found = [
        Depth("a", "a/Add_0", 0.0, 0.0, "0", 0.0, 1.0),
        Depth("b", "b/Add_0", 0.0, 0.5, "0.5", 0.0, 1.0),
        Depth("c", "c/Add_0", 0.5, math.inf, "NaN or Inf", None, None),
    ]
    text, root = picture(found)
    none, some, infinite = (float(circle.get("cx")) for circle in root.iter("{http://www.w3.org/2000/svg}circle"))
    assert none < some < infinite < float(root.get("width"))
    assert "inf" not in text.replace("NaN or Inf", "") and "nan" not in text
