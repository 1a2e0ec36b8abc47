"""One manifest, the same weights by other names: what a real doit builds, and what it finds fresh."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import sam3_weights as weights
import torch
from build_space import copy_manifests
from local_files import serve as serve_files
from local_hub import serve
from miniature import CONFIG, ROOT, TOKENIZER
from safetensors.torch import save_file
from sam3_official import to_official

REPO = "some-org/sam3"

# The smallest part that shows which component's tensors changed.
GOALS = ("export:text_encoder", "export:geometry_encoder", "samples")


@pytest.fixture(scope="module")
def state(config):
    generator = torch.Generator().manual_seed(2)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in weights.whole_model(config).items()}


@pytest.fixture
def project(tmp_path, state):
    """A project of its own with the weights as a folder and as sam3.pt."""
    shutil.copytree(ROOT / "sam3_build", tmp_path / "sam3_build", ignore=shutil.ignore_patterns("__pycache__"))
    copy_manifests(tmp_path)
    shutil.copy(ROOT / "dodo.py", tmp_path)
    for name in ("folder", "metas"):
        (tmp_path / "manifests" / name).mkdir()
        shutil.copy(CONFIG, tmp_path / "manifests" / name / "config.json")
        shutil.copy(TOKENIZER, tmp_path / "manifests" / name / "tokenizer.json")
    save_file(state, tmp_path / "manifests" / "folder" / "model.safetensors")
    torch.save({"model": to_official(state)}, tmp_path / "manifests" / "metas" / "sam3.pt")
    return tmp_path


def doit(project, source, *goals, more="", **environ):
    """Build goals from a checkpoint, and `more` of the manifest; return the actions built, or what was said."""
    manifest = project / "manifests" / "m.yaml"
    manifest.write_text(f"extends: sam3_mini.yaml\ncheckpoint: {{{source}}}\n{more}")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SAM3_"))}
    done = subprocess.run(
        [sys.executable, "-m", "doit", "manifest=m", *(goals or GOALS)],
        cwd=project,
        env={**kept, "PYTHONPATH": str(project), **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    return set(re.findall(r"^  built +(\S+)", said, re.M)) if done.returncode == 0 else said


@pytest.mark.ci
def test_the_same_weights_by_another_name_build_nothing_but_the_checkpoint(project, state):
    parts = ("export:vision_encoder", "export:decoder", "samples")
    assert doit(project, "path: folder", *parts) == {"checkpoint", *parts}
    assert doit(project, "path: metas", *parts) == {"checkpoint"}

    head = next(key for key in state if key.startswith("mask_decoder.mask_embedder."))
    tuned = {**state, head: state[head] + 1}
    torch.save({"model": to_official(tuned)}, project / "manifests" / "metas" / "sam3.pt")
    assert doit(project, "path: metas", *parts) == {"checkpoint", "export:decoder"}

    data = (project / "manifests" / "metas" / "sam3.pt").read_bytes()
    (project / "manifests" / "metas" / "sam3.pt").write_bytes(data[:-9000])
    assert "sam3.pt is cut short" in doit(project, "path: metas", *parts)
    half = {key: tensor for key, tensor in to_official(state).items() if "geometry" not in key}
    torch.save(half, project / "manifests" / "metas" / "sam3.pt")
    assert "missing: geometry_encoder.label_embed.weight [2, 64]" in doit(project, "path: metas", *parts)
    assert doit(project, "path: folder", *parts) == set()


@pytest.mark.slow
def test_weights_at_the_hub_are_those_of_a_folder_and_are_needed_only_to_build(project):
    assert doit(project, "path: folder") == {"checkpoint", *GOALS}
    files = {p.name: p.read_bytes() for p in (project / "manifests" / "folder").iterdir()}
    source = f"path: null, hub: {REPO}"
    with serve(REPO) as hub:
        commit = hub.put({**files, "sam3.pt": b"not wanted", "README.md": b"nor this", "LICENSE": b"You may."})
        hub.put(files, branch="other")
        home = {"HF_HOME": str(project / "home"), "HF_ENDPOINT": hub.url}
        # The tokenizer comes from the checkpoint now, so that the samples have another key, and the same bytes.
        assert doit(project, source, **home) == {"checkpoint", "samples"}
        assert not [line for line in hub.asked if "sam3.pt" in line or "README" in line]
        shutil.rmtree(project / "home")
        hub.asked.clear()
        assert doit(project, source, **home) == set()
        assert hub.asked == []
        # What is stale now needs the weights again, and gets the commit that was listed.
        assert doit(project, source, "export:text_encoder", "export:vision_encoder", **home) == {
            "export:vision_encoder"
        }
        assert [line for line in hub.asked if f"/resolve/{commit}/model.safetensors" in line]
        nowhere = {**home, "HF_HUB_OFFLINE": "1"}
        shutil.rmtree(project / "home")
        said = doit(project, source, "export:decoder", **nowhere)
        assert "export:decoder" in said and "HF_HUB_OFFLINE is set" in said
    records = [json.loads(path.read_text()) for path in (project / "artifacts/.store/records").rglob("*.json")]
    (facts,) = [r["facts"] for r in records if r["action"] == "checkpoint" and "repo" in r["facts"]]
    assert (facts["repo"], facts["commit"]) == (REPO, commit)
    assert str(project) not in json.dumps(facts)
    licences = [path.read_bytes() for path in (project / "artifacts/.store/objects").rglob("LICENSE")]
    assert licences == [b"You may."], "the repository's licence is kept for what is published"


@pytest.mark.ci
def test_weights_at_a_url_are_those_of_a_file_and_are_needed_only_to_build(project):
    goal, config = "export:text_encoder", "config: folder/config.json, "
    assert doit(project, "path: folder", goal) == {"checkpoint", "samples", goal}
    data = (project / "manifests" / "folder" / "model.safetensors").read_bytes()
    digest = sha256(data).hexdigest()
    home = {"HF_HOME": str(project / "home"), "more": "tokenizer: folder/tokenizer.json\n"}
    with serve_files() as server:
        server.files["model.safetensors"] = data
        server.cuts = [len(data) // 2]
        source = f"path: null, {config}url: '{server.url('model.safetensors')}', sha256: {digest}"
        said = doit(project, source.replace(digest, "ab" * 32), goal, **home)
        assert f"with the sha256 {digest}, not {'ab' * 32}" in said and "Traceback" not in said
        assert doit(project, source, goal, **home) == {"checkpoint"}, "the same tensors, wherever they come from"
        shutil.rmtree(project / "home")
        server.asked.clear()
        assert doit(project, source, goal, **home) == set()
        assert server.asked == []
        # What is stale now needs the weights again.
        assert doit(project, source, "export:geometry_encoder", **home) == {"export:geometry_encoder"}
        assert server.asked == ["model.safetensors"]
        shutil.rmtree(project / "home")
        said = doit(project, source, "export:decoder", **home, HF_HUB_OFFLINE="1")
        assert "export:decoder" in said and "HF_HUB_OFFLINE is set" in said
    records = [json.loads(path.read_text()) for path in (project / "artifacts/.store/records").rglob("*.json")]
    (facts,) = [r["facts"] for r in records if r["action"] == "checkpoint" and "url" in r["facts"]]
    assert facts["sha256"] == digest and str(project) not in json.dumps(facts)


def test_a_hub_manifest_is_listed_and_planned_without_a_network(project):
    (project / "manifests" / "m.yaml").write_text(f"extends: sam3_mini.yaml\ncheckpoint: {{path: null, hub: {REPO}}}\n")
    env = {**os.environ, "PYTHONPATH": str(project), "HF_HUB_OFFLINE": "1", "HF_HOME": str(Path("/nonexistent"))}
    for argv in (["doit", "manifest=m", "list", "--all"], ["sam3_build", "plan", "-m", "m"]):
        done = subprocess.run(
            [sys.executable, "-m", *argv], cwd=project, env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "checkpoint" in done.stdout
