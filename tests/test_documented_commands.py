"""README, docs/ and CONTRIBUTING.md: every command in them is one, every link leads somewhere, and README's own run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import runnable
import typer
from build_space import ROOT
from PIL import Image

from sam3_build.__main__ import app
from sam3_build.commands import doit_command, doit_tasks
from sam3_build.execution.session import open_session

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
PROGRAMS = ("doit", "sam3-build", "make", "pip", "python", ".venv/bin/doit", ".venv/bin/python")
COMMAND = re.compile(rf"(?:{'|'.join(map(re.escape, PROGRAMS))})( .*)?")


@dataclass(frozen=True)
class Documented:
    """A command as a page shows it. alone: a line of a block of code, not words of a sentence."""

    page: str
    text: str
    alone: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


@cache
def documented() -> tuple[Documented, ...]:
    found = []
    for page in PAGES:
        name, fenced = str(page.relative_to(ROOT)), False
        for line in page.read_text().splitlines():
            fenced ^= line.startswith("```")
            in_block = fenced or line.startswith("    ")
            texts = [line.strip().removeprefix("$ ")] if in_block else re.findall(r"`([^`]+)`", line)
            found += [Documented(name, text, in_block) for text in texts if COMMAND.fullmatch(text)]
    return tuple(dict.fromkeys(found))


def test_commands_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/commands.md", "docs/runtime.md"} <= {one.page for one in documented()}
    assert len(documented()) > 60


@pytest.mark.parametrize("one", documented(), ids=lambda one: f"{one.page}: {one.text}")
def test_what_a_page_tells_to_type_is_understood(one: Documented) -> None:
    program, *words = one.words
    program = program.removeprefix(".venv/bin/")
    {"doit": of_doit, "sam3-build": of_sam3_build, "make": of_make, "pip": of_pip, "python": of_python}[program](words)


def of_sam3_build(words: list[str]) -> None:
    group = typer.main.get_command(app)
    words = [word for word in words if not word.startswith("manifest=")]
    if words == ["--version"] or not words:
        return
    assert words[0] in group.commands
    if len(words) > 1:  # by its name alone, a sentence means the command
        group.commands[words[0]].make_context(words[0], words[1:])


@cache
def tasks(manifest: str) -> frozenset[str]:
    session = open_session(ROOT, manifest, {"SAM3_STORE": "/nonexistent"})
    return frozenset(task.name for task in doit_tasks.tasks(session, {}))


def of_doit(words: list[str]) -> None:
    chosen = [word.partition("=")[2] for word in words if word.startswith("manifest=")]
    manifest = chosen[0] if chosen and (ROOT / "manifests" / f"{chosen[0]}.yaml").is_file() else "sam3_mini"
    typed = doit_command.read(words)
    if not any(re.search(r"[A-Z<]", word) for word in typed.words):  # a name that stands for others
        doit_command.refuse_unknown(typed, tasks(manifest))


def of_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(words) <= targets


def of_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if extras := re.fullmatch(r"(?:\.|sam3-build)\[(.*)\]", word):
            assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()


def of_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert find_spec(words[1])
    elif not words[0].startswith("-"):
        assert (ROOT / words[0]).is_file()


# ------------------------------------------------------------------ links, and the length of the first page


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not link.startswith("http") and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_the_first_one_which_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert [page.name for page in PAGES[1:] if str(page.relative_to(ROOT)) not in text] == []


# ------------------------------------------------------------------ what the first page says is run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the miniature's FP32 graphs were built and passed, with the pictures of this one."""
    root = tmp_path_factory.mktemp("project")
    runnable.write(root / "artifacts" / "sam3_mini", verdict=runnable.PASSED)
    (root / "manifests").symlink_to(ROOT / "manifests")
    return root


def test_the_picture_of_the_first_page_is_what_its_command_draws(project: Path) -> None:
    (one,) = [one for one in documented() if one.page == "README.md" and " segment " in one.text]
    argv = [sys.executable, "-m", "sam3_build", *one.words[1:]]
    done = subprocess.run(argv, cwd=project, env=environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    drawn = np.asarray(Image.open(project / "segmented" / "scene1.png").convert("RGB"))
    shown = np.asarray(Image.open(ROOT / "docs" / "segmented.png").convert("RGB"))
    assert drawn.shape == shown.shape and (drawn == shown).all(-1).mean() > 0.99  # an edge may differ by precision


def test_the_python_of_the_first_page_runs(project: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=project, env=environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 168, 168) ") and done.stdout.endswith("star 1\nblue 1\n"), done.stdout
    assert (project / "found.png").is_file()


READS = ("plan", "explain", "device", "gc --dry-run")


@pytest.mark.ci
@pytest.mark.parametrize("kind", READS)
def test_commands_that_only_read_run_as_they_are_written(kind: str) -> None:
    """Those with a name that stands for others, and of manifests that are not here, are left out."""
    texts = {one.text for one in documented() if re.match(rf"sam3-build {kind}( [^A-Z<]+|$)", one.text)}
    texts -= {"sam3-build explain"}  # words of a sentence, which mean the command
    assert texts
    for text in texts:
        argv = [sys.executable, "-m", "sam3_build", *shlex.split(text, comments=True)[1:]]
        done = subprocess.run(argv, cwd=ROOT, env=environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout, (text, done.stderr)


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
