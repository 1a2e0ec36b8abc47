"""The whole of SAM 3's size on a machine like CI's: half an hour, so never in the quick suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_full_size_builds_within_its_time_and_memory_and_passes_its_gates() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/full_size.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
