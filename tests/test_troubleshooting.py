"""docs/troubleshooting.md as a test: real commands provoke every message of its table, and nothing else is in it.

A row's first cell is the message with `...` for what differs from case to case. `PROVOKED` makes each one happen.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import warm_python
from build_space import BuildSpace, copy_manifests

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "troubleshooting.md"


def rows() -> list[str]:
    """Return the messages of the table."""
    return re.findall(r"^\| `(.+?)` \|", TABLE.read_text(), re.MULTILINE)


class Project:
    """A toy project, and one with the real manifests; `say` runs a command that must fail and returns what it says."""

    def __init__(self, toy: BuildSpace, folder: Path) -> None:
        self.toy = toy
        self.folder = folder
        copy_manifests(folder)
        (folder / "dodo.py").symlink_to(ROOT / "dodo.py")

    def mine(self, text: str) -> None:
        (self.folder / "manifests" / "mine.yaml").write_text(f"extends: sam3_mini.yaml\n{text}\n")

    def say(self, *args: str, fails: bool = True, **extra: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SAM3_", "HF_", "PYTEST_"))}
        module, *words = args
        environ = kept | {"PYTHONPATH": str(ROOT), **extra}
        code, said = warm_python.run(module, words, str(self.folder), environ, mix=False)
        assert (code != 0) == fails, said
        assert "Traceback" not in said, said
        return said

    def toy_says(self, *args: str, **extra: str) -> str:
        run = self.toy.doit(*args, **extra)
        assert run.code != 0, run.output
        return run.output


def toy_edit(file: str, old: str, new: str, *args: str) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.toy.edit(file, old, new)
        return project.toy_says(*args)

    return provoke


def mine(text: str, *args: str) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.mine(text)
        return project.say(*(args or ("doit", "manifest=mine", "list")))

    return provoke


def same_name(project: Project) -> str:
    (project.toy.root / "toy.yaml").write_text("extends: manifests/toy.yaml\n")
    return project.toy_says("manifest=toy.yaml", "list")


def blocked(project: Project) -> str:
    project.mine("targets: {local: {backend: tensorrt}}")
    return project.say("doit", "manifest=mine", "build:decoder.fp16.local")


def weights(project: Project, *keys: str) -> Path:
    """Write a safetensors file with a number under each key, and the miniature's config and tokenizer beside it."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = project.folder / "manifests" / "weights"
    folder.mkdir()
    save_file({key: np.zeros(3, np.float32) for key in keys}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(ROOT / "manifests" / "sam3_mini" / name, folder / name)
    project.mine("checkpoint: {path: weights}")
    return folder / "model.safetensors"


def half_matching(project: Project) -> str:
    weights(project, "detr_decoder.query_embed.weight", "something.else")
    return project.say("doit", "manifest=mine", "checkpoint")


def cut_short(project: Project) -> str:
    file = weights(project, "detr_decoder.query_embed.weight")
    file.write_bytes(file.read_bytes()[:-4])
    return project.say("doit", "manifest=mine", "checkpoint")


def another_family(project: Project) -> str:
    weights(
        project,
        "image_encoder.trunk.body.conv_stem.weight",
        "spatial_perceiver.latents",
        "obj_ptr_proj.layers.0.weight",
    )
    return project.say("doit", "manifest=mine", "checkpoint")


def adapter(project: Project) -> str:
    weights(project, "base_model.model.detr_decoder.layers.0.mlp.fc1.lora_A.weight")
    return project.say("doit", "manifest=mine", "checkpoint")


def not_finite(project: Project) -> str:
    from safetensors.numpy import load_file, save_file

    file = weights(project, "replaced")
    tensors = load_file(ROOT / "manifests" / "sam3_mini" / "model.safetensors")
    tensors["detr_decoder.query_embed.weight"][:1] = float("nan")
    save_file(tensors, file)
    return project.say("doit", "manifest=mine", "export:text_encoder")


def offline(project: Project) -> str:
    project.mine("checkpoint: {path: null, hub: facebook/sam3, revision: main}")
    home = str(project.folder / "hub")
    return project.say("doit", "manifest=mine", "checkpoint", HF_HOME=home, HF_HUB_OFFLINE="1")


def killed(project: Project) -> str:
    project.toy.edit("sam3_build/stages/build.py", "    time.sleep(", "    os.kill(os.getpid(), 9)\n    time.sleep(")
    return project.toy_says("build:head.fp16.cpu")


def gate(project: Project) -> str:
    project.toy.edit("manifests/toy.yaml", "cosine: 0.99}", "cosine: 0.9999999}")
    return project.toy_says("verify")


def too_large(project: Project) -> str:
    project.toy.edit("sam3_build/stages/build.py", "Memory(base=1)", f"Memory(base={10**15})")
    project.toy.append("sam3_build/stages/build.py", "FOUR = 4\n")
    return project.toy.build("-n", "2", "build:head.fp16", TOY_SLOW="0.5").output


PROVOKED: dict[str, Callable[[Project], str]] = {
    "unknown manifest '...'": lambda p: p.say("doit", "manifest=sam3_mimi", "list"),
    "...yaml:...: ...: unknown key '...'": mine("precisons: [fp16]"),
    "... belongs to ..., another manifest of this file name": same_name,
    "no task has such a name: `doit list --all` shows them": lambda p: p.say("doit", "build:*.nothing"),
    "TensorRT-RTX cannot build for compute capability ...": mine('targets: {ada: {compute_capabilities: ["9.0"]}}'),
    "TensorRT-RTX has no FP32 matrix multiplication on compute capability 7.5": mine(
        'targets: {ada: {compute_capabilities: ["7.5"]}}'
    ),
    "image_size: ..., no multiple of patch_size, ...; nearest: ...": mine("image_size: 650"),
    "... is blocked: ...": blocked,
    "... does not hold the weights of ...": half_matching,
    "... is cut short": cut_short,
    "... holds the weights of the family '...' (...), and the manifest's is '...'": another_family,
    "... holds ..., by the names of its tensors": adapter,
    "... not finite, and nothing is exported from ...": not_finite,
    "HF_HUB_OFFLINE": offline,
    "its worker was killed by SIGKILL (out of memory?)": killed,
    "... outputs fail their gates": gate,
    "wait ...: needs about ... GB of memory": too_large,
}


# Each of these starts a worker that loads PyTorch; tests/families/sam3_image has their messages from `weights` itself.
LOADS_PYTORCH = (half_matching, cut_short, another_family, adapter, not_finite, offline)


@pytest.fixture
def project(space: BuildSpace, tmp_path: Path) -> Project:
    return Project(space, tmp_path / "real")


def test_the_table_holds_just_what_is_provoked_here() -> None:
    assert sorted(rows()) == sorted(PROVOKED)


@pytest.mark.parametrize(
    "message", [pytest.param(m, marks=pytest.mark.ci if p in LOADS_PYTORCH else ()) for m, p in PROVOKED.items()]
)
def test_a_message_of_the_table_is_what_people_see(message: str, project: Project) -> None:
    said = " ".join(PROVOKED[message](project).split())
    pattern = re.escape(message).replace(re.escape("..."), ".+?")
    assert re.search(pattern, said), f"no {message!r} in\n{said}"
