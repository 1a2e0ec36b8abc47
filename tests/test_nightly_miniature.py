"""The default manifest, for real: what verify, publish and nightly do without a GPU, as docs/publishing.md says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from build_space import ROOT

from sam3_build.execution.session import this_gpu

PAGE = (ROOT / "docs" / "publishing.md").read_text()


def doit(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "doit", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)


@pytest.mark.slow
@pytest.mark.skipif(this_gpu(ROOT / "artifacts", os.environ)[0] is not None, reason="this machine has a GPU")
def test_without_a_gpu_verify_ends_well_publish_refuses_the_engines_and_the_night_is_good() -> None:
    built = doit("build", "verify")
    assert built.returncode == 0, built.stdout
    assert re.search(r"\d+ passed, 0 failed, \d+ not run", built.stdout)
    printed = PAGE.partition("```\n")[2].partition("```")[0]
    first, again = doit("publish"), doit("publish")
    assert (first.returncode, again.returncode) == (1, 1), first.stdout
    for run in (first, again):
        said = run.stdout.replace("  unchanged  ", "  published  ").replace("  kept       ", "  published  ")
        assert said == printed
    night = doit("nightly")
    assert night.returncode == 0, night.stdout
    assert "  unchanged  cpu " in night.stdout and "refused: ampere, ada, blackwell\n" in night.stdout
    assert ": 0 built, " in night.stdout.splitlines()[-1]
