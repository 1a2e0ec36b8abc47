"""Tensors that lie in files: their digests, and how many of their elements are not finite."""

from __future__ import annotations

import math
import time

import pytest
import torch

from sam3_build.weights import finite, tensors
from sam3_build.weights.tensors import FileTensor, contiguous


@pytest.mark.parametrize("block", [4, 64, 1 << 22])
def test_elements_that_are_not_finite_are_counted_across_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(tensors, "BLOCK", block)
    values = torch.tensor([1.0, math.nan, -math.nan, math.inf, 3.4e38, -math.inf, 1e-45, math.nan] * 9)
    (tmp_path / "x").write_bytes(values.numpy().tobytes())
    tensor = FileTensor(tmp_path / "x", "F32", (72,), 0, contiguous((72,)))
    line = tensors.inventory_line(tensor)
    assert tensors.count_not_finite(tensor) == finite.Count(27, 18)
    assert (line["nan"], line["inf"]) == (27, 18) and tensors.read_tensor(tensor)[1] == line


def test_looking_for_nan_costs_little_beside_the_digest(tmp_path):
    tensor = torch.randn(1 << 22)
    (tmp_path / "x").write_bytes(tensor.numpy().tobytes())
    at = FileTensor(tmp_path / "x", "F32", (1 << 22,), 0, (1,))

    def best(work):
        times = []
        for _ in range(5):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        return min(times)

    assert best(lambda: tensors.count_not_finite(at)) < best(lambda: tensors.inventory_line(at)) * 0.6
