"""What the tests of this family share: one thread."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Test processes share the cores."""
    torch.set_num_threads(1)
