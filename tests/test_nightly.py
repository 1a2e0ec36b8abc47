"""`doit nightly`: what it builds, leaves out, publishes and tells; its exit codes; and the examples that start it."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from build_space import ACTIONS, ROOT, BuildSpace, Run, matching
from test_publish import ENGINES_FAIL, MANIFEST, folder_of, state

from sam3_build.errors import BuildError
from sam3_build.publish import nights

BREAK_HEAD = ("sam3_build/stages/simplify.py", "component = ", 'assert params["component"] != "head"\n    component = ')
DOC = ROOT / "docs" / "nightly.md"
WORKFLOW = ROOT / ".github" / "workflows" / "nightly.yml"


def night(space: BuildSpace) -> tuple[Path, dict[str, object]]:
    """Return the newest night's file and its last run."""
    path = sorted((space.view / "nightly").glob("*.json"))[-1]
    return path, json.loads(path.read_bytes())["runs"][-1]


def age(space: BuildSpace, days: int = 1) -> None:
    """Make the newest night one of some days ago."""
    path, _ = night(space)
    path.rename(path.with_name(f"{date.fromisoformat(path.stem) - timedelta(days=days)}.json"))


def entries(run: dict[str, object], name: str, *fields: str) -> list[tuple[object, ...]]:
    found = run[name]
    assert isinstance(found, list)
    return [tuple(entry[field] for field in fields) for entry in found]


# ------------------------------------------------------------------ good nights


def test_a_night_on_a_machine_without_a_gpu_builds_publishes_what_passed_and_is_good(fresh: BuildSpace) -> None:
    run = fresh.doit("nightly")
    assert run.code == 0, run.output
    assert run.built == ACTIONS
    assert " passed, 0 failed, " in run.output and "  published  cpu " in run.output
    assert "refused: ada\n  not run: running TensorRT-RTX engines needs a CUDA GPU; none found" in run.output
    assert (folder_of(fresh, "cpu") / "SHA256SUMS").exists() and not folder_of(fresh, "ada").exists()
    path, told = night(fresh)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.json", path.name) and str(told["began"]).startswith(path.stem)
    assert (told["exit_code"], told["since"], told["gpu"], told["failed"]) == (0, None, None, [])
    assert entries(told, "built", "action", "because") == [(a, ["never built"]) for a in _order(run)]
    assert {row[0] for row in entries(told, "published", "state")} == {"published", "refused"}
    verdicts = set(entries(told, "verdicts", "comparison", "verdict"))
    assert verdicts >= {("head.fp16", "pass"), ("head.fp16.ada", "not_run")} and len(verdicts) == 8
    assert "artifacts/toy/nightly/" in run.output.splitlines()[-1]


def _order(run: Run) -> list[str]:
    return run.built_lines


def test_a_night_with_nothing_to_do_takes_seconds_and_says_so(space: BuildSpace) -> None:
    space.build("nightly")
    age(space)
    before = state(space.view / "published"), space.report
    began = time.monotonic()
    run = space.build("nightly")
    assert time.monotonic() - began < 5
    assert run.built == set() and "  unchanged  cpu " in run.output
    assert re.search(r"since \d{4}-\d\d-\d\d: nothing\n", run.output), run.output
    _, told = night(space)
    assert (told["built"], told["fresh"]) == ([], len(ACTIONS))
    assert (state(space.view / "published"), space.report) == before


def test_a_night_tells_what_was_rebuilt_and_why_and_what_changed_since_the_night_before(space: BuildSpace) -> None:
    space.build("nightly")
    age(space, 3)
    space.edit(MANIFEST, "\n  head: {", "\n  head: {opset: 19, ")
    space.edit("sam3_build/stages/precision.py", "text + json.dumps(", '"longer" + text + json.dumps(')
    run = space.build("nightly")
    path, told = night(space)
    because = dict(entries(told, "built", "action", "because"))
    assert because["export:head"] == ["params.opset: 20 -> 19"]
    assert "(precision:head.fp16 wrote something else)" in " ".join(map(str, because["build:head.fp16.cpu"]))
    since = told["since"]
    assert isinstance(since, dict)
    assert since["date"] == str(date.fromisoformat(path.stem) - timedelta(days=3))
    assert since["bytes"].keys() >= {"precision:head.fp16", "build:head.fp16.ada"}
    old, new = since["bytes"]["precision:head.fp16"]
    assert new == old + len("longer") and f"precision:head.fp16: {old} -> {new} bytes\n" in run.output
    assert since["seconds"].keys() <= because.keys() and (since["verdicts"], since["published"]) == ({}, {})


def test_a_published_folder_of_no_target_is_named_and_left_alone(space: BuildSpace) -> None:
    for name in ("old", ".cpu.gone"):
        (folder_of(space, name)).mkdir(parents=True)
    run = space.build("nightly")
    line = "  published/old belongs to no target of this manifest any more, and is not verified: delete it if"
    assert run.output.count("belongs to no target") == 1 and line in run.output, run.output
    told = entries(night(space)[1], "published", "target", "state", "holds")
    assert ("old", "orphaned", "what nobody judges") in told and folder_of(space, "old").is_dir()
    assert line in space.build("publish:cpu").output


def test_a_second_run_of_a_date_keeps_what_the_first_one_told(fresh: BuildSpace) -> None:
    fresh.build("nightly")
    fresh.build("nightly")
    path, _ = night(fresh)
    runs = json.loads(path.read_bytes())["runs"]
    assert [len(run["built"]) for run in runs] == [len(ACTIONS), 0]
    assert [run["since"] for run in runs] == [None, None], "a night is compared with an earlier date"


# ------------------------------------------------------------------ bad nights


def test_a_gate_that_fails_makes_a_night_end_with_1_and_is_told_as_a_change(space: BuildSpace) -> None:
    space.build("nightly")
    age(space)
    space.edit("sam3_build/families/toy/modules.py", "z = y @ p", "z = wrong")
    run = space.doit("nightly")
    assert run.code == 1, run.output
    assert "head.fp32 z: pass -> fail\n" in run.output and "head.fp16 z: pass -> not judged\n" in run.output
    assert "cpu: verified -> an earlier state\n" in run.output
    _, told = night(space)
    assert (told["exit_code"], dict(entries(told, "published", "target", "state"))["cpu"]) == (1, "refused")
    space.edit("sam3_build/families/toy/modules.py", "z = wrong", "z = y @ p")
    assert space.doit("nightly").code == 0


def test_a_build_that_fails_makes_a_night_end_with_2_and_stops_only_what_needs_it(fresh: BuildSpace) -> None:
    fresh.edit(*BREAK_HEAD)
    run = fresh.doit("nightly")
    assert run.code == 2 and "  FAILED    simplify:head\n" in run.output, run.output
    needing = matching("precision:head.*", "build:head.*", "verify:head.*")
    assert run.built == ACTIONS - needing - {"simplify:head"}
    assert not re.search(r"^Traceback", run.output, re.M), run.output
    _, told = night(fresh)
    assert [row[0] for row in entries(told, "failed", "action")] == ["simplify:head"]
    assert set(entries(told, "skipped", "action", "because_of")) == {(name, "simplify:head") for name in needing}
    assert "logs/simplify.head.log" in str(told["failed"])
    assert dict(entries(told, "published", "target", "holds")) == {"cpu": "nothing", "ada": "nothing"}


RUN = {"built": [], "verdicts": [], "outputs": {}, "published": []}
DAMAGED = ("{", '{"date": 1}', '{"runs": {}}', '{"runs": [{}]}', '{"runs": [1]}', '{"runs": null}', "[]", '"text"')


def test_a_file_of_today_that_cannot_be_read_is_an_error_before_anything_is_built(fresh: BuildSpace) -> None:
    (fresh.view / "nightly").mkdir(parents=True)
    for day in (date.today(), date.today() + timedelta(days=1)):  # midnight may pass
        (fresh.view / "nightly" / f"{day}.json").write_text('{"runs": [{}]}')
    run = fresh.doit("nightly")
    assert run.code == 2 and ".json cannot be read as a night" in run.output, run.output
    assert "Traceback" not in run.output and run.built == set()


def test_an_earlier_night_that_cannot_be_read_is_told_and_stops_nothing(space: BuildSpace) -> None:
    (space.view / "nightly").mkdir(parents=True)
    (space.view / "nightly" / "2001-01-01.json").write_text('{"runs": [1]}')
    run = space.build("nightly")
    assert "not compared with 2001-01-01: " in run.output and "2001-01-01.json cannot be read" in run.output
    assert night(space)[1]["since"] is None


@pytest.mark.parametrize("text", DAMAGED)
def test_what_parses_but_is_no_night_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "2026-11-20.json").write_text(text)
    with pytest.raises(BuildError, match=r"2026-11-20\.json cannot be read as a night"):
        nights.runs(tmp_path / "2026-11-20.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"outputs": []},
        {"verdicts": [{"comparison": "head.fp16", "output": "z"}]},
        {"published": [1]},
        {"published": "cpu"},
        {"built": [{}]},
    ],
)
def test_a_run_that_cannot_be_compared_with_is_no_run(tmp_path: Path, wrong: dict[str, object]) -> None:
    (tmp_path / "2026-11-20.json").write_text(json.dumps({"runs": [RUN]}))
    assert nights.runs(tmp_path / "2026-11-20.json") == [RUN]
    (tmp_path / "2026-11-20.json").write_text(json.dumps({"runs": [{**RUN, **wrong}]}))
    with pytest.raises(BuildError, match="cannot be read as a night"):
        nights.runs(tmp_path / "2026-11-20.json")


def test_the_night_before_is_the_newest_earlier_one_whatever_else_lies_there(tmp_path: Path) -> None:
    told: list[str] = []
    for name, run in {"2026-11-01": 1, "2026-11-19": 2, "2026-11-22": 3}.items():
        nights.append(tmp_path / f"{name}.json", {**RUN, "n": run})
    nights.append(tmp_path / "2026-11-19.json", {**RUN, "n": 4})
    (tmp_path / "notes.json").write_text("mine")
    assert nights.before(tmp_path / "2026-11-21.json", told.append) == ("2026-11-19", {**RUN, "n": 4})
    assert nights.before(tmp_path / "2026-11-01.json", told.append) is None and told == []
    (tmp_path / "2026-11-20.json").write_text('{"date": 1}')
    assert nights.before(tmp_path / "2026-11-21.json", told.append) == ("2026-11-19", {**RUN, "n": 4})
    assert len(told) == 1 and "2026-11-20.json cannot be read as a night" in told[0]


def test_engines_that_fail_end_a_night_with_1_and_leave_the_other_target_published(space: BuildSpace) -> None:
    from gpus import READINGS
    from test_device_in_doit import HERE, plug_in

    shutil.copy(HERE / "toy_gpu" / "nvidia.py", space.root / "sam3_build" / "machine" / "nvidia.py")
    plug_in(space, READINGS["rtx_4090"])
    assert space.doit("nightly").code == 0
    age(space)
    space.edit(*ENGINES_FAIL)
    run = space.doit("nightly")
    assert run.code == 1 and "withdrawn: ada" in run.output and "ada: verified -> nothing\n" in run.output, run.output
    _, told = night(space)
    assert told["gpu"] == {"name": "NVIDIA GeForce RTX 4090", "driver": "580.65.06"}
    assert (folder_of(space, "cpu") / "SHA256SUMS").exists() and not folder_of(space, "ada").exists()


def test_what_no_machine_can_lift_makes_a_night_end_with_1_until_it_is_allowed(space: BuildSpace) -> None:
    """A comparison that ran and had nothing to measure on: another GPU would tell as little."""
    nothing = "[found.update(not_run={'rows': 'add a sample'}), metrics.pop('rows')]"
    space.edit("sam3_build/stages/verify.py", "    types = {", f"    {nothing}\n    types = {{")
    run = space.doit("nightly")
    assert run.code == 1 and "refused: cpu\n  not run: add a sample\n" in run.output, run.output
    _, told = night(space)
    assert told["exit_code"] == 1 and '"kind": "not measured"' in json.dumps(told["published"])
    space.edit(MANIFEST, "cpu: {backend: onnxruntime}", "cpu: {backend: onnxruntime, allow_unverified: true}")
    run = space.doit("nightly")
    assert run.code == 0 and ", UNVERIFIED: artifacts" in run.output, run.output


# ------------------------------------------------------------------ what starts it


def test_the_workflow_runs_the_night_on_every_gpu_of_its_own_and_keeps_what_lies_there(built: BuildSpace) -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    job = workflow["jobs"]["nightly"]
    assert job["runs-on"][-1] == "${{ matrix.gpu }}" and job["strategy"]["fail-fast"] is False
    manifest = yaml.safe_load((ROOT / "manifests" / "sam3_mini.yaml").read_text())
    assert set(job["strategy"]["matrix"]["gpu"]) <= set(manifest["targets"]), "labels are named after targets"
    assert job["steps"][0]["with"] == {"clean": False}
    assert workflow["permissions"] == {"contents": "read"}
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make .venv/installed", ".venv/bin/python -m doit nightly"]
    assert ".venv/installed:" in (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")


def units() -> list[configparser.ConfigParser]:
    found = []
    for text in re.findall(r"```ini\n(.*?)```", DOC.read_text(), re.S):
        parser = configparser.ConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        found.append(parser)
    return found


def test_the_systemd_examples_are_units_and_start_the_night(built: BuildSpace, tmp_path: Path) -> None:
    service, timer = units()
    folder = service["Service"]["WorkingDirectory"]
    assert service["Service"]["ExecStart"] == f"{folder}/.venv/bin/python -m doit nightly"
    assert "Persistent" in timer["Timer"] and timer["Install"]["WantedBy"] == "timers.target"
    if analyse := shutil.which("systemd-analyze"):
        texts = re.findall(r"```ini\n(.*?)```", DOC.read_text(), re.S)
        texts[0] = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", texts[0])
        texts[0] = re.sub(r"(User|WorkingDirectory)=.*\n", "", texts[0])
        for name, text in zip(("sam3-nightly.service", "sam3-nightly.timer"), texts, strict=True):
            (tmp_path / name).write_text(text)
        files = [str(tmp_path / name) for name in ("sam3-nightly.service", "sam3-nightly.timer")]
        done = subprocess.run([analyse, "verify", *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "sam3-nightly" not in done.stderr, done.stderr
        calendar = [analyse, "calendar", timer["Timer"]["OnCalendar"]]
        assert subprocess.run(calendar, capture_output=True, check=False).returncode == 0


def test_the_service_command_runs_with_its_environment(space: BuildSpace, tmp_path: Path) -> None:
    service, _ = units()
    environment = dict(pair.split("=") for pair in service["Service"]["Environment"].split())
    assert environment.keys() == {"SAM3_MANIFEST", "SAM3_STORE"}
    task = service["Service"]["ExecStart"].partition(" -m doit ")[2]
    shutil.copytree(space.store, tmp_path / "store")
    run = space.doit(task, SAM3_MANIFEST="toy", SAM3_STORE=str(tmp_path / "store"))
    assert run.code == 0 and run.built == set(), run.output


def test_the_documented_fields_are_those_that_a_night_has(space: BuildSpace) -> None:
    space.build("nightly")
    _, told = night(space)
    table = DOC.read_text().partition("| field of a run |")[2].partition("\n\n")[0]
    fields = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert fields == told.keys()
