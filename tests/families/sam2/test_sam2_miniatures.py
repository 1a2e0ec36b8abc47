"""The miniatures that ship, for real: what users build, verify and publish without a download and without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import onnx
import pytest
from build_space import ROOT, copy_manifests


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "last"), [("sam2_mini", "mask_decoder"), ("sam2_mini_deepstream", "memory_attention")]
)
def test_a_miniature_is_built_verified_and_published(name, last, tmp_path):
    shutil.copytree(ROOT / "sam3_build", tmp_path / "sam3_build", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dodo.py", tmp_path)
    copy_manifests(tmp_path)

    def doit(*words):
        argv = [sys.executable, "-m", "doit", f"manifest={name}", *words]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1200)

    built = doit("-n", "2", "build", "verify")
    assert built.returncode == 0, built.stdout + built.stderr
    assert re.search(r"\d+ passed, 0 failed", built.stdout), built.stdout
    graph = onnx.load(tmp_path / "artifacts" / name / "memory_attention" / "memory_attention.fp32.onnx")
    rotated = [node.name for node in graph.graph.node if ".rope/Add" in node.name]
    assert len(rotated) == 2 * 4, "queries and keys of two attentions in each of two layers, as fp16_safe keeps them"
    published = doit("publish")
    assert "  published  cpu " in published.stdout, published.stdout + published.stderr
    assert (tmp_path / "artifacts" / name / "published" / "cpu" / f"{last}.fp16.onnx").is_file()
