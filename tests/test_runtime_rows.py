"""One picture serves several prompts: what a network has of it is repeated along the open dims of its inputs."""

from __future__ import annotations

import numpy as np

from sam3_build.runtime.opened import spread


def test_one_picture_is_repeated_for_several_prompts_and_what_is_fixed_is_not() -> None:
    dims = {"features": ("objects", 2), "finer": (1, 2), "points": ("objects", "points")}
    given = {"features": np.ones((1, 2)), "finer": np.ones((1, 2)), "points": np.ones((3, 1))}
    found = {name: array.shape for name, array in spread(given, dims).items()}
    assert found == {"features": (3, 2), "finer": (1, 2), "points": (3, 1)}
