"""What people type: doit's commands on a project, the manifest they name, and what they read when something fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from build_space import ACTIONS, SHOWN, BuildSpace, Run, matching

UPSTREAM_OF_HEAD = {"checkpoint", "samples", "export:head", "simplify:head"}
FP16 = {"precision:head.fp16"}


def assert_message(run: Run, *words: str) -> None:
    """The run failed, says these words, and shows no traceback of ours."""
    assert run.code != 0, run.output
    assert "Traceback" not in run.output, run.output
    for word in words:
        assert word in run.output, run.output


# ------------------------------------------------------------------ selecting


def test_list_shows_the_verbs_and_list_all_every_action(built: BuildSpace) -> None:
    names = {line.split()[0] for line in built.build("list").output.splitlines()}
    assert {"build", "checkpoint", "export", "patch", "precision", "reference", "samples", "simplify"} <= names
    assert "verify" in names
    every = {line.split()[0] for line in built.build("list", "--all").output.splitlines()}
    assert every >= ACTIONS | {"build:head", "build:head.fp16", "precision:encoder"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["build:head.fp16.ada"], {*UPSTREAM_OF_HEAD, *FP16, "build:head.fp16.ada"}),
        (["build:head.fp16"], {*UPSTREAM_OF_HEAD, *FP16, "build:head.fp16.ada", "build:head.fp16.cpu"}),
        (["build:head"], {*UPSTREAM_OF_HEAD, *matching("precision:head.*", "build:head.*")}),
        (
            ["build:*.ada"],
            matching("checkpoint", "samples", "export:*", "simplify:*", "patch:*", "precision:*", "build:*.ada"),
        ),
        (["-n", "2", "build"], ACTIONS - matching("reference:*", "verify:*")),
        (["verify"], ACTIONS - matching("build:*")),
        (["export:head"], {"checkpoint", "export:head", "samples"}),
        (["samples"], {"checkpoint", "samples"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_builds_what_it_says_and_what_that_needs(
    fresh: BuildSpace, names: list[str], expected: set[str]
) -> None:
    run = fresh.build(*names)
    assert run.built == expected, run.output
    assert ("not run" in run.output) == (names == ["verify"])


def test_bare_doit_builds_and_verifies(built: BuildSpace) -> None:
    run = built.build()
    assert "8 passed, 0 failed, 8 not run" in run.output
    assert run.output.endswith("toy: 0 built, 25 fresh\n")
    assert built.verdicts().keys() == {"pass", "not_run"}


def test_every_action_that_did_something_tells_how_long_and_where_its_log_is(fresh: BuildSpace) -> None:
    run = fresh.build("export:head")
    for action in ("checkpoint", "export:head"):
        log = f"artifacts/toy/logs/{action.replace(':', '.')}.log"
        assert re.search(rf"^  run       {action} +{log}$", run.output, re.M), run.output
        assert re.search(rf"^  built     {action} +\d+\.\d s$", run.output, re.M), run.output
        assert (fresh.root / log).is_file()


def test_clean_takes_the_view_and_keeps_the_store(space: BuildSpace) -> None:
    shown, kept = space.shown(), sorted(space.store.glob("objects/*/*"))
    (space.view / "report.html").write_text("a page")
    space.build("clean")
    assert [p for p in space.view.rglob("*") if p.is_file()] == []
    assert sorted(space.store.glob("objects/*/*")) == kept
    run = space.build()
    assert (run.built, run.restored) == (set(), SHOWN)
    assert space.shown() == shown


# ------------------------------------------------------------------ the manifest


@pytest.mark.parametrize(("by", "choice"), [("argument", "other"), ("environment", "manifests/other.yaml")])
def test_the_manifest_is_chosen_by_name_or_path(space: BuildSpace, by: str, choice: str) -> None:
    text = (space.root / "manifests/toy.yaml").read_text()
    (space.root / "manifests/other.yaml").write_text(text.replace("opset: 20", "opset: 19"))
    run = (
        space.build(f"manifest={choice}", "export:head")
        if by == "argument"
        else space.build("export:head", SAM3_MANIFEST=choice)
    )
    assert run.built == {"export:head"}
    assert run.output.endswith("other: 1 built, 2 fresh\n")
    assert space.build().built == set()


def test_a_manifest_outside_of_the_project_works_by_its_path(space: BuildSpace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (space.root / "manifests").iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    (elsewhere / "toy.yaml").rename(elsewhere / "mine.yaml")
    run = space.build(f"manifest={elsewhere / 'mine.yaml'}")
    assert (run.built, run.restored) == (set(), SHOWN), "equal content has equal keys, wherever it lies"


@pytest.mark.parametrize("command", [["list"], ["build"], ["verify"], ["clean"]])
def test_a_manifest_that_does_not_exist_is_one_line(built: BuildSpace, command: list[str]) -> None:
    run = built.doit("manifest=toi", *command)
    assert_message(run, "manifests/toi.yaml", "did you mean 'toy'?")
    assert len(run.output.strip().splitlines()) == 1


def test_all_that_is_wrong_with_a_manifest_is_told_with_its_line_and_nothing_is_run(space: BuildSpace) -> None:
    space.edit("manifests/toy.yaml", "family: toy", "family: toi")
    space.edit("manifests/toy.yaml", "opset: 20", "opsett: 20")
    run = space.doit()
    assert_message(run, "manifests/toy.yaml:1: family", "did you mean 'toy'?", "manifests/toy.yaml:5: opsett")
    assert "built" not in run.output


# ------------------------------------------------------------------ verdicts


def test_a_gate_that_fails_ends_with_an_error_also_the_second_time(space: BuildSpace) -> None:
    space.edit("sam3_build/families/toy/modules.py", "z = y @ p", "z = wrong")
    first = space.doit()
    assert first.code == 1 and "artifacts/toy/report.json" in first.output, first.output
    assert space.verdicts()["fail"] == 1
    second = space.doit()
    assert (second.code, second.built) == (1, set())
    assert space.doit("verify").code == 1
    assert space.build("build").built == set()
    space.edit("sam3_build/families/toy/modules.py", "z = wrong", "z = y @ p")
    assert space.build().built == set()


def test_an_engine_that_cannot_run_here_is_never_passed(built: BuildSpace) -> None:
    run = built.build("verify")
    assert re.search(r"not run: .*\n.* ada fp", run.output), run.output


# ------------------------------------------------------------------ what this machine cannot do

# A finder that comes first and finds no such package, as on a machine without it.
MISSING = """
import sys
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "tensorrt_rtx":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "tensorrt_rtx" else find_spec(name, package)
"""


@pytest.fixture
def without_tensorrt(fresh: BuildSpace) -> BuildSpace:
    (fresh.root / "site").mkdir()
    (fresh.root / "site" / "sitecustomize.py").write_text(MISSING)
    return fresh


def test_what_this_machine_cannot_build_is_listed_and_the_rest_is_built(without_tensorrt: BuildSpace) -> None:
    run = without_tensorrt.build("build")
    assert run.built == ACTIONS - matching("reference:*", "verify:*", "build:*.ada")
    said = re.search(r"^blocked: .*tensorrt_rtx is not installed.*\n((?:  .*\n)+)", run.output, re.M)
    assert said and set(re.split(r",?\s+", said[1].strip())) == matching("build:*.ada"), run.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build:*.adda"], "no task has such a name"),
        (["manifst=toy", "build"], "there is no such variable; did you mean 'manifest'?"),
    ],
)
def test_a_pattern_or_variable_that_means_nothing_is_an_error(built: BuildSpace, words: list[str], said: str) -> None:
    assert_message(built.doit(*words), said)


def test_clean_of_a_component_takes_its_members_and_says_each_file(space: BuildSpace) -> None:
    run = space.build("clean", "build:head")
    assert "removed  artifacts/toy/head/head.fp16.ada.engine\n" in run.output
    assert not list(space.view.glob("head/*.engine")) and list(space.view.glob("encoder/*.engine"))
    assert space.build().restored == matching("build:head.*")


@pytest.mark.parametrize("name", ["build:head.fp16.ada", "build:*.ada"])
def test_naming_what_this_machine_cannot_build_is_an_error(without_tensorrt: BuildSpace, name: str) -> None:
    run = without_tensorrt.doit(name)
    assert_message(run, ".ada is blocked", "tensorrt_rtx is not installed")


def test_a_component_whose_every_target_is_blocked_is_an_error_when_named(without_tensorrt: BuildSpace) -> None:
    without_tensorrt.edit("manifests/toy.yaml", "  cpu: {backend: onnxruntime}\n", "")
    assert_message(without_tensorrt.doit("build:head"), "build:head.fp16.ada is blocked")
    assert without_tensorrt.build("build").built == set()


# ------------------------------------------------------------------ failures


@pytest.mark.workers
def test_a_stage_that_raises_shows_its_log_and_the_end_of_it(space: BuildSpace) -> None:
    space.edit("sam3_build/stages/simplify.py", "component = ", 'raise ValueError("no such luck")\n    component = ')
    run = space.doit("simplify:head")
    assert run.code != 0
    assert "simplify:head: ValueError: no such luck" in run.output
    assert "log: artifacts/toy/logs/simplify.head.log" in run.output
    assert "\n  | ValueError: no such luck\n" in run.output
    assert not re.search(r"^Traceback", run.output, re.M), run.output
    assert not re.search(r"executor\.py|frontend\.py|doit/", run.output), run.output


@pytest.mark.workers
def test_a_stage_that_refuses_its_input_shows_its_words(space: BuildSpace) -> None:
    space.edit("sam3_build/stages/simplify.py", "def run(", "from sam3_build.errors import BuildError\n\n\ndef run(")
    space.edit("sam3_build/stages/simplify.py", "component = ", 'raise BuildError("not this graph")\n    component = ')
    assert_message(space.doit("simplify:head"), "simplify:head: not this graph", "logs/simplify.head.log")


def test_after_a_failure_the_old_verdicts_are_gone_and_other_work_can_go_on(space: BuildSpace) -> None:
    space.edit("sam3_build/stages/simplify.py", "component = ", 'raise ValueError("no")\n    component = ')
    (space.view / "report.html").write_text("all is well")
    run = space.doit("--continue")
    assert run.code != 0 and run.output.count("FAILED    ") == 2, run.output
    assert run.output.endswith("toy: 0 built, 6 fresh, 2 FAILED, 17 not run because of that\n")
    assert not list(space.view.glob("report.*"))


@pytest.mark.workers
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(0)", "its worker exited with 0 and gave no result"),
        ("import sys; sys.exit(7)", "its worker exited with 7 and gave no result"),
        ("return {}", "had to write head.fp16.onnx and wrote nothing"),
        (
            "(out / 'head.fp16.onnx').write_text('x'); (out / 'a' / 'b').mkdir(parents=True); return {}",
            "in one level of subfolders",
        ),
        ("(out / 'other.onnx').write_text('x'); return {}", "had to write head.fp16.onnx and wrote other.onnx"),
        ("(out / 'head.fp16.onnx').write_text('x'); return {'nan': float('nan')}", "Out of range float values"),
        ("(out / 'head.fp16.onnx').write_text('x'); return {'path': out}", "not JSON serializable"),
    ],
)
def test_a_stage_that_breaks_its_contract_is_one_clear_error_and_leaves_nothing(
    space: BuildSpace, code: str, words: str
) -> None:
    space.edit("sam3_build/stages/precision.py", "stem = ", f"{code}\n    stem = ")
    records = set(space.store.glob("records/*/*"))
    run = space.doit("precision:head.fp16")
    assert run.code != 0 and "precision:head.fp16" in run.output and words in run.output, run.output
    assert not re.search(r"^Traceback", run.output, re.M), run.output
    assert set(space.store.glob("records/*/*")) == records
    assert not list(space.store.glob("tmp/*"))


def test_a_plug_in_that_is_not_python_is_named_with_its_line(space: BuildSpace) -> None:
    space.append("sam3_build/families/toy/modules.py", "def (:\n")
    assert_message(space.doit(), "sam3_build/families/toy/modules.py:4")
    assert_message(space.cli("plan"), "sam3_build/families/toy/modules.py:4")


@pytest.mark.workers
def test_a_source_file_that_goes_while_doit_runs_is_one_clear_error(fresh: BuildSpace) -> None:
    fresh.edit(
        "sam3_build/stages/checkpoint.py",
        "found = tensors",
        'Path("manifests/scene.png").unlink()\n    found = tensors',
    )
    fresh.edit("sam3_build/stages/checkpoint.py", "import json", "import json\nfrom pathlib import Path")
    run = fresh.doit("samples")
    assert_message(run, "samples: cannot read", "manifests/scene.png")


@pytest.mark.parametrize("file", ["manifests/weights.safetensors", "sam3_build/families/toy/keys.py"])
def test_an_input_that_changes_while_an_action_runs_is_not_taken_for_what_was_built(
    fresh: BuildSpace, file: str
) -> None:
    """Otherwise the old key would hold the new content, and stay wrong for ever."""
    path = fresh.root / file
    comment = "FOUR = 4" if path.suffix == ".py" else " "
    fresh.edit(
        "sam3_build/stages/checkpoint.py",
        "found = tensors",
        f'path = Path("{file}")\n    path.write_text(path.read_text() + "{comment}")\n    found = tensors',
    )
    fresh.edit("sam3_build/stages/checkpoint.py", "import json", "import json\nfrom pathlib import Path")
    assert_message(fresh.doit("checkpoint"), "checkpoint: an input changed while it was running")
    assert not list(fresh.store.glob("objects/*/*"))


@pytest.mark.workers
def test_code_that_keeps_its_size_and_time_is_not_run_from_old_bytecode(fresh: BuildSpace) -> None:
    """Python trusts bytecode whose source has the same size and time in whole seconds; a key must not."""
    import os

    path = fresh.root / "sam3_build/families/toy/modules.py"
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert not (path.parent / "__pycache__").exists(), "bytecode that knows its source by digest would hide the fault"
    fresh.build("export:head", PYTHONDONTWRITEBYTECODE="")
    old = fresh.object("export:head")
    fresh.edit("sam3_build/families/toy/modules.py", "z = y @ p", "z = y * p")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert "export:head" in fresh.build("export:head", PYTHONDONTWRITEBYTECODE="").built
    new = fresh.object("export:head")
    assert new != old and "y * p" in (new / "head.onnx").read_text()


def test_the_live_row_shows_the_last_word_of_a_log_on_how_far_it_is(tmp_path: Path) -> None:
    from sam3_build.commands.doit_reporter import last_said

    log = tmp_path / "build.log"
    assert last_said(log) == ""
    log.write_text("2026 worker: began\n")
    assert last_said(log) == ""
    log.write_text("x: progress: 5 % (Cloning)\n" * 1000 + "x: progress: 35 % (Tactics)\nx: something else\n")
    assert last_said(log) == "35 % (Tactics)"
