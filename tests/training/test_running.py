"""What processes that train together share: gradients, and the wish to stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training import running


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    threads = torch.get_num_threads()
    running.meet(0, 1, tmp_path / "meeting", seed=1)
    yield
    running.part()
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("alone")
def test_a_weight_without_a_gradient_is_left_alone() -> None:
    learnt, left = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    before = left.weight.clone()
    model = torch.nn.ModuleList([learnt, left])
    optimizer = running.adam(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    learnt(torch.ones(1, 2)).sum().backward()
    expected = learnt.weight.grad.clone()
    assert not running.add_up(list(model.parameters()), stop=False)
    assert torch.equal(learnt.weight.grad, expected)
    assert left.weight.grad is None
    optimizer.step()
    assert torch.equal(left.weight, before)  # no decay either
    assert running.add_up(list(model.parameters()), stop=True)
