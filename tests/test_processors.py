"""Devices that a backend's own library finds: remembered, in keys, asked again by the worker; what they cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_space import ROOT

from sam3_build import registry
from sam3_build.backends import openvino
from sam3_build.execution import worker
from sam3_build.execution.session import processors
from sam3_build.machine.devices import cached
from sam3_build.manifest.load import load
from sam3_build.plan.make import make_plan
from sam3_build.spec import Json, Plan, Processors

FIELDS: dict[str, Json] = {
    "openvino": "2026.4.1",
    "device": "CPU",
    "name": "Some CPU",
    "capabilities": ["BF16", "FP32"],
}
OLD = FIELDS | {"name": "Old CPU", "capabilities": ["FP32"]}


class Library:
    """Counts how often it is asked."""

    def __init__(self, found: Processors) -> None:
        self.found, self.asked = found, 0

    def __call__(self) -> Processors:
        self.asked += 1
        return self.found


def planned(fields: dict[str, Json] | None, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(openvino, "_is_installed", lambda: True)
    found = {} if fields is None else {"openvino": Processors({"CPU": fields})}
    return make_plan(load("sam3_mini", ROOT), processors=found)


# ------------------------------------------------------------------ remembered


def test_a_library_is_asked_once_for_each_release_of_it(tmp_path: Path) -> None:
    library, path = Library(Processors({"CPU": FIELDS})), tmp_path / ".openvino.json"
    assert [cached(library, ("2026.4.1",), path) for _ in range(3)] == [library.found] * 3
    assert library.asked == 1
    assert cached(library, ("2026.5.0",), path) == library.found
    assert library.asked == 2


@pytest.mark.parametrize("text", ["", "{", '{"guard": "x", "device": {}}'])
def test_what_is_damaged_is_asked_for_again(tmp_path: Path, text: str) -> None:
    library, path = Library(Processors({"CPU": FIELDS})), tmp_path / ".openvino.json"
    path.write_text(text)
    assert cached(library, ("2026.4.1",), path) == library.found
    assert library.asked == 1


def test_a_problem_is_not_remembered(tmp_path: Path) -> None:
    library, path = Library(Processors(problem="a library is missing")), tmp_path / ".openvino.json"
    assert [cached(library, ("2026.4.1",), path).problem for _ in range(2)] == ["a library is missing"] * 2
    assert library.asked == 2 and not path.exists()


def test_only_libraries_that_have_devices_of_their_own_are_asked(tmp_path: Path) -> None:
    assert processors(tmp_path, {"onnxruntime", "tensorrt_rtx"}) == {}
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ in a plan


def test_what_is_built_and_what_runs_it_are_keyed_by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(FIELDS, monkeypatch)
    for name in ("build:decoder.bf16.openvino", "verify:decoder.bf16.openvino", "chain:decoder.bf16.openvino"):
        action = plan.action(name)
        assert (action.device, action.processor, action.gpu, action.blocked) == (FIELDS, "openvino", None, None), name
    assert plan.action("build:decoder.bf16.openvino").view == {
        f"decoder.bf16{extension}": f"decoder/decoder.bf16.openvino{extension}"
        for extension in (".blob", ".built_for.json")
    }
    assert plan.action("verify:decoder.bf16.openvino").params["types"], "which layers compute in which type is judged"
    assert plan.action("compare:bf16.openvino").processor is None, "post-processing needs no library"


def test_a_cpu_without_bf16_kernels_builds_and_runs_fp32_and_says_why_not_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(OLD, monkeypatch)
    why = "bf16: this CPU (Old CPU) has no BFLOAT16 kernels, OpenVINO says: FP32"
    of_target = [a for a in plan.actions if a.name.endswith(".openvino")]
    assert {a.blocked for a in of_target if "fp32" in a.name} == {None}
    assert {a.name.split(":")[0] for a in of_target if "fp32" in a.name} == {"build", "verify", "chain", "compare"}
    assert {(a.name.split(":")[0], a.blocked) for a in of_target if "bf16" in a.name} == {("build", why)}
    not_run = {c.precision: c.not_run for c in plan.comparisons if c.target == "openvino"}
    assert not_run == {"fp32": None, "bf16": why}


def test_without_the_library_everything_of_the_target_is_not_run_and_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(None, monkeypatch)
    why = "the Python package openvino is not installed (pip install 'sam3-build[openvino]')"
    assert {a.blocked for a in plan.actions if a.name.endswith(".openvino")} == {why}
    assert {c.not_run for c in plan.comparisons if c.target == "openvino"} == {why}


# ------------------------------------------------------------------ asked again


@pytest.mark.parametrize(
    ("live", "message"),
    [
        (Processors({"CPU": OLD}), "its name is 'Some CPU', and this machine has 'Old CPU'"),
        (Processors({}), "its openvino is '2026.4.1', and this machine has None"),
        (Processors(problem="a library is missing"), "a library is missing"),
    ],
)
def test_a_worker_on_another_device_than_the_key_says_does_nothing_and_what_is_remembered_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: Processors, message: str
) -> None:
    from dataclasses import replace

    backend = replace(registry.backend("openvino"), probe=lambda: live)
    monkeypatch.setattr(registry, "backend", lambda name: backend)
    file = tmp_path / ".openvino.json"
    file.write_text("{}")
    processor = {"backend": "openvino", "fields": FIELDS, "file": str(file)}
    request = {"stage": "none", "params": {}, "inputs": {}, "out": str(tmp_path / "out"), "processor": processor}
    found = worker.run(request)
    assert found == {
        "error": f"openvino does not find what was planned for: {message}; nothing was done, run it again"
    }, json.dumps(found)
    assert not file.exists()
