"""A family that shares nothing with SAM 3 goes through everything, and is written in its own folder alone.

A frame encoder runs once per frame; two components with state between them run in a loop, for two objects.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import blinker_space
import numpy as np
import pytest
from build_space import BuildSpace, Run

pytestmark = pytest.mark.ci

COMPONENTS = ("frame_encoder", "decode", "update_state")
PATCHED = "components: {frame_encoder: {}, decode: {}, update_state: {}}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildSpace, Run]:
    """The project with everything built, and the run that did it. Tests only read it."""
    space = blinker_space.create(tmp_path_factory.mktemp("blinker") / "project")
    run = space.doit("build", "verify")
    assert run.code == 0, run.output
    return space, run


@pytest.fixture
def copied(whole: tuple[BuildSpace, Run], tmp_path: Path) -> BuildSpace:
    """A copy of that project, to change."""
    return whole[0].copy(tmp_path / "project")


def verdicts(space: BuildSpace) -> list[dict[str, object]]:
    return json.loads((space.root / "artifacts" / "toy" / "report.json").read_text())


def reasons(space: BuildSpace, component: str, verdict: str, metric: str = "") -> list[str]:
    rows = [row for row in verdicts(space) if row["component"] == component and row["verdict"] == verdict]
    return [str(row["reason"]) for row in rows if not metric or row["metric"] == metric]


def test_it_passes_tensors_and_tracks_from_a_manifest_to_a_report(whole: tuple[BuildSpace, Run]) -> None:
    space, run = whole
    assert run.output.count("16 passed, 0 failed, 0 not run") == 1
    rows = verdicts(space)
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {row["metric"] for row in rows if row["component"] == "pipeline"} >= {"mask_iou", "visible", "order"}
    rows_checked = {row["component"] for row in rows if row["metric"] == "rows"}
    assert rows_checked == set(COMPONENTS), "also where the features of a frame are given whole to every object"
    page = (space.root / "artifacts" / "toy" / "report.html").read_text()
    assert "object 2 by 1 point" in page and "clip0, frame 3" in page


def test_calls_of_the_loop_are_recorded_by_component(whole: tuple[BuildSpace, Run]) -> None:
    space, _ = whole
    found = space.object("reference:track")
    names = {str(path.relative_to(found)) for path in found.rglob("*.npz")}
    assert names == {
        "clip0.npz",
        *(f"{name}/clip0.{call:05}.npz" for name in ("decode", "update_state") for call in (0, 1, 5)),
    }, "the first two calls and the last; the first one is the largest, and the only one with a prompt"
    with np.load(found / "decode" / "clip0.00005.npz") as call:
        assert sorted(call.files) == ["inputs/features", "inputs/state", "outputs/masks", "outputs/visible"]
        assert call["inputs/state"].shape == (2, blinker_space.CHANNELS)


def test_nothing_runs_a_second_time(copied: BuildSpace) -> None:
    run = copied.doit("build", "verify")
    assert (run.code, run.built) == (0, set())


def test_a_weight_of_the_decoder_reruns_the_loop_and_no_other_components_builds(copied: BuildSpace) -> None:
    tensors = blinker_space.weights()
    tensors["decoder.key.weight"][0, 0] *= 1.5
    blinker_space.save_weights(copied.root / "manifests" / "weights.safetensors", tensors)
    run = copied.doit("build", "verify")
    assert run.code == 0, run.output
    sides = ("fp32", "fp16")
    assert run.built == {
        "checkpoint",
        "export:decode",
        "simplify:decode",
        "reference:track",
        *(f"{verb}:decode.{side}" for verb in ("precision", "verify") for side in sides),
        *(f"build:decode.{side}.cpu" for side in sides),
        *(f"chain:track.{side}" for side in sides),
        *(f"compare:{side}" for side in sides),
    }, "the state that is updated depends on masks alone, and these are the same"


def test_a_weight_that_changes_recordings_reruns_what_is_measured_on_them(copied: BuildSpace) -> None:
    tensors = blinker_space.weights()
    tensors["update.weight"][0, 0] *= 1.01
    blinker_space.save_weights(copied.root / "manifests" / "weights.safetensors", tensors)
    run = copied.doit("build", "verify")
    assert {f"verify:{name}.fp32" for name in ("decode", "update_state")} <= run.built
    untouched = ("reference:frame_encoder", "export:frame_encoder", "export:decode", "build:decode.fp32.cpu")
    assert run.built.isdisjoint(untouched), run.output


def test_changed_results_rerun_comparisons_alone(copied: BuildSpace) -> None:
    copied.edit("sam3_build/families/blinker/results.py", '["masks"] > 0', '["masks"] > 0.5')
    run = copied.doit("build", "verify")
    assert (run.code, run.built) == (0, {"compare:fp32", "compare:fp16"}), run.output


def test_a_changed_loop_reruns_no_export_and_no_step(copied: BuildSpace) -> None:
    copied.edit("sam3_build/families/blinker/loops.py", "ABSENT = -10.0", "ABSENT = -11.0")
    run = copied.doit("build", "verify")
    assert run.code == 0, run.output
    loops = {"reference:track", "chain:track.fp32", "chain:track.fp16"}
    assert run.built == loops, "calls and tracks are the same, so that what is measured on them stands"


def plant(space: BuildSpace, component: str, patch: str) -> Run:
    """Build with a faulty graph of one component."""
    file = space.root / "sam3_build" / "patches" / f"{patch}.py"
    file.write_text((Path(__file__).parent / "blinker" / "patches" / f"{patch}.py").read_text())
    space.edit("manifests/toy.yaml", f"{component}: {{}}", f"{component}: {{patches: [{patch}]}}")
    return space.doit("build", "verify")


def test_a_fault_in_the_state_is_named_by_its_tensors_and_by_its_tracks(copied: BuildSpace) -> None:
    run = plant(copied, "update_state", "dim_state")
    assert run.code == 1, run.output
    assert any("next_state" in str(row["output"]) for row in verdicts(copied) if row["verdict"] == "fail")
    assert not reasons(copied, "decode", "fail") and not reasons(copied, "frame_encoder", "fail")
    tracks = " ".join(reasons(copied, "pipeline", "not_judged"))
    assert 'since update_state failed in "pytorch fp32 vs onnxruntime fp32"' in tracks
    assert re.search(r"its own gate failed too: .*object [12] of clip0 .*frame", tracks), tracks


def test_masks_that_are_shifted_by_a_pixel_are_named_with_object_and_frame(copied: BuildSpace) -> None:
    plant(copied, "decode", "shift_masks")
    (reason,) = {r for r in reasons(copied, "pipeline", "not_judged", "mask_iou") if "not >= 0.999" in r}
    assert re.search(r"mask_iou is 0\.\d+, not >= 0\.999: object [12] of clip0 at frame \d", reason), reason


def test_search_and_localize_read_the_recordings_of_a_loop(copied: BuildSpace) -> None:
    search = copied.cli("search", "decode", timeout=300)
    assert search.code == 0, search.output
    assert "decode.fp16 passes its gates with no node kept in FP32: nothing to lock" in search.output
    located = copied.cli("localize", "decode", timeout=300)
    assert located.code == 0 and "no block introduces an error" in located.output, located.output


def test_it_is_published_with_cards(copied: BuildSpace) -> None:
    run = copied.doit("publish")
    assert run.code == 0, run.output
    published = copied.root / "artifacts" / "toy" / "published" / "cpu"
    assert {path.stem for path in published.glob("*.onnx")} == {
        f"{c}.{p}" for c in COMPONENTS for p in ("fp32", "fp16")
    }
    assert "tracks" in (published / "decode.fp16.md").read_text()


def test_a_loop_of_which_a_component_is_not_built_is_not_run_and_says_which(copied: BuildSpace) -> None:
    copied.edit("manifests/toy.yaml", ", update_state: {}", "")
    run = copied.doit("build", "verify")
    assert run.code == 0, run.output
    assert set(reasons(copied, "pipeline", "not_run")) == {"the manifest does not build update_state"}
    refused = copied.doit("publish")
    assert refused.code == 1 and "the manifest does not build update_state" in refused.output


def test_a_folder_outside_the_family_knows_nothing_of_it(whole: tuple[BuildSpace, Run]) -> None:
    package = whole[0].root / "sam3_build"
    own = package / "families" / "blinker"
    others = [path for path in package.rglob("*.py") if own not in path.parents]
    assert [path.name for path in others if "blinker" in path.read_text()] == []
