"""Another GPU in a real run: exactly what is bound to it is stale, going back builds nothing, and runs take turns.

The toy project takes the real backends; its driver is a file. TensorRT counts as installed, and its stage is a toy.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import pytest
from build_space import ACTIONS, STEMS, BuildSpace, Run, finish
from gpus import READINGS

from sam3_build.machine.gpu_lock import LOCKS
from sam3_build.machine.nvidia import Reading

pytestmark = pytest.mark.ci

HERE = Path(__file__).parent
LOCAL = {f"build:{stem}.local" for stem in STEMS}
RUN_LOCAL = {f"verify:{stem}.local" for stem in STEMS}
RUN_ADA = {f"verify:{stem}.ada" for stem in STEMS}


def plug_in(space: BuildSpace, reading: Reading | None, **changes: object) -> None:
    """Put a GPU into the machine that the project runs on, or take it out."""
    path = space.root / "gpu.json"
    if reading is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(json.dumps(asdict(replace(reading, **changes))))  # type: ignore[arg-type]


def asked(space: BuildSpace) -> int:
    log = space.root / "asked.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def add_target(space: BuildSpace, options: str = "") -> None:
    shutil.copy(HERE / "toy_gpu" / "nvidia.py", space.root / "sam3_build" / "machine" / "nvidia.py")
    space.install("tensorrt", "10.16.1.11")
    (space.root / "site" / "tensorrt.py").write_text("")
    space.edit("manifests/toy.yaml", "samples:", f"  local: {{backend: tensorrt{options}}}\nsamples:")


@pytest.fixture(scope="module")
def built_with_gpu(built: BuildSpace, tmp_path_factory: pytest.TempPathFactory) -> BuildSpace:
    """The built project with a TensorRT target, on a machine with an RTX 4090; what that adds was built. Only read."""
    space = built.copy(tmp_path_factory.mktemp("gpu") / "project")
    add_target(space)
    plug_in(space, READINGS["rtx_4090"])
    run = space.build()
    assert run.built == LOCAL | RUN_LOCAL | RUN_ADA, run.output
    return space


@pytest.fixture
def gpu(built_with_gpu: BuildSpace, tmp_path: Path) -> BuildSpace:
    """A copy of that project, to change."""
    return built_with_gpu.copy(tmp_path / "project")


def test_a_new_gpu_makes_only_its_engines_stale_and_going_back_builds_nothing(gpu: BuildSpace) -> None:
    plug_in(gpu, READINGS["l4"])
    assert gpu.build().built == LOCAL | RUN_LOCAL | RUN_ADA  # of one generation: RTX's engines are run anew, not built
    plug_in(gpu, READINGS["a10"])
    assert gpu.build().built == LOCAL | RUN_LOCAL
    for name in ("rtx_4090", "l4", "a10"):
        plug_in(gpu, READINGS[name])
        assert gpu.build().built == set(), name


def test_another_gpu_of_the_same_kind_shares_engines(gpu: BuildSpace) -> None:
    plug_in(gpu, READINGS["rtx_4090"], uuid=f"GPU-{uuid4()}", index=3)
    assert gpu.build().built == set()


@pytest.mark.parametrize(
    ("policy", "version", "engines"),
    [
        ("ignore", "590.1.1", set()),
        ("major", "580.99.1", set()),
        ("major", "590.1.1", LOCAL),
        ("exact", "580.99.1", LOCAL),
    ],
)
def test_a_new_driver_makes_engines_stale_as_the_manifest_says_and_runs_them_anew(
    space: BuildSpace, policy: str, version: str, engines: set[str]
) -> None:
    add_target(space, f", driver: {policy}")
    plug_in(space, READINGS["rtx_4090"])
    space.build()
    plug_in(space, READINGS["rtx_4090"], driver=version)
    assert space.build().built == engines | RUN_LOCAL | RUN_ADA


def test_explain_names_the_field_of_the_gpu_that_changed(gpu: BuildSpace) -> None:
    plug_in(gpu, READINGS["rtx_4090"], memory_bytes=READINGS["rtx_4090"].memory_bytes // 2)
    said = gpu.cli("explain", "build:head.fp16.local").output
    assert "build:head.fp16.local is stale\n  device.memory_mib: 24564 -> 12282\n" in said


def test_without_a_gpu_its_engines_are_blocked_and_everything_else_is_built(fresh: BuildSpace) -> None:
    add_target(fresh)
    run = fresh.build()
    assert run.built == ACTIONS, run.output
    assert "blocked: building TensorRT engines needs a CUDA GPU; none found on this machine\n" in run.output
    assert {name for name, state in fresh.plan().items() if state == "blocked"} == LOCAL
    report = json.loads(fresh.report)
    reasons = {row["reason"] for row in report if row["verdict"] == "not_run" and " local " in row["comparison"]}
    assert reasons == {"running TensorRT engines needs a CUDA GPU; none found on this machine"}
    named = fresh.doit("build:head.fp16.local")
    assert named.code and "build:head.fp16.local is blocked: building TensorRT engines needs a CUDA GPU" in named.output


def test_an_engine_of_a_gpu_that_was_taken_out_stays_in_the_store(gpu: BuildSpace) -> None:
    plug_in(gpu, None)
    run = gpu.build()
    assert run.built == set() and "blocked" in run.output
    plug_in(gpu, READINGS["rtx_4090"])
    assert gpu.build().built == set()


def test_a_driver_that_does_not_answer_blocks_with_its_own_words(gpu: BuildSpace) -> None:
    (gpu.root / "gpu.json").write_text("broken")
    run = gpu.build()
    assert run.built == set()
    words = "needs a CUDA GPU; the NVIDIA driver does not answer: Driver/library version mismatch"
    assert f"building TensorRT engines {words}" in run.output
    assert "Traceback" not in run.output


# ------------------------------------------------------------------ when the driver is asked


def test_the_driver_is_not_asked_again_when_nothing_changed(gpu: BuildSpace) -> None:
    before = asked(gpu)
    gpu.build()
    gpu.cli("plan")
    assert asked(gpu) == before
    (gpu.artifacts / ".device.json").unlink()
    gpu.cli("plan")
    assert asked(gpu) == before + 1


def test_the_driver_is_not_asked_for_a_manifest_without_a_gpu_target(space: BuildSpace) -> None:
    shutil.copy(HERE / "toy_gpu" / "nvidia.py", space.root / "sam3_build" / "machine" / "nvidia.py")
    space.edit("manifests/toy.yaml", '  ada: {backend: tensorrt_rtx, compute_capabilities: ["8.9"]}\n', "")
    plug_in(space, READINGS["rtx_4090"])
    space.build()
    assert asked(space) == 0 and not (space.artifacts / ".device.json").exists()


def test_what_is_remembered_is_not_believed_when_somebody_changed_it(gpu: BuildSpace) -> None:
    path = gpu.artifacts / ".device.json"
    path.write_text(path.read_text().replace('"sm_count":128', '"sm_count":64'))
    assert gpu.build().built == set()


@pytest.mark.workers
def test_a_gpu_that_changed_under_the_plan_is_refused_with_the_first_field_and_then_seen(space: BuildSpace) -> None:
    add_target(space)
    (space.root / "state.txt").write_text("the same start of the same machine")
    plug_in(space, READINGS["rtx_4090"])
    space.build("build:head.fp16.local")
    plug_in(space, READINGS["rtx_4090"], attributes={**READINGS["rtx_4090"].attributes, "ecc": 1})
    run = space.doit("build:head.fp32.local")
    assert run.code
    wrong = "this machine's GPU is not what it was: its ecc is True, and False was planned for; nothing was done"
    assert f"build:head.fp32.local: {wrong}" in run.output
    again = space.build("build:head.fp32.local", "build:head.fp16.local")
    assert again.built == {"build:head.fp32.local", "build:head.fp16.local"}


# ------------------------------------------------------------------ one at a time


@pytest.mark.workers
def test_two_projects_on_one_gpu_take_turns_and_the_second_says_that_it_waits(
    fresh: BuildSpace, tmp_path: Path
) -> None:
    uuid = f"GPU-{uuid4()}"
    add_target(fresh)
    plug_in(fresh, READINGS["rtx_4090"], uuid=uuid)
    fresh.build("precision:head.fp16")
    twin = fresh.copy(tmp_path / "twin")
    processes = [space.start("build:head.fp16.local", TOY_SLOW="2") for space in (fresh, twin)]
    runs: list[Run] = []
    readers = [threading.Thread(target=lambda p=p: runs.append(finish(p))) for p in processes]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    said = "".join(run.output for run in runs)
    (LOCKS / f"sam3_build.{uuid}.lock").unlink()
    assert said.count("wait  build:head.fp16.local: another run is using its GPU") == 1, said
    seconds = sorted(float(s) for s in re.findall(r"built +build:head.fp16.local +(\d+\.\d) s", said))
    assert seconds[0] >= 2 and seconds[1] >= 3, said  # the second began after the first had ended


@pytest.mark.workers
def test_workers_of_one_run_take_turns_too(fresh: BuildSpace) -> None:
    uuid = f"GPU-{uuid4()}"
    add_target(fresh)
    plug_in(fresh, READINGS["rtx_4090"], uuid=uuid)
    fresh.build("precision:head")
    run = fresh.build("-n", "2", "build:head.fp16.local", "build:head.fp32.local", TOY_SLOW="1.5")
    (LOCKS / f"sam3_build.{uuid}.lock").unlink()
    assert run.output.count("another run is using its GPU") == 1
