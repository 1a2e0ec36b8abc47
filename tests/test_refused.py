"""What a record refuses of an output is held against what each manifest uses, whoever wrote the record, and first."""

from __future__ import annotations

import re

import pytest
from build_space import BuildSpace

MESSAGE = "checkpoint: head: a tensor is not finite"


@pytest.fixture
def broken(fresh: BuildSpace) -> BuildSpace:
    """A project whose checkpoint can be used for `encoder` (manifest `part`) and not for `head`."""
    facts = '"tensors": len(found)'
    refused = '"refused": {"head": "a tensor is not finite"}'
    fresh.edit("sam3_build/stages/checkpoint.py", facts, f"{facts}, {refused}")
    narrowed = "extends: toy.yaml\ncomponents: [encoder]\ntolerances: null\n"
    (fresh.root / "manifests/part.yaml").write_text(narrowed)
    return fresh


def assert_refused(space: BuildSpace, *words: str, code: int = 1) -> None:
    run = space.doit(*words)
    assert (run.code, run.built) == (code, set()), run.output
    assert run.output.count(MESSAGE) == 1 and "Traceback" not in run.output, run.output
    assert set(re.findall(r"^  run +(\S+)", run.output, re.M)) <= {"checkpoint"}, run.output


def test_a_record_that_another_manifest_wrote_is_refused_before_anything_runs(broken: BuildSpace) -> None:
    broken.build("manifest=part", "build")
    assert_refused(broken, "build:encoder")
    assert_refused(broken, "-n", "2")
    assert_refused(broken, "nightly", code=2)
    broken.build("manifest=part", "build")


def test_a_checkpoint_that_is_read_for_the_first_time_is_refused_and_read_no_second_time(broken: BuildSpace) -> None:
    assert_refused(broken, "build")
    assert broken.build("manifest=part", "checkpoint").built == set()


def test_plan_says_so_for_the_manifest_that_uses_it_alone(broken: BuildSpace) -> None:
    broken.build("manifest=part", "checkpoint")
    for words in ((), ("--json",)):
        run = broken.cli("plan", *words)
        assert (run.code, run.output) == (1, f"{MESSAGE}\n")
    assert broken.cli("plan", "-m", "part").code == 0
