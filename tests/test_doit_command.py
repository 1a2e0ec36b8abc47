"""What people type after `doit` and doit itself would not survive, or would pass over: one clear line, no traceback."""

from __future__ import annotations

import shutil

import pytest
from build_space import ROOT, BuildSpace, Run
from doit.exceptions import InvalidCommand

from sam3_build.commands.doit_command import Typed, read, refuse_unknown

TASKS = ("build", "build:head", "build:head.fp16", "verify", "checkpoint")


def assert_one_line(run: Run, *words: str) -> None:
    assert run.code == 3, run.output
    assert run.output.startswith("ERROR: ") and len(run.output.splitlines()) == 1, run.output
    assert all(word in run.output for word in words), run.output


@pytest.mark.parametrize("command", ["info", "clean", "help", "run"])
def test_a_name_that_no_task_has_is_one_line_with_the_nearest(built: BuildSpace, command: str) -> None:
    assert_one_line(built.doit(command, "build:hed"), "no task is named 'build:hed'; did you mean 'build:head'?")


def test_a_slip_in_a_command_of_doit_is_told_apart_from_one_in_a_task(built: BuildSpace) -> None:
    assert_one_line(built.doit("lst"), "no task or command is named 'lst'; did you mean 'list'?")


@pytest.mark.parametrize("words", [["-n", "2", "list"], ["build:head", "list"]], ids=" ".join)
def test_a_command_that_stands_behind_options_or_names_is_told_to_come_first(
    built: BuildSpace, words: list[str]
) -> None:
    assert_one_line(
        built.doit(*words), "'list' is a command of doit and no task; a command comes first, ", "`doit list`"
    )


def test_a_name_that_is_near_to_nothing_is_told_where_names_are_listed(built: BuildSpace) -> None:
    assert_one_line(built.doit("info", "nonsense"), "no task is named 'nonsense': `doit list --all` shows them")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clean", "build:*.adda"], "build:*.adda: no task has such a name"),
        (["build:head", "build:*.adda"], "build:*.adda: no task has such a name"),
        (["info", "build:*"], "`doit info` takes no patterns"),
        (["build", "-n", "2"], "-n stands after a name: options come before names"),
        (["list", "build", "--all"], "--all stands after a name: options come before names"),
    ],
)
def test_what_doit_would_pass_over_or_misread_is_refused(built: BuildSpace, words: list[str], said: str) -> None:
    assert_one_line(built.doit(*words), said)


def test_the_database_of_doit_is_in_memory_and_cannot_be_shown(fresh: BuildSpace) -> None:
    shutil.copy(ROOT / "pyproject.toml", fresh.root)
    assert_one_line(fresh.doit("dumpdb"), "database is kept in memory", "`sam3-build plan` shows what is fresh")
    assert fresh.build("help").output.count("dumpdb") == 1


def test_processes_that_doit_forks_are_refused_before_anything_runs(fresh: BuildSpace) -> None:
    """doit cannot send its tasks to them, says so in a traceback, and waits for ever."""
    run = fresh.doit("-n", "2", "-P", "process", "export:head")
    assert_one_line(run, "-P process does not work here", "leave -P out, as in `doit -n 2 build`")
    assert not list(fresh.store.glob("records/*/*"))


@pytest.mark.parametrize(
    "words",
    ["-P process", "-Pprocess", "-n2 -P proc build", "--parallel-type=process", "run --par process", "-f x -P process"],
)
def test_processes_are_refused_however_they_are_asked_for(words: str) -> None:
    with pytest.raises(InvalidCommand, match=r"-P proc(ess)? does not work here"):
        read(words.split())


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("doit.cfg", "[GLOBAL]\npar_type = process\nnum_process = 2\n"),
        ("pyproject.toml", '[tool.doit]\npar_type = "process"\nnum_process = 2\n'),
    ],
)
def test_a_configuration_of_doit_cannot_ask_for_processes(fresh: BuildSpace, file: str, text: str) -> None:
    (fresh.root / file).write_text(text)
    assert fresh.build("export:head").built == {"checkpoint", "samples", "export:head"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", Typed("run", (), is_named=False)),
        ("manifest=x -n 2 build verify", Typed("run", ("build", "verify"), is_named=False)),
        ("-f dodo.py list -q build", Typed("list", ("build",), is_named=True)),
        ("-P thread build:*.ada", Typed("run", ("build:*.ada",), is_named=False)),
        ("clean -n manifest=x", Typed("clean", (), is_named=True)),
        ("dumpdb", Typed("dumpdb", (), is_named=True)),
    ],
)
def test_words_are_read_as_doit_reads_them(words: str, expected: Typed) -> None:
    assert read(words.split()) == expected


@pytest.mark.parametrize(
    "words", ["", "build verify", "clean build:*.fp16 checkpoint", "info build:head", "help verify"]
)
def test_names_that_mean_something_pass(words: str) -> None:
    refuse_unknown(read(words.split()), TASKS)
