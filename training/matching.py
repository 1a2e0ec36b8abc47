"""Takes the costs of pairing queries with wanted shapes, returns the cheapest one-to-one assignment. Needs scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def assign(costs: NDArray[np.float32], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return (runs, questions, queries, things): every pair of the cheapest assignments.

    `costs` is [runs, questions, queries, things]; of the things, question i has the first `counts[i]`.
    """
    from scipy.optimize import linear_sum_assignment

    pairs: list[tuple[int, int, int, int]] = []
    with_shapes = [int(question) for question in np.flatnonzero(counts)]
    for run in range(costs.shape[0]):
        for question in with_shapes:
            queries, things = linear_sum_assignment(costs[run, question, :, : counts[question]])
            pairs += [(run, question, int(q), int(t)) for q, t in zip(queries, things, strict=True)]
    return tuple(np.array(pairs, np.int64).reshape(-1, 4).T)
