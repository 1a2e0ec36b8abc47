from __future__ import annotations

import numpy as np
import pytest

from sam3_build.compare.batch_invariance import BatchInvariance, permuted_rows

BATCH = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def taken(found: np.ndarray, feed: tuple[int, ...] = (1, 0, 0), reference: np.ndarray = BATCH) -> BatchInvariance:
    invariance = BatchInvariance()
    invariance.take("batch", feed, found, BATCH, reference)
    return invariance


@pytest.mark.parametrize(
    ("recorded", "most", "feed"),
    [
        (4, 3, (1, 0, 0)),
        (3, 8, (1, 0, 0)),
        (3, 2, (1, 0)),
        (2, 3, (1, 0)),
        (1, 3, (0, 0)),
        (1, 1, ()),
        (4, 1, ()),
        (4, 0, ()),
    ],
)
def test_no_more_rows_are_fed_than_the_case_has_and_an_engine_takes(
    recorded: int, most: int, feed: tuple[int, ...]
) -> None:
    assert permuted_rows(recorded, most) == feed


def test_rows_that_give_what_they_gave_differ_by_nothing() -> None:
    assert taken(BATCH[[1, 0, 0]]) == BatchInvariance(0.0, None, None, measured=True)


def test_the_largest_difference_is_measured_and_named() -> None:
    found = BATCH[[1, 0, 0]]
    found[2, 3] += 0.5
    invariance = taken(found)
    assert invariance.largest == pytest.approx(0.5, abs=1e-6)
    assert invariance.worst == (
        f"the rows [1, 0, 0] of case 'batch', fed together, have {found[2, 3].item():.6g} in row 2 at [3] where "
        f"{BATCH[0, 3].item():.6g} came in row 0 of the case"
    )


def test_a_bit_that_flipped_is_counted() -> None:
    before = BATCH > 0
    found = before[[1, 0, 0]]
    found[1, 2] = ~found[1, 2]
    invariance = BatchInvariance()
    invariance.take("batch", (1, 0, 0), found, before, before)
    assert invariance.largest == 1


def test_rows_that_are_all_alike_are_held_against_the_reference() -> None:
    """A network that ignores its batch gives equal rows before and again: nothing else would show it."""
    before = np.zeros_like(BATCH)
    invariance = BatchInvariance()
    invariance.take("batch", (1, 0, 0), before[[1, 0, 0]], before, BATCH)
    assert invariance.largest == pytest.approx(np.abs(BATCH[:2]).max())
    assert "all rows are alike, and row" in str(invariance.worst)


def test_rows_may_be_alike_where_the_reference_has_them_alike() -> None:
    same = np.repeat(BATCH[:1], 3, axis=0)
    invariance = BatchInvariance()
    invariance.take("batch", (1, 0, 0), same, same, same + 1)
    assert invariance.largest == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_a_problem_and_no_number(value: float) -> None:
    found = BATCH[[1, 0, 0]]
    found[0, 0] = value
    invariance = taken(found)
    assert invariance.largest is None
    assert invariance.problem == (
        "the rows [1, 0, 0] of case 'batch', fed together, have NaN or Inf in row 0, or had before"
    )


def test_rows_of_another_shape_are_a_problem() -> None:
    assert "are float32[1, 4], and in the case [3, 4]" in str(taken(BATCH[:1]).problem)
