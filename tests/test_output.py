"""Output whose reader leaves, as in `... | head -1`: no traceback, no lost work, and the exit code of the work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from build_space import BuildSpace


def read_lines_of(space: BuildSpace, *command: str, lines: int, **extra: str) -> tuple[int, str]:
    """Run a module, read so many lines of what it says, leave; return its exit code and what it says on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=space.root,
        env=space.environ(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    for _ in range(lines):
        assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    return process.wait(timeout=120), said


# Unbuffered, writing fails; else, flushing when Python exits.
@pytest.mark.parametrize(("lines", "unbuffered"), [(0, ""), (1, "1")])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("sam3_build plan", 0),
        ("sam3_build explain build:head.fp16.ada --json", 0),
        ("doit list --all", 0),
        ("doit info build:head", 1),  # doit's way to say that a group would run
        ("doit verify", 0),
    ],
)
def test_a_command_whose_reader_leaves_ends_quietly(
    built: BuildSpace, command: str, code: int, lines: int, unbuffered: str
) -> None:
    assert read_lines_of(built, *command.split(), lines=lines, PYTHONUNBUFFERED=unbuffered) == (code, "")


@pytest.mark.parametrize("jobs", [(), ("-n", "2")], ids=["one", "two"])
def test_a_build_whose_reader_leaves_goes_on_to_its_end(fresh: BuildSpace, jobs: tuple[str, ...]) -> None:
    process = fresh.start(*jobs, "build:head")
    assert process.stdout
    assert process.stdout.readline()
    process.stdout.close()  # and with it stderr
    assert process.wait(timeout=120) == 0
    assert fresh.build("build:head").built == set()


def test_a_mistake_is_an_exit_code_also_where_nobody_reads_what_it_was(built: BuildSpace) -> None:
    process = built.start("build:hed")
    assert process.stdout
    process.stdout.close()
    assert process.wait(timeout=120) == 3


# 120 is what Python makes of output that it cannot write at its end; doit's own exit code is not ours to choose.
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "code"), [("sam3_build plan --json", 1), ("doit list --all", 120), ("doit build:head", 120)]
)
def test_output_that_a_full_disk_loses_is_told_and_no_success(
    built: BuildSpace, command: str, code: int, unbuffered: str
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=built.root,
            env=built.environ(PYTHONUNBUFFERED=unbuffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == code
    assert done.stderr == "cannot write to <stdout>: No space left on device; the rest of the output is lost\n"
