"""The task in a plan: which links there are, what each takes, and where nothing can be judged."""

from __future__ import annotations

from pathlib import Path

import gpus
import pytest

from sam3_build import registry
from sam3_build.commands import gc
from sam3_build.errors import ManifestError
from sam3_build.manifest.load import load
from sam3_build.pipeline import chain
from sam3_build.plan.make import make_plan
from sam3_build.spec import PIPELINE, Comparison, DeviceFingerprint, Kind, Plan

ROOT = Path(__file__).parents[1]
LOCAL = "targets: {cpu: {backend: onnxruntime}, local: {backend: onnxruntime, provider: cuda}}\n"


def planned(folder: Path, text: str, gpu: DeviceFingerprint | None = None) -> Plan:
    (folder / "m.yaml").write_text(f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n{text}")
    return make_plan(load(str(folder / "m.yaml"), ROOT), gpu)


def names(plan: Plan, *stages: str) -> list[str]:
    return [action.name for action in plan.actions if action.stage in stages]


def tasks(plan: Plan) -> dict[str, Comparison]:
    return {comparison.name: comparison for comparison in plan.comparisons if comparison.kind == Kind.RESULT}


def sources(plan: Plan, action: str) -> dict[str, str]:
    return {role: source.action for role, source in plan.action(action).inputs.items()}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> DeviceFingerprint:
    """A GPU that ONNX Runtime can run on."""
    from dataclasses import replace

    from sam3_build import registry

    real = registry.backend
    able = replace(real("onnxruntime"), missing=lambda *_: None, cannot_run=lambda *_: None)
    monkeypatch.setattr(registry, "backend", lambda name: able if name == "onnxruntime" else real(name))
    return gpus.RTX_4090


def test_each_side_runs_what_is_fed_on_its_own_outputs_one_component_an_action(tmp_path: Path) -> None:
    plan = planned(tmp_path, "")
    assert names(plan, "chain", "compare") == [
        f"{link}.{precision}" if ":" in link else f"{link}:{precision}"
        for precision in ("fp32", "fp16", "bf16")
        for link in ("chain:geometry_encoder", "chain:decoder", "compare")
    ]
    assert sources(plan, "chain:decoder.fp16") == {
        "onnx": "precision:decoder.fp16",
        "samples": "samples",
        "vision_encoder": "verify:vision_encoder.fp16",
        "text_encoder": "verify:text_encoder.fp16",
        "geometry_encoder": "chain:geometry_encoder.fp16",
    }
    assert plan.action("chain:decoder.fp16").params["component"] == "decoder", "by which its memory is stated"
    assert sources(plan, "compare:fp16") == {
        "samples": "samples",
        "reference": "reference:decoder",
        "actual": "chain:decoder.fp16",
    }


def test_outputs_are_kept_of_what_begins_a_chain_and_of_fp32_as_ever(tmp_path: Path) -> None:
    plan = planned(tmp_path, "")
    kept = {a.name for a in plan.actions if a.params.get("keep_outputs")}
    assert kept == {
        *(f"verify:{name}.{p}" for name in ("vision_encoder", "text_encoder") for p in ("fp16", "bf16")),
        *(name for name in names(plan, "verify") if name.endswith("fp32")),
    }


def test_what_the_manifest_does_not_build_pytorch_stands_in_for(tmp_path: Path) -> None:
    plan = planned(tmp_path, "components: {vision_encoder: null, geometry_encoder: null}\n")
    assert names(plan, "chain") == ["chain:decoder.fp32", "chain:decoder.fp16", "chain:decoder.bf16"]
    found = sources(plan, "chain:decoder.fp16")
    assert (found["vision_encoder"], found["geometry_encoder"]) == (
        "reference:vision_encoder",
        "reference:geometry_encoder",
    )
    assert found["text_encoder"] == "verify:text_encoder.fp16"
    assert tasks(plan)["pipeline.fp16"].depends_on == ("text_encoder.fp16", "decoder.fp16", "pipeline.fp32")


def test_without_the_last_component_there_is_no_task_and_nothing_is_kept_for_it(tmp_path: Path) -> None:
    plan = planned(tmp_path, "components: {decoder: null}\ntolerances: null\n")
    assert names(plan, "chain", "compare") == [] and tasks(plan) == {}
    assert not any(a.params.get("keep_outputs") for a in plan.actions if a.name.endswith("fp16"))


def test_layout_v2_chains_its_one_decoder(tmp_path: Path) -> None:
    plan = make_plan(load("sam3_mini_v2", ROOT))
    assert names(plan, "chain") == ["chain:decoder.fp32", "chain:decoder.fp16", "chain:decoder.bf16"]
    assert sources(plan, "chain:decoder.fp32").keys() == {"onnx", "samples", "vision_encoder", "text_encoder"}


def test_a_target_that_runs_here_has_a_chain_of_its_own_with_the_devices_key(
    tmp_path: Path, gpu: DeviceFingerprint
) -> None:
    plan = planned(tmp_path, LOCAL, gpu)
    link, verified = plan.action("chain:decoder.fp16.local"), plan.action("verify:decoder.fp16.local")
    assert sources(plan, link.name) == {
        "built": "build:decoder.fp16.local",
        "onnx": "precision:decoder.fp16",
        "samples": "samples",
        "vision_encoder": "verify:vision_encoder.fp16.local",
        "text_encoder": "verify:text_encoder.fp16.local",
        "geometry_encoder": "chain:geometry_encoder.fp16.local",
    }
    for field in ("device", "gpu", "env", "tools"):
        assert getattr(link, field) == getattr(verified, field), field
    assert link.device and link.gpu
    assert {k: link.params[k] for k in ("backend", "options")} == {
        k: verified.params[k] for k in ("backend", "options")
    }
    assert link.recipe == ("stages.chain", *verified.recipe[1:])
    found = tasks(plan)["pipeline.fp16.local"]
    assert (found.action, found.not_run) == ("compare:fp16.local", None)
    assert found.label == "pytorch fp32 vs local fp16, whole pipeline (engine parity)"
    assert plan.action("compare:fp16.local").gpu is None, "post-processing needs no GPU"


def test_a_target_that_cannot_run_here_is_not_run_with_the_reason_and_has_no_action(tmp_path: Path) -> None:
    plan = planned(tmp_path, "")
    found = {name: comparison for name, comparison in tasks(plan).items() if comparison.target}
    assert {c.target for c in found.values()} == {"openvino", "ampere", "ada", "blackwell"}
    for comparison in found.values():
        why = "openvino is not installed" if comparison.target == "openvino" else "needs a CUDA GPU"
        assert comparison.action is None and why in str(comparison.not_run)
    graph = tasks(plan)["pipeline.fp16"]
    assert graph.label == "pytorch fp32 vs onnxruntime fp16, whole pipeline, emulated (range parity)"


def test_only_reduced_precision_of_random_weights_is_told_and_not_judged(tmp_path: Path) -> None:
    config = ROOT / "manifests" / "sam3_mini" / "config.json"
    plan = planned(
        tmp_path,
        f"checkpoint: {{path: null, random: {{seed: 0, config: {config}}}}}\n"
        f"tokenizer: {config.with_name('tokenizer.json')}\n",
    )
    assert {name for name, c in tasks(plan).items() if c.informs} == {
        "pipeline.fp16", "pipeline.fp16.ampere", "pipeline.fp16.ada", "pipeline.fp16.blackwell",
        "pipeline.bf16", "pipeline.bf16.openvino",
    }  # fmt: skip
    assert tasks(plan)["pipeline.fp16"].informs.keys() == {"count", "mask_iou", "box_iou", "score", "presence"}
    assert not any(c.informs for c in tasks(planned(tmp_path, "")).values())


def test_the_pipeline_depends_on_its_own_parts_and_fp32(tmp_path: Path) -> None:
    parts = ("vision_encoder", "text_encoder", "geometry_encoder", "decoder")
    found = tasks(planned(tmp_path, ""))
    assert found["pipeline.fp32"].depends_on == tuple(f"{part}.fp32" for part in parts)
    assert found["pipeline.fp16"].depends_on == (*(f"{part}.fp16" for part in parts), "pipeline.fp32")


def test_a_score_threshold_changes_what_is_found_and_nothing_else(tmp_path: Path) -> None:
    plans = [planned(tmp_path, f"task: {{score_threshold: {value}}}\n") for value in (0.15, 0.3)]
    before, after = ({action.name: action for action in plan.actions} for plan in plans)
    changed = {"compare:fp32", "compare:fp16", "compare:bf16", "model"}  # model.json says it to users
    assert {name for name in after if after[name] != before[name]} == changed
    assert after["compare:fp16"].params["score_threshold"] == 0.3
    assert planned(tmp_path, "").action("compare:fp16").params["score_threshold"] == 0.5


def test_a_tolerance_changes_its_gate_and_no_action(tmp_path: Path) -> None:
    text = "tolerances: {fp16: {pipeline: {instances: {mask_iou: 0.5, count: 1}}}}\n"
    loose, usual = planned(tmp_path, text), planned(tmp_path, "")
    assert loose.actions == usual.actions
    gates = {gate.metric: gate.threshold for gate in tasks(loose)["pipeline.fp16"].gates["instances"]}
    assert (gates["mask_iou"], gates["count"], gates["box_iou"]) == (0.5, 1, 0.98)
    assert tasks(loose)["pipeline.fp32"] == tasks(usual)["pipeline.fp32"]


@pytest.mark.parametrize(
    ("tolerance", "said"),
    [
        ("{instance: {count: 1}}", "unknown output 'instance' of pipeline (allowed: instances); did you mean"),
        ("{instances: {maks_iou: 0.9}}", "unknown metric 'maks_iou' of instances (allowed: box_iou, count, "),
        ("{instances: {cosine: 0.9}}", "unknown metric 'cosine' of instances"),
        ("{instances: {nonfinite: 9}}", "unknown metric 'nonfinite' of instances"),
        ("{instances: {mask_iou: 1.5}}", "mask_iou is at least 0.5 and at most 1, found 1.5"),
        ("{instances: {mask_iou: 0}}", "mask_iou is at least 0.5 and at most 1, found 0"),
        ("{instances: {mask_iou: [0.9, 1]}}", "mask_iou takes one number, found [0.9, 1.0]"),
    ],
)
def test_a_tolerance_that_means_nothing_is_refused(tmp_path: Path, tolerance: str, said: str) -> None:
    with pytest.raises(ManifestError) as error:
        planned(tmp_path, f"tolerances: {{fp16: {{pipeline: {tolerance}}}}}\n")
    assert said in str(error.value) and "tolerances.fp16.pipeline.instance" in str(error.value)


def test_the_pictures_are_inputs_of_their_own_and_each_once(tmp_path: Path) -> None:
    action = planned(tmp_path, "").action("compare:fp32")
    assert list(action.files) == [f"image{i}" for i in range(6)]
    twice = "samples: [{image: samples/scene1.png, text: red}, {image: samples/scene1.png, text: blue}]\n"
    (tmp_path / "samples").symlink_to(ROOT / "manifests" / "samples")
    assert list(planned(tmp_path, twice).action("compare:fp32").files) == ["image0"]
    assert chain.GIVEN in action.inputs and PIPELINE not in action.inputs


def test_a_picture_for_people_is_shown_of_each_side_beside_the_components(
    tmp_path: Path, gpu: DeviceFingerprint
) -> None:
    plan = planned(tmp_path, LOCAL, gpu)
    shown = {name: plan.action(name).view for name in names(plan, "compare")}
    assert shown["compare:fp16"] == {"overlay.png": "pipeline/overlay.fp16.png"}
    assert shown["compare:fp16.local"] == {"overlay.png": "pipeline/overlay.fp16.local.png"}
    said = {name: f"{plan.action(name).params['target']}{plan.action(name).params['parity']}" for name in shown}
    assert said["compare:fp32"] == "onnxruntime fp32"
    assert said["compare:fp16"] == "onnxruntime fp16, emulated (range parity)"
    assert said["compare:fp16.local"] == "onnxruntime fp16 (engine parity)"


def test_another_name_of_a_target_is_in_no_parameter(tmp_path: Path, gpu: DeviceFingerprint) -> None:
    one = planned(tmp_path, LOCAL, gpu).action("compare:fp16.local")
    other = planned(tmp_path, LOCAL.replace("local:", "renamed:"), gpu).action("compare:fp16.renamed")
    assert one.params == other.params


@pytest.mark.parametrize("family", registry.names("families"))
def test_no_component_has_a_name_that_the_view_uses_for_something_else(family: str) -> None:
    layouts = registry.family(family).layouts.values()
    components = {spec.name for layout in layouts for spec in layout.components}
    assert components and not components & {PIPELINE, "logs", *gc.KEPT}
