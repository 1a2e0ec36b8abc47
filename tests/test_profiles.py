"""Which sizes profiles take, and the groups in which rows are fed to them."""

from __future__ import annotations

import pytest

from sam3_build.pipeline.profiles import first_fit, fitting_rows, groups, misfit

ONE = {"batch": (1, 1, 1), "num_boxes": (1, 8, 20)}
WIDE = {"batch": (1, 4, 8), "num_boxes": (1, 2, 4)}
PAIRS = {"batch": (2, 2, 4), "num_boxes": (1, 8, 20)}


@pytest.mark.parametrize(
    ("profiles", "sizes", "expected"),
    [
        ([ONE], {"batch": 1, "num_boxes": 3}, ((0,),)),
        ([ONE], {"batch": 3, "num_boxes": 3}, ((0,), (1,), (2,))),
        ([WIDE], {"batch": 3, "num_boxes": 3}, ((0, 1, 2),)),
        ([WIDE], {"batch": 11, "num_boxes": 3}, (tuple(range(8)), (8, 9, 10))),
        ([ONE, WIDE], {"batch": 3, "num_boxes": 3}, ((0, 1, 2),)),
        ([ONE, WIDE], {"batch": 3, "num_boxes": 5}, ((0,), (1,), (2,))),  # the wide one takes no five boxes
        ([PAIRS], {"batch": 1, "num_boxes": 5}, ((0, 0),)),  # the last row again fills the smallest batch
        ([PAIRS], {"batch": 5, "num_boxes": 5}, ((0, 1, 2, 3), (4, 4))),
        ([ONE, WIDE], {"batch": 1, "num_boxes": 21}, None),
        ([], {"batch": 3}, ((0, 1, 2),)),
        ([{"num_boxes": (1, 1, 4)}], {"batch": 3, "num_boxes": 2}, ((0, 1, 2),)),
    ],
)
def test_rows_are_fed_in_groups_that_a_profile_takes(
    profiles: list[dict[str, tuple[int, int, int]]],
    sizes: dict[str, int],
    expected: tuple[tuple[int, ...], ...] | None,
) -> None:
    assert groups(profiles, sizes, "batch") == expected
    for rows in expected or ():
        assert not profiles or first_fit(profiles, {**sizes, "batch": len(rows)}) is not None


def test_without_a_dim_of_rows_a_case_fits_whole_or_not_at_all() -> None:
    assert groups([ONE], {"batch": 1, "num_boxes": 2}, None) == ((0,),)
    assert groups([ONE], {"batch": 2, "num_boxes": 2}, None) is None


def test_what_fits_no_profile_is_said_of_each_profile() -> None:
    profiles = {"'one'": ONE, "'wide'": WIDE}
    assert misfit(profiles, {"batch": 99, "num_boxes": 5}, "batch") is None, "rows can be grouped, and 'one' takes five"
    assert misfit(profiles, {"batch": 1, "num_boxes": 21}, "batch") == (
        "num_boxes is 21, and shape profile 'one' takes 1 to 20; num_boxes is 21, and shape profile 'wide' takes 1 to 4"
    )
    assert misfit({"1": ONE}, {"batch": 2}, None) == "batch is 2, and shape profile 1 takes 1"


@pytest.mark.parametrize(
    ("profiles", "boxes", "expected"),
    [
        ([WIDE], 2, (1, 0, 0)),
        ([ONE, WIDE], 5, ()),  # the wide one takes no five boxes
        ([ONE], 2, ()),
        ([{"batch": (1, 1, 2)}], 2, (1, 0)),
        ([{"batch": (4, 4, 4)}], 2, (1, 0, 0, 0)),
        ([{"batch": (1, 1, 1)}, {"batch": (6, 6, 8)}, {"batch": (5, 5, 5)}], 2, (1, 0, 0, 0, 0)),
    ],
)
def test_rows_are_fed_together_as_a_profile_takes_them(
    profiles: list[dict[str, tuple[int, int, int]]], boxes: int, expected: tuple[int, ...]
) -> None:
    assert fitting_rows(profiles, {"batch": 4, "num_boxes": boxes}, "batch", (1, 0, 0)) == expected
    assert fitting_rows(profiles, {"batch": 4, "num_boxes": boxes}, None, (1, 0, 0)) == ()
