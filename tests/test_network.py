"""A network that runs cases: rows in groups that a profile takes, and outputs that are the same for all rows."""

from __future__ import annotations

import numpy as np

from sam3_build.pipeline.network import Network
from sam3_build.spec import TensorSpec

X, WHOLE = TensorSpec("x", "float32", ("batch", 2)), TensorSpec("whole", "float32", (2,))


class Doubling:
    """Doubles rows, and gives a table beside them."""

    def __init__(self):
        self.inputs = {"x": X, "whole": WHOLE}

    def run(self, arrays):
        return {"y": arrays["x"] * 2 + arrays["whole"], "table": np.arange(3)}


def test_rows_are_joined_and_an_output_without_rows_is_given_once() -> None:
    dims = {"x": X.dims, "whole": WHOLE.dims}
    network = Network(Doubling(), dims, ({"batch": (1, 1, 2)},), "batch", {"x": 0, "y": 0})
    feed = {"x": np.arange(10, dtype=np.float32).reshape(5, 2), "whole": np.array([1, 2], np.float32)}
    found = network.run(feed, "case")
    np.testing.assert_array_equal(found["y"], feed["x"] * 2 + feed["whole"])
    assert found["table"].tolist() == [0, 1, 2]
