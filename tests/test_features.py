"""docs/features.md: every command of its tables runs, every call gives something, and no row is without either."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import miniature
import pytest
import runnable
from build_space import ROOT
from PIL import Image

from sam3_build import runtime

PAGE = ROOT / "docs" / "features.md"
WITHOUT = re.compile(r"\*(not applicable|not yet)\*(: \S| to \S|$)")


@dataclass(frozen=True)
class Row:
    feature: str
    text: str

    @property
    def runs(self) -> str:
        """The command or call; empty where the row says that there is none."""
        found = re.fullmatch(r"`([^`]+)`", self.text)
        return found[1] if found else ""


def rows() -> list[Row]:
    cells = re.findall(r"^\| (.+?) \| (.+) \|$", PAGE.read_text(), re.M)
    return [Row(*pair) for pair in cells if pair != ("feature", "command or call")]


RUN = [row for row in rows() if row.runs]
COMMANDS = [row for row in RUN if row.runs.startswith(("sam3-build ", "doit "))]


def test_every_row_has_a_command_or_a_call_or_says_that_it_is_none() -> None:
    assert len(RUN) > 35
    assert [row for row in rows() if not row.runs and not WITHOUT.match(row.text)] == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name in ("sam1_mini", "sam2_mini"):
        precisions = ("fp32", "fp16") if name == "sam1_mini" else ("fp32",)
        runnable.write(root / "artifacts" / name, precisions, runnable.PASSED, name)
    (root / "photos").mkdir()
    for name in ("photo.png", "photos/a.png", "photos/b.png"):
        shutil.copy(miniature.SCENES / "scene1.png", root / name)
    Image.new("L", (168, 168), 255).save(root / "mask.png")
    (root / "prompts.json").write_text('{"a.png": [{"points": "pos:60,60"}], "b.png": [{"boxes": "pos:40,40,30,30"}]}')
    shutil.copytree(miniature.SCENES / "clip", root / "clip")
    shutil.copy(miniature.WEIGHTS, root)
    return root


@pytest.fixture(scope="module")
def names(project: Path) -> Iterator[dict[str, object]]:
    """What calls may name."""
    before = Path.cwd()
    os.chdir(project)
    with ExitStack() as stack:
        stack.callback(os.chdir, before)
        model, tracker = (stack.enter_context(runtime.load(f"artifacts/{n}_mini")) for n in ("sam1", "sam2"))
        scene = model.encode("photo.png")
        found = scene.segment(points=[[60, 60]])
        clip = tracker.track("clip")
        yield {"runtime": runtime, "model": model, "scene": scene, "found": found, "clip": clip}


@pytest.mark.ci
@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.feature)
def test_a_command_runs(row: Row, project: Path) -> None:
    program, *words = shlex.split(row.runs)
    argv = [sys.executable, "-m", program.replace("-", "_"), *words]
    here = ROOT if program == "doit" or words[0] in ("plan", "device") else project
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=here, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.ci
@pytest.mark.parametrize("row", [row for row in RUN if row not in COMMANDS], ids=lambda row: row.feature)
def test_a_call_gives_something(row: Row, names: dict[str, object]) -> None:
    found = eval(row.runs, names)
    assert found is not None
    if isinstance(found, runtime.Found):
        assert len(found) >= 1
