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


# The same of clicks: in one file, and in two.
CLICKED = """
import sys
for name in ("torch", "transformers", "timm"):
    sys.modules[name] = None
from sam3_build import runtime
for manifest in ("efficientsam3_mini_clicks", "efficientsam3_mini_separate"):
    with runtime.load(f"artifacts/{manifest}", target="cpu", precision="fp32") as model:
        scene = model.encode("manifests/samples/scene1.png")
        found = scene.segment(points=[(55, 55)], boxes=[(40, 40, 70, 70)])
        print(found.masks.shape, int(found.masks.sum()), found.scores)
"""


def built(manifest):
    """Build, verify and publish a manifest; return what was said of it."""
    argv = [sys.executable, "-m", "doit", f"manifest={manifest}", "build", "model", "verify", "publish"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    return done.stdout


def printed(*argv):
    """Return what Python prints."""
    ran = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.ci
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_miniature_is_built_verified_published_and_runs_without_pytorch(manifest):
    built(manifest)
    count, rest = printed("-c", RUN.format(manifest=manifest)).split(maxsplit=1)
    assert int(count) == 20 and rest.startswith("(20, ")


@pytest.mark.ci
def test_the_heads_for_clicks_are_built_verified_published_and_run_without_pytorch():
    for manifest in ("efficientsam3_mini_clicks", "efficientsam3_mini_separate"):
        said = built(manifest)
        assert "pictures fed as transformers does instead of as the authors' code does" in said
    one_file, two_files = printed("-c", CLICKED).splitlines()
    assert one_file.startswith("(1, 168, 168)") and one_file.split()[:4] == two_files.split()[:4]


@pytest.mark.ci
def test_the_manifests_of_full_size_are_sound():
    for manifest in ("efficientsam3", "efficientsam3_random", "efficientsam3_random_clicks"):
        argv = [sys.executable, "-m", "sam3_build", "plan", "-m", manifest]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert done.returncode == 0 and "export:vision_encoder" in done.stdout, done.stdout + done.stderr
