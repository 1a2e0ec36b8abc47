"""`sam3-build plan`, `explain` and `gc`: they say what a build would do, why, and what nothing needs any more."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_space import ACTIONS, BuildSpace

from sam3_build.commands.gc import KEPT

MANIFEST = "manifests/toy.yaml"
HEAD_OPSET = ("\n  head: {", "\n  head: {opset: 19, ")


def explained(space: BuildSpace, action: str) -> dict[str, object]:
    run = space.cli("explain", action, "--json")
    assert run.code == 0, run.output
    found = json.loads(run.output)
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------ plan


def test_a_plan_of_what_is_built_is_all_fresh_and_of_a_fresh_clone_waits_for_its_roots(
    built: BuildSpace, fresh: BuildSpace
) -> None:
    assert built.plan() == dict.fromkeys(ACTIONS, "fresh")
    states = fresh.plan()
    assert {name for name, state in states.items() if state == "stale"} == {"checkpoint"}
    assert {name for name, state in states.items() if state == "pending"} == ACTIONS - {"checkpoint"}


@pytest.mark.parametrize(
    ("old", "new"), [("*norm*", "*softmax*"), ("[1, 8, 20]", "[1, 8, 24]"), ("red circle", "blue circle")]
)
def test_a_plan_foretells_what_a_build_does(space: BuildSpace, old: str, new: str) -> None:
    space.edit(MANIFEST, old, new)
    states = space.plan()
    stale = {name for name, state in states.items() if state == "stale"}
    pending = {name for name, state in states.items() if state == "pending"}
    run = space.build()
    assert stale and stale <= run.built <= stale | pending
    assert not run.built & {name for name, state in states.items() if state == "fresh"}


def test_a_plan_as_json_has_one_row_per_action_with_its_reasons_and_bytes(space: BuildSpace) -> None:
    space.edit(MANIFEST, *HEAD_OPSET)
    rows = {row["action"]: row for row in json.loads(space.cli("plan", "--json").output)}
    assert rows.keys() == ACTIONS
    assert all(row.keys() == {"action", "state", "because", "bytes_needed"} for row in rows.values())
    assert rows["export:head"]["state"] == "stale"
    assert rows["export:head"]["because"] == ["params.opset: 20 -> 19"]
    assert rows["simplify:head"]["because"] == ["waits for export:head (stale: params.opset: 20 -> 19)"]
    assert rows["export:head"]["bytes_needed"] == sum(f.stat().st_size for f in space.object("export:head").iterdir())
    assert rows["export:encoder"] == {"action": "export:encoder", "state": "fresh", "because": [], "bytes_needed": 0}


def test_a_plan_for_people_ends_with_counts(fresh: BuildSpace) -> None:
    last = fresh.cli("plan").output.splitlines()[-1]
    assert last.startswith("toy: 0 fresh, 1 stale, 24 pending, 0 blocked;")
    assert "25 outputs of unknown size" in last


def test_plan_and_explain_write_no_artifact(fresh: BuildSpace) -> None:
    fresh.plan()
    explained(fresh, "checkpoint")
    assert not fresh.store.exists() and not fresh.view.exists()


# ------------------------------------------------------------------ explain


@pytest.mark.parametrize(
    ("file", "old", "new", "action", "reason"),
    [
        (MANIFEST, *HEAD_OPSET, "export:head", "params.opset: 20 -> 19"),
        (MANIFEST, "*norm*", "*softmax*", "precision:head.fp16", "params.keep_fp32: ['*norm*'] -> ['*softmax*']"),
        (MANIFEST, "8, 20]", "8, 24]", "build:head.fp16.ada", "params.profiles.0.num_boxes: [1, 8, 20] -> [1, 8, 24]"),
        (MANIFEST, '["8.9"]', '["8.6"]', "build:head.fp16.ada", "device.compute_capabilities: ['8.9'] -> ['8.6']"),
        ("sam3_build/stages/simplify.py", "component =", "c = component =", "simplify:head", "recipe.stages.simplify:"),
        ("manifests/scene.png", "a picture", "another picture", "samples", "files.image0: "),
    ],
)  # fmt: skip
def test_explain_names_the_field_and_what_it_was_and_is(
    space: BuildSpace, file: str, old: str, new: str, action: str, reason: str
) -> None:
    space.edit(file, old, new)
    found = explained(space, action)
    assert found["state"] == "stale"
    because = found["because"]
    assert isinstance(because, list) and any(str(line).startswith(reason) for line in because), because
    text = space.cli("explain", action)
    assert text.output.splitlines()[0] == f"{action} is stale"


def test_explain_names_another_version_of_a_tool(space: BuildSpace) -> None:
    space.install("torch", "99.0")
    because = explained(space, "export:head")["because"]
    assert isinstance(because, list) and len(because) == 1
    assert str(because[0]).startswith("tools.torch: ") and str(because[0]).endswith(" -> 99.0")


def test_explain_says_which_input_came_out_differently(space: BuildSpace) -> None:
    space.edit("sam3_build/families/toy/modules.py", "z = y @ p", "z = y @ p + 1")
    space.build("export:head")
    because = explained(space, "simplify:head")["because"]
    assert isinstance(because, list) and len(because) == 1
    assert str(because[0]).startswith("inputs.onnx: ")
    assert str(because[0]).endswith(" (export:head wrote something else)")


def test_explain_tells_never_built_from_damaged_from_fresh(space: BuildSpace, fresh: BuildSpace) -> None:
    assert explained(fresh, "checkpoint")["because"] == ["never built"]
    fresh_one = explained(space, "export:head")
    assert fresh_one.pop("built_from") == json.loads(space.record("export:head").read_bytes())["document"]
    assert fresh_one == {
        "action": "export:head",
        "state": "fresh",
        "because": [],
        "differences": [],
        "bytes_needed": 0,
    }
    assert "tools.torch: " in space.cli("explain", "export:head").output
    shutil.rmtree(space.object("export:head"))
    assert explained(space, "export:head")["because"] == ["its output in the store is missing or damaged"]


def test_plan_says_what_will_be_restored_because_its_files_are_not_shown(space: BuildSpace) -> None:
    (space.view / "head/head.fp16.ada.engine").unlink()
    found = explained(space, "build:head.fp16.ada")
    assert found["state"] == "fresh"
    assert found["because"] == ["a file of it below artifacts/ is missing or was changed: it will be restored"]
    assert space.build("build:head.fp16.ada").restored == {"build:head.fp16.ada"}
    assert explained(space, "build:head.fp16.ada")["because"] == []


def test_gc_takes_what_the_view_shows_of_a_target_that_is_gone(space: BuildSpace) -> None:
    space.edit(MANIFEST, '  ada: {backend: tensorrt_rtx, compute_capabilities: ["8.9"]}\n', "")
    assert space.cli("gc").code == 0
    assert not list(space.view.glob("*/*.ada.*"))
    assert (space.view / "head/head.fp16.onnx").is_file()
    assert space.build().built == set()


@pytest.mark.parametrize("folder", KEPT)
def test_gc_and_clean_leave_what_was_published_told_and_measured(space: BuildSpace, folder: str) -> None:
    kept = space.view / folder / "ada" / "head.fp16.engine"
    kept.parent.mkdir(parents=True)
    kept.write_text("an engine that somebody uses")
    (space.view / folder / "2026-11-21.json").write_text("{}")
    gone = space.view / "tail" / "tail.fp16.onnx"
    gone.parent.mkdir()
    gone.write_text("of a component that was removed")
    assert space.cli("gc", "--keep", "0").code == 0
    assert (kept.exists(), (space.view / folder / "2026-11-21.json").exists(), gone.exists()) == (True, True, False)
    space.build("clean")
    assert kept.exists() and (space.view / folder / "2026-11-21.json").exists()


def test_what_another_manifest_built_first_has_a_history_here_too(fresh: BuildSpace) -> None:
    shutil.copy(fresh.root / MANIFEST, fresh.root / "manifests/other.yaml")
    fresh.build("manifest=other")
    assert "patch:encoder" not in fresh.build().built_lines
    fresh.edit(MANIFEST, "[fold_toy]", "[fold_toy, drop_toy]")
    because = explained(fresh, "patch:encoder")["because"]
    assert isinstance(because, list) and because[0] == "params.patches: ['fold_toy'] -> ['fold_toy', 'drop_toy']"


def test_explaining_what_does_not_exist_suggests_what_does(built: BuildSpace) -> None:
    run = built.cli("explain", "build:head.fp16.adda")
    assert run.code == 1 and "Traceback" not in run.output
    assert "did you mean 'build:head.fp16.ada'?" in run.output


def test_commands_outside_of_a_project_say_what_to_do(built: BuildSpace, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sam3_build", "plan"],
        cwd=tmp_path,
        env=built.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "run sam3-build inside a project" in done.stderr


# ------------------------------------------------------------------ gc


def built_twice(space: BuildSpace) -> None:
    """Build with another opset, then come back: the store holds two generations of each graph."""
    before = space.sources()
    space.edit(MANIFEST, *HEAD_OPSET)
    space.build()
    space.restore(before)
    space.build()


def test_gc_of_what_is_in_use_removes_nothing(space: BuildSpace) -> None:
    run = space.cli("gc", "--json", "--keep", "0")
    assert json.loads(run.output) == {"dry_run": False, "bytes": 0, "paths": []}
    assert space.build().built == set()


def test_gc_removes_old_generations_says_so_first_and_never_what_a_manifest_reaches(space: BuildSpace) -> None:
    built_twice(space)
    size = sum(f.stat().st_size for f in space.store.glob("objects/*/*/*"))
    said = json.loads(space.cli("gc", "--dry-run", "--keep", "0", "--json").output)
    assert said["dry_run"] and said["paths"] and said["bytes"] > 0
    assert sum(f.stat().st_size for f in space.store.glob("objects/*/*/*")) == size
    done = json.loads(space.cli("gc", "--keep", "0", "--json").output)
    assert done == {**said, "dry_run": False}
    assert [path for path in done["paths"] if (space.store / path).exists()] == []
    assert space.build().built == set()
    space.edit(MANIFEST, *HEAD_OPSET)
    assert "export:head" in space.build().built


def test_gc_keeps_as_many_generations_as_asked_for(space: BuildSpace) -> None:
    built_twice(space)
    assert json.loads(space.cli("gc", "--keep", "2", "--json").output)["paths"] == []
    space.edit(MANIFEST, *HEAD_OPSET)
    assert space.build().built == set()


def test_gc_keeps_what_another_project_built_last_into_a_shared_store(fresh: BuildSpace, tmp_path: Path) -> None:
    store = {"SAM3_STORE": str(tmp_path / "store")}
    twin = fresh.clone(tmp_path / "twin")
    twin.edit(MANIFEST, *HEAD_OPSET)
    twin.build(**store)
    fresh.build(**store)
    assert fresh.cli("gc", **store).code == 0
    assert twin.build(**store).built == set()


def test_gc_removes_work_of_killed_runs_and_leaves_no_record_without_its_object(space: BuildSpace) -> None:
    built_twice(space)
    (space.store / "tmp" / ("0" * 64) / "out").mkdir(parents=True)
    assert space.cli("gc", "--keep", "0").code == 0
    assert list(space.store.glob("tmp/*")) == []
    objects = {path.name for path in space.store.glob("objects/*/*")}
    assert {json.loads(path.read_bytes())["object"] for path in space.store.glob("records/*/*.json")} == objects


def test_gc_survives_a_history_that_cannot_be_read(space: BuildSpace) -> None:
    (history,) = space.store.glob("names/*/toy/export.head.json")
    history.write_text("{")
    assert space.cli("gc").code == 0
    assert space.build().built == set()


def test_gc_reaches_over_all_manifests_of_the_project(space: BuildSpace) -> None:
    text = (space.root / MANIFEST).read_text()
    (space.root / "manifests/other.yaml").write_text(text.replace(*HEAD_OPSET))
    space.build("manifest=other")
    assert json.loads(space.cli("gc", "--keep", "0", "--json").output)["paths"] == []
    (space.root / "manifests/other.yaml").unlink()
    assert json.loads(space.cli("gc", "--keep", "0", "--json").output)["paths"]
    assert space.build().built == set()
