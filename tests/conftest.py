"""Shared by the build-system tests: one toy project that is built once per test process, and copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_space import ACTIONS, BuildSpace


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildSpace:
    """A project in which every action of the toy manifest was built. Tests only read it."""
    space = BuildSpace.create(tmp_path_factory.mktemp("built") / "project")
    run = space.build()
    assert run.built == ACTIONS, run.output
    return space


@pytest.fixture
def space(built: BuildSpace, tmp_path: Path) -> BuildSpace:
    """A copy of the built project, to change."""
    return built.copy(tmp_path / "project")


@pytest.fixture
def fresh(built: BuildSpace, tmp_path: Path) -> BuildSpace:
    """A copy of the project in which nothing was built."""
    return built.clone(tmp_path / "fresh")
