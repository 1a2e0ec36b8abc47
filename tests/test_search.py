"""`sam3-build search` on graphs with planted faults: it finds them, every trial is remembered, doit builds it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import planted_space
import pytest
from build_space import BuildSpace, Run

LOCK = "manifests/toy.lock.yaml"
TRIAL = re.compile(
    r"^  trial +(\d+) +(\d+) nodes in FP32(?: \((.*?)\))?: (passes|fails, .*) \((known|[\d.]+ s)\)$", re.M
)

pytestmark = pytest.mark.ci


def trials(run: Run) -> list[tuple[int, bool]]:
    """Return (nodes in FP32, whether it passed) of each trial that a search told."""
    return [(int(size), verdict == "passes") for _, size, _, verdict, _ in TRIAL.findall(run.output)]


def ran(run: Run) -> int:
    """Return how many actions a search says that it ran."""
    return int(re.findall(r"(\d+) actions run$", run.output, re.M)[0])


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildSpace, frozenset[str], Run]:
    """A project in which one overflow was planted and found. Tests only read it."""
    space, nodes = planted_space.create(
        tmp_path_factory.mktemp("searched") / "project", 2, {"layers.1.mlp": "overflow"}
    )
    run = space.cli("search", "encoder")
    assert run.code == 0, run.output
    return space, nodes, run


@pytest.fixture
def copied(searched: tuple[BuildSpace, frozenset[str], Run], tmp_path: Path) -> BuildSpace:
    """A copy of that project, to change."""
    return searched[0].copy(tmp_path / "project")


def locked(space: BuildSpace) -> set[str]:
    return set(re.findall(r"^    - (.*)$", (space.root / LOCK).read_text(), re.M))


def test_the_planted_nodes_are_found_by_their_ranges_and_each_is_tried_without(searched) -> None:
    space, nodes, run = searched
    assert locked(space) == nodes
    assert trials(run) == [(0, False), (2, True), (1, False), (1, False)]
    assert "rules on ranges and weights name 2 of them" in run.output
    assert re.search(r"passes its gates with 2 of 27 nodes in FP32, none of which can be left out:$", run.output, re.M)
    assert (
        len(re.findall(r"/Mul_[23]  overflow, encoder.layers.1.mlp/Mul_2:0 reaches [\d.e+]+$", run.output, re.M)) == 2
    )


def test_searching_again_runs_nothing_and_writes_nothing(searched) -> None:
    space, _, first = searched
    before = (space.root / LOCK).stat().st_ino
    run = space.cli("search", "encoder")
    assert run.code == 0 and ran(run) == 0 and trials(run) == trials(first)
    assert (space.root / LOCK).stat().st_ino == before


def test_what_was_found_is_built_already_and_stays_after_garbage_collection(copied: BuildSpace) -> None:
    assert copied.plan()["verify:encoder.fp16"] == "fresh"
    collected = copied.cli("gc", "--keep", "1")
    assert collected.code == 0
    assert "cannot be read" not in collected.output, "a lock is no manifest"
    assert ran(copied.cli("search", "encoder")) == 0
    assert copied.plan()["verify:encoder.fp16"] == "fresh"


def test_doit_verify_fails_without_the_lock_and_passes_with_it(copied: BuildSpace) -> None:
    assert copied.doit("verify").code == 0
    (copied.root / LOCK).unlink()
    run = copied.doit("verify")
    assert run.code != 0
    assert re.search(r"nonfinite is \d+, not <= 0", run.output)


def test_without_its_lock_the_precision_is_stale_and_explain_says_what_changed(copied: BuildSpace) -> None:
    (copied.root / LOCK).unlink()
    assert {name for name, state in copied.plan().items() if "fp16" in name and state == "fresh"} == set()
    said = copied.cli("explain", "precision:encoder.fp16").output
    assert re.search(r"params\.locked: \{graph: [0-9a-f]{12}, nodes: \[.*Mul_2.*\]\} -> absent", said)


def test_a_search_begins_with_what_the_lock_holds_and_leaves_out_what_need_not_be(searched, copied: BuildSpace) -> None:
    lock = copied.root / LOCK
    lock.write_text(lock.read_text().replace("keep_fp32:\n", "keep_fp32:\n    - encoder.layers.0.mlp/Tanh_0\n"))
    run = copied.cli("search", "encoder")
    assert run.code == 0, run.output
    assert trials(run)[:3] == [(0, False), (3, True), (2, True)] and "(the lock): passes" in run.output
    assert locked(copied) == searched[1]


def test_another_gate_needs_no_new_trial(copied: BuildSpace) -> None:
    """Statistics are kept, verdicts are not: what is tried depends on the gates, what was measured does not."""
    copied.append("manifests/toy.yaml", "tolerances: {fp16: {encoder: {y: {cosine: 0.99}}}}\n")
    run = copied.cli("search", "encoder")
    assert run.code == 0 and ran(run) == 0
    assert "cosine >= 0.99," in (copied.root / LOCK).read_text()


@pytest.mark.slow
def test_a_gate_that_nothing_passes_is_an_error_that_writes_no_lock(copied: BuildSpace) -> None:
    before = (copied.root / LOCK).read_bytes()
    copied.append("manifests/toy.yaml", "tolerances: {fp16: {encoder: {y: {std_ratio: [2, 3]}}}}\n")
    run = copied.cli("search", "encoder")
    assert run.code == 1
    assert "its gates fail even with every node in FP32 (y: std_ratio is 1, not in 2..3)" in run.output
    assert "sam3-build localize encoder --precision fp16" in run.output
    assert (copied.root / LOCK).read_bytes() == before


def test_a_lock_of_another_graph_stops_the_build_until_it_is_searched_again(copied: BuildSpace) -> None:
    weights = copied.root / "manifests" / "weights.safetensors"
    weights.write_text(weights.read_text().replace('"encoder.blocks": 2', '"encoder.blocks": 3'))
    run = copied.doit("precision:encoder.fp16")
    assert run.code != 0
    assert "encoder.fp16: the lock file is of another graph" in run.output
    assert "run `sam3-build search encoder --precision fp16` again" in run.output


def test_other_weights_keep_the_lock(copied: BuildSpace) -> None:
    weights = copied.root / "manifests" / "weights.safetensors"
    weights.write_text(weights.read_text().replace('"encoder.seed": 0', '"encoder.seed": 5'))
    run = copied.build("precision:encoder.fp16")
    assert "precision:encoder.fp16" in run.built


@pytest.mark.slow
def test_a_component_that_passes_as_it_is_loses_its_entry(copied: BuildSpace) -> None:
    weights = copied.root / "manifests" / "weights.safetensors"
    weights.write_text(json.dumps(json.loads(weights.read_text()) | {"encoder.plants": {}}))
    run = copied.cli("search", "encoder")
    assert run.code == 0 and trials(run) == [(0, True)]
    assert f"passes its gates with no node kept in FP32: its entry is removed from {LOCK}" in run.output
    assert not (copied.root / LOCK).exists()
    again = copied.cli("search", "encoder")
    assert ran(again) == 0 and "no node kept in FP32: nothing to lock" in again.output


REFUSED = {
    ("encodr",): "manifest 'toy' has no component or pipeline 'encodr'; did you mean 'encoder'?",
    ("encoder", "-p", "fp32"): "fp32 is what others are compared with; search a reduced precision, such as fp16",
    ("encoder", "-p", "fp61"): "manifest 'toy' does not build precision 'fp61'; did you mean 'fp16'?",
    ("encoder", "--target", "cpuu"): "manifest 'toy' has no target 'cpuu'; did you mean 'cpu'?",
    ("encoder", "--target", "cpu"): "cpu runs the graph itself: leave --target out",
    ("pipeline", "--cases", "1"): (
        "--cases counts recorded cases of a component; a pipeline is tried on all of its samples"
    ),
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_cannot_be_searched_is_refused_with_what_can(searched, words: tuple[str, ...]) -> None:
    run = searched[0].cli("search", *words)
    assert run.code == 1 and run.output.strip() == REFUSED[words]


# ------------------------------------------------------------------ minutes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_faults_that_no_rule_sees_are_found_too(tmp_path: Path, seed: int) -> None:
    plants = {"layers.1.mlp": "overflow", "layers.4.attn": "cancel", "layers.6.mlp": "cancel"}
    space, nodes = planted_space.create(tmp_path / "project", 8, plants, seed)
    run = space.cli("search", "encoder", timeout=1200)
    assert run.code == 0, run.output
    assert locked(space) <= nodes
    assert len(trials(run)) < 50
    assert "verify:encoder.fp16" not in space.build("verify").built


@pytest.mark.slow
def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path) -> None:
    space, nodes = planted_space.create(
        tmp_path / "project", 4, {"layers.1.mlp": "overflow", "layers.3.attn": "cancel"}
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "sam3_build", "search", "encoder"],
        cwd=space.root,
        env=space.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    told = []
    while sum(line.startswith("  trial") for line in told) < 3:
        told.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == "interrupted: the trials that ended are kept, and the same command goes on"
    assert not (space.root / LOCK).exists()
    run = space.cli("search", "encoder", timeout=1200)
    assert run.code == 0 and locked(space) == nodes
    assert [taken for *_, taken in TRIAL.findall(run.output)][:3] == ["known"] * 3
    assert ran(space.cli("search", "encoder")) == 0
