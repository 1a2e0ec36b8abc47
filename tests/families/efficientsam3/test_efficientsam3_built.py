"""The miniatures of EfficientSAM3, built: verified, published, and run where PyTorch cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from miniature import ROOT

MANIFESTS = ("efficientsam3_mini", "efficientsam3_mini_vit")

# Finds by words and by boxes, in a process that would fail if anything imported PyTorch or transformers.
RUN = """
import sys
for name in ("torch", "transformers", "timm"):
    sys.modules[name] = None
from sam3_build import runtime
with runtime.load("artifacts/{manifest}", target="cpu", precision="fp32") as model:
    scene = model.encode("manifests/samples/scene1.png")
    found = scene.segment(text="red circle", threshold=0.0)
    boxed = scene.segment(boxes=[(40, 40, 70, 70)], threshold=0.0)
    print(len(found), found.masks.shape, len(boxed))
"""


@pytest.mark.ci
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_miniature_is_built_verified_published_and_runs_without_pytorch(manifest):
    argv = [sys.executable, "-m", "doit", f"manifest={manifest}", "build", "model", "verify", "publish"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    code = RUN.format(manifest=manifest)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    count, rest = ran.stdout.split(maxsplit=1)
    assert int(count) == 20 and rest.startswith("(20, ")


@pytest.mark.ci
def test_the_manifests_of_full_size_are_sound():
    for manifest in ("efficientsam3", "efficientsam3_random"):
        argv = [sys.executable, "-m", "sam3_build", "plan", "-m", manifest]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert done.returncode == 0 and "export:vision_encoder" in done.stdout, done.stdout + done.stderr
