"""The miniatures of SAM 2's kind that ship, for real: what users build, verify and publish, without a GPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from build_space import ROOT, copy_manifests
from PIL import Image

from sam3_build import runtime
from sam3_build.errors import BuildError
from sam3_build.pipeline import clips


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("sam2_mini", "mask_decoder"),
        ("edgetam_mini", "mask_decoder"),
        ("sam2_mini_deepstream", "memory_attention"),
        ("sam3_video_mini", "mask_decoder"),
        ("sam3_video_words_mini", "decoder"),
    ],
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
    folder = tmp_path / "artifacts" / name / "published" / "cpu"
    assert (folder / f"{last}.fp16.onnx").is_file()
    if name == "sam3_video_words_mini":
        _find(folder, tmp_path)
    elif name != "sam2_mini_deepstream":
        _follow(folder, tmp_path)
        _segment(folder, tmp_path)


def _find(folder, scratch):
    """Find two texts in a clip with what was published, by the command and in Python; pictures are refused."""
    clip = ROOT / "manifests" / "samples" / "clip"
    argv = [sys.executable, "-m", "sam3_build", "track", clip, "--from", folder, "--text", "star", "--text", "circle"]
    argv += ["--out", scratch / "found", "--save", "json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "what 'star', 'circle' finds, 5 frames" in done.stdout, done.stdout + done.stderr
    tracks = json.loads((scratch / "found" / "clip.json").read_text())["frames"]
    with runtime.load(folder) as model, model.track_text(clip, ["star", "circle"]) as finding:
        frames = list(finding)
        with pytest.raises(BuildError, match="finds nothing in pictures; its pipelines are text_video"):
            model.encode(clip / "00000.png")
    assert [[one["text"] for one in frame["objects"]] for frame in tracks] == [list(frame.texts) for frame in frames]
    assert [[one["id"] for one in frame["objects"]] for frame in tracks] == [frame.ids.tolist() for frame in frames]
    assert {text for frame in frames for text in frame.texts} == {"star", "circle"}


def _follow(folder, scratch):
    """Follow two objects with what was published, by the command, and look at all that it writes."""
    clip, out = ROOT / "manifests" / "samples" / "clip", scratch / "tracked"
    prompts = [{"frame": 0, "object": 1, "points": "pos:30,44"}, {"frame": 2, "object": 2, "boxes": "pos:82,20,34,34"}]
    (scratch / "prompts.json").write_text(json.dumps(prompts))
    argv = [sys.executable, "-m", "sam3_build", "track", clip, "--from", folder, "--prompts", scratch / "prompts.json"]
    argv += ["--out", out, "--save", "sheet,video,masks,json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 objects, 5 frames" in done.stdout
    tracks = json.loads((out / "clip.json").read_text())["frames"]
    assert [len(frame["objects"]) for frame in tracks] == [2] * 5
    with runtime.load(folder) as model, model.track(clip) as following:
        following.add(0, object=1, points=[[30, 44]])
        following.add(2, object=2, boxes=[[82, 20, 116, 54]])
        for frame, written in zip(following, tracks, strict=True):
            assert frame.scores.tolist() == [one["score"] for one in written["objects"]]
            for i, which in enumerate(frame.ids.tolist()):
                file = out / f"clip.{frame.index:05}.{which}.png"
                assert file.is_file() == bool(frame.visible[i])
                assert not frame.visible[i] or (np.asarray(Image.open(file)) > 0).tolist() == frame.masks[i].tolist()
    assert clips.length(out / "clip.webm") == 5
    with Image.open(out / "clip.png") as sheet:
        assert sheet.width > 4 * 160 and sheet.height > 2 * 120


def _segment(folder, scratch):
    """Segment what a click means with what was published, by the command."""
    picture, out = ROOT / "manifests" / "samples" / "scene1.png", scratch / "segmented"
    argv = [sys.executable, "-m", "sam3_build", "segment", picture, "--from", folder, "--points", "pos:55,55"]
    argv += ["--out", out]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "scene1.png").is_file()
