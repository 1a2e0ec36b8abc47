"""A published folder, moved elsewhere, is enough to run: built, judged and published as users do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_space import ROOT

from sam3_build import runtime

PUBLISHED = ROOT / "artifacts" / "sam3_mini" / "published"
SCENE = ROOT / "manifests" / "samples" / "scene1.png"


@pytest.mark.slow
def test_a_published_folder_alone_is_enough_to_run_and_says_what_it_withholds(tmp_path: Path) -> None:
    for words in (["build", "model", "verify"], ["publish:cpu"]):
        done = subprocess.run(
            [sys.executable, "-m", "doit", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(shutil.copytree(PUBLISHED / "cpu", tmp_path / "elsewhere"))
    described = json.loads((folder / "model.json").read_bytes())
    assert {file["target"] for file in described["files"]} == {"cpu"}
    assert {Path(file["path"]).name for file in described["files"]} == {file["path"] for file in described["files"]}
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert sums.returncode == 0 and "model.json: OK" in sums.stdout and "tokenizer.json: OK" in sums.stdout
    with runtime.load(folder) as model:
        assert model.choice.name == "cpu fp32"
        there = model.segment(SCENE, "red circle")
    with runtime.load(ROOT / "artifacts" / "sam3_mini", target="cpu", precision="fp32") as model:
        here = model.segment(SCENE, "red circle")
    assert (there.masks == here.masks).all() and (there.scores == here.scores).all() and len(there) == 2
