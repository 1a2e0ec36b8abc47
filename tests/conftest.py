"""Shared by tests: a toy project built once per test process, copies of it, and the patch stage on toy graphs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path

import onnx
import pytest
from build_space import ACTIONS, BuildSpace

from sam3_build.stages import patch


@pytest.fixture(scope="module", autouse=True)
def what_is_loaded_is_no_garbage() -> None:
    """Leave modules, torch's among them, to no collection: each would look through all of them for half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildSpace:
    """A project in which every action of the toy manifest was built. Tests only read it."""
    space = BuildSpace.create(tmp_path_factory.mktemp("built") / "project")
    run = space.build()
    assert run.built == ACTIONS, run.output
    return space


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> bool:
    """Tell whether the test is marked `workers`: what it asks is about processes, not about what is stale."""
    return request.node.get_closest_marker("workers") is not None


@pytest.fixture
def space(built: BuildSpace, tmp_path: Path, workers: bool) -> BuildSpace:
    """A copy of the built project, to change."""
    return replace(built.copy(tmp_path / "project"), workers=workers)


@pytest.fixture
def fresh(built: BuildSpace, tmp_path: Path, workers: bool) -> BuildSpace:
    """A copy of the project in which nothing was built."""
    return replace(built.clone(tmp_path / "fresh"), workers=workers)


@pytest.fixture
def patched(tmp_path: Path):
    """Apply patches to a model through the stage; return the model that it wrote and its facts."""

    def run(model, *names):
        (tmp_path / "out").mkdir()
        onnx.save(model, tmp_path / "toy.onnx")
        facts = patch.run({"component": "toy", "patches": names}, {"onnx": tmp_path / "toy.onnx"}, tmp_path / "out")
        return onnx.load(tmp_path / "out" / "toy.onnx"), facts

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write long texts to tests/golden as they are now")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Hold a long text against `tests/golden/<name>`; `pytest --update-golden` writes it there, to be read as diff."""

    def hold(name: str, text: str) -> None:
        file = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            file.write_text(text)
        lines = file.read_text().splitlines(), text.splitlines()
        difference = "\n".join(unified_diff(*lines, "golden", "now", lineterm="", n=0))
        assert not difference, f"{name} changed; when that is meant, run pytest --update-golden:\n{difference}"

    return hold
