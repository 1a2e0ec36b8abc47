"""The plan: the golden plan of the default manifest, and what each choice in a manifest changes in it.

When the plan was meant to change: `python tests/test_plan.py > tests/golden/sam3_mini.plan`, and read the diff.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path

import pytest

from sam3_build import registry
from sam3_build.compare.judge import Verdict, judge
from sam3_build.graph.emulation import emulates
from sam3_build.manifest.load import load
from sam3_build.plan.comparisons import ONLY_REPORTED
from sam3_build.plan.make import make_plan
from sam3_build.plugins import Backend
from sam3_build.spec import TYPES, Action, Comparison, Gate, Kind, Plan

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "sam3_mini.plan"
COMPONENTS = ("vision_encoder", "text_encoder", "geometry_encoder", "decoder")


def described(plan: Plan) -> str:
    """Return one line per action: no digests, no versions, nothing of this machine."""
    return "".join(f"{_line(action)}\n" for action in plan.actions)


def _line(action: Action) -> str:
    inputs = [
        f"{role}={source.action}" + (f"/{source.file}" if source.file else "") for role, source in action.inputs.items()
    ]
    device = [name if name == "os" else f"{name}={value}" for name, value in action.device.items()]
    parts: dict[str, Iterable[str]] = {
        "inputs": inputs,
        "files": action.files,
        "reads": action.reads,
        "after": action.after,
        "recipe": action.recipe,
        "tools": action.tools,
        "device": device,
        "view": action.view.values(),
    }
    said = [f"{title}({', '.join(items)})" for title, items in parts.items() if list(items)]
    return "  ".join([action.name, *([action.stage] if action.stage not in action.name else []), *said])


def planned(folder: Path, text: str) -> Plan:
    """Return the plan of a manifest that changes the default one."""
    (folder / "m.yaml").write_text(f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n{text}")
    return make_plan(load(str(folder / "m.yaml"), ROOT))


def names(plan: Plan, stage: str) -> list[str]:
    return [action.name for action in plan.actions if action.stage == stage]


# ------------------------------------------------------------------ the default manifest


def test_the_plan_of_the_default_manifest_is_the_golden_one() -> None:
    golden, found = GOLDEN.read_text(), described(make_plan(load("sam3_mini", ROOT)))
    difference = "\n".join(unified_diff(golden.splitlines(), found.splitlines(), "golden", "found", lineterm="", n=0))
    assert not difference, (
        "the plan changed; when that is meant, run `python tests/test_plan.py > tests/golden/sam3_mini.plan`:\n"
        + difference
    )


def test_every_action_stands_after_what_it_needs_and_has_a_name_of_its_own() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    before: set[str] = set()
    for action in plan.actions:
        assert {*action.after, *(source.action for source in action.inputs.values())} <= before, action.name
        assert action.name not in before
        before.add(action.name)
    shown = [path for action in plan.actions for path in action.view.values()]
    assert len(shown) == len(set(shown))


def test_no_two_actions_but_equal_work_share_a_key_document() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    keyed = [(a.stage, a.params, a.recipe, a.tools, a.inputs, a.files, a.device) for a in plan.actions]
    assert all(a not in keyed[:i] for i, a in enumerate(keyed))


def test_only_tensorrt_plans_are_called_engine() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    for action in plan.actions:
        engines = [path for path in action.view.values() if path.endswith(".engine")]
        assert bool(engines) == (action.params.get("backend") == "tensorrt_rtx"), action.name


def test_every_file_that_the_manifest_names_is_in_some_key() -> None:
    manifest = load("sam3_mini", ROOT)
    keyed = {path for action in make_plan(manifest).actions for path in action.files.values()}
    assert keyed == {
        manifest.tokenizer,
        *manifest.checkpoint.files.values(),
        *(p for s in manifest.samples for p in s.pictures),
    }


# ------------------------------------------------------------------ choices


def test_pytorch_feeds_the_components_that_are_not_listed(tmp_path: Path) -> None:
    others = "".join(f"  {name}: null\n" for name in COMPONENTS[:-1])
    plan = planned(tmp_path, f"components:\n{others}")
    assert names(plan, "reference") == [f"reference:{name}" for name in COMPONENTS]
    assert names(plan, "export") == ["export:decoder"]
    assert {a.name.partition(":")[2].partition(".")[0] for a in plan.actions if a.stage in ("build", "verify")} == {
        "decoder"
    }
    assert {c.component for c in plan.comparisons} == {"decoder", "pipeline"}


def test_a_component_that_feeds_nothing_listed_is_not_run(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, "components: {vision_encoder: null, geometry_encoder: null, decoder: null}\ntolerances: null\n"
    )
    assert names(plan, "reference") == ["reference:text_encoder"]


def test_the_baseline_is_measured_and_not_built_where_it_is_not_selected(tmp_path: Path) -> None:
    plan = planned(tmp_path, "precisions: [fp16]\n")
    assert "precision:decoder.fp32" in names(plan, "precision")
    assert "verify:decoder.fp32" in names(plan, "verify")
    assert {name.split(".")[1] for name in names(plan, "build")} == {"fp16"}
    assert plan.action("verify:decoder.fp16").inputs["baseline"].action == "verify:decoder.fp32"
    assert [c.label for c in plan.comparisons if c.component == "decoder" and c.kind != Kind.GAP] == [
        "pytorch fp32 vs onnxruntime fp32",
        "onnxruntime fp32 vs onnxruntime fp16, emulated (range parity)",
        "onnxruntime fp32 vs ampere fp16 (engine parity; no FP32 engine is built)",
        "onnxruntime fp32 vs ada fp16 (engine parity; no FP32 engine is built)",
        "onnxruntime fp32 vs blackwell fp16 (engine parity; no FP32 engine is built)",
    ]


def test_every_comparison_depends_on_what_it_is_measured_against(tmp_path: Path) -> None:
    depends_on = {c.name: set(c.depends_on) for c in planned(tmp_path, "").comparisons if c.component == "decoder"}
    assert depends_on["decoder.fp32"] == set()
    assert depends_on["decoder.fp16"] == depends_on["decoder.fp32.ada"] == {"decoder.fp32"}
    assert depends_on["decoder.fp16.ada"] == {"decoder.fp32", "decoder.fp32.ada", "decoder.fp16"}


def test_a_target_takes_the_profiles_that_it_picks_in_the_manifests_order_else_all(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "shape_profiles:\n"
        "  video: {batch: 1, num_boxes: 1, prompt_len: 34}\n"
        "targets: {ada: {shape_profiles: [video]}}\n",
    )
    default, video = {"batch": [1, 1, 8], "prompt_len": [1, 34, 60]}, {"batch": [1, 1, 1], "prompt_len": [34, 34, 34]}
    assert plan.action("build:decoder.fp16.ada").params["profiles"] == [video]
    assert plan.action("build:decoder.fp16.ampere").params["profiles"] == [default, video]
    assert plan.action("build:decoder.fp16.cpu").params["profiles"] == []
    # Ranges of dims that a component does not have must not reach its key.
    assert plan.action("build:text_encoder.fp16.ada").params["profiles"] == [{"batch": [1, 1, 1]}]


def test_a_component_without_patches_has_no_patch_action(tmp_path: Path) -> None:
    plan = planned(tmp_path, "components: {vision_encoder: {patches: []}, decoder: {patches: [rope]}}\n")
    assert names(plan, "patch") == ["patch:decoder"]
    assert plan.action("precision:vision_encoder.fp16").inputs["onnx"].action == "simplify:vision_encoder"
    assert plan.action("precision:decoder.fp16").inputs["onnx"].action == "patch:decoder"


def test_options_reach_the_actions_of_their_component_and_precision_only(tmp_path: Path) -> None:
    plan = planned(tmp_path, "components: {decoder: {opset: 19, precisions: {fp16: {keep_fp32: [a, b]}}}}\n")
    opsets = {name: plan.action(f"export:{name}").params["opset"] for name in COMPONENTS}
    assert opsets == {**dict.fromkeys(COMPONENTS, 20), "decoder": 19}
    kept = {a.name: a.params.get("keep_fp32") for a in plan.actions if a.stage == "precision"}
    assert {name: patterns for name, patterns in kept.items() if patterns} == {"precision:decoder.fp16": ["a", "b"]}


def test_a_picture_of_two_samples_is_one_input(tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "manifests" / "samples")
    lines = [f"{{image: samples/scene{number}.png, text: {text}}}" for number, text in ((1, "a"), (1, "b"), (2, "c"))]
    samples = planned(tmp_path, f"samples: [{', '.join(lines)}]\n").action("samples")
    assert [role for role in samples.files if role.startswith("image")] == ["image0", "image1"]
    given = samples.params["samples"]
    assert isinstance(given, list)
    assert [sample["pictures"] for sample in given] == [["image0"], ["image0"], ["image1"]]


def test_a_checkpoint_file_is_in_the_inventorys_key_and_only_read_elsewhere(tmp_path: Path) -> None:
    for name in ("w.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    plan = planned(tmp_path, "checkpoint: {path: w.safetensors}\n")
    assert plan.action("checkpoint").files["weights"] == tmp_path / "w.safetensors"
    for name in ("export:decoder", "reference:decoder"):
        assert plan.action(name).reads == {"weights": tmp_path / "w.safetensors"}
        assert "weights" not in plan.action(name).files
        assert plan.action(name).inputs["tensors"].file == "decoder.json"


def test_a_state_dict_is_in_the_inventorys_key_alone(tmp_path: Path) -> None:
    for name in ("w.pt", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    usual = planned(tmp_path, "checkpoint: {path: w.pt}\n")
    named = planned(tmp_path, "checkpoint: {path: w.pt, weights: ema}\n")
    assert named.action("checkpoint").params["source"] == {"path": True, "weights": "ema"}
    assert [a for a in named.actions if a.name != "checkpoint"] == [a for a in usual.actions if a.name != "checkpoint"]
    hub = planned(tmp_path, "checkpoint: {path: null, hub: o/n, weights: ema}\n")
    source = {"hub": "o/n", "revision": "main", "tokenizer": True, "weights": "ema"}
    assert hub.action("checkpoint").params["source"] == source


def test_what_a_manifest_uses_is_checked_for_nan_and_enters_no_key(tmp_path: Path) -> None:
    whole = planned(tmp_path, "").action("checkpoint")
    assert whole.uses == COMPONENTS
    without = "{text_encoder: null, geometry_encoder: null, decoder: null}"
    some = planned(tmp_path, f"components: {without}\ntolerances: null\n").action("checkpoint")
    assert some.uses == ("vision_encoder",)
    assert (some.params, some.files) == (whole.params, whole.files)


# ------------------------------------------------------------------ what this machine cannot do


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX is not installed."""
    real = registry.backend

    def backend(name: str) -> Backend:
        return replace(real(name), missing=lambda *_: "not installed") if name == "tensorrt_rtx" else real(name)

    monkeypatch.setattr(registry, "backend", backend)


@pytest.mark.usefixtures("no_tensorrt")
def test_targets_of_a_missing_library_are_blocked_with_the_reason_and_no_others() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    blocked = {action.name: action.blocked for action in plan.actions if action.blocked}
    engines = [name for name in names(plan, "build") if not name.endswith((".cpu", ".openvino"))]
    others = {name: why for name, why in blocked.items() if not name.endswith(".openvino")}
    assert others == dict.fromkeys(engines, "not installed")


# ------------------------------------------------------------------ comparisons


def test_each_component_is_compared_in_each_precision_on_onnx_runtime_and_on_each_engine() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    sides = (len(COMPONENTS) + 1) * (2 * (1 + 3) + 1 + 2)  # FP32 and FP16 on three engines, BF16; OpenVINO's two
    files = len(COMPONENTS)
    assert len(plan.comparisons) == sides + files + 1, "each component, its BF16 file, all together, the reference gap"
    measured = [c for c in plan.comparisons if c.action]
    assert [c.action for c in measured] == [
        name for s in ("verify", "compare", "reference_gap") for name in names(plan, s)
    ]
    assert all(c.not_run is None for c in measured)
    engines = [c for c in plan.comparisons if not c.action]
    assert all(c.not_run for c in engines), "an engine that nothing runs must say why"
    assert {c.target for c in engines} == {"openvino", "ampere", "ada", "blackwell", None}
    assert {c.kind for c in engines if c.target is None} == {Kind.FILE}


def gaps(plan: Plan) -> list[Comparison]:
    return [comparison for comparison in plan.comparisons if comparison.kind == Kind.GAP]


def test_what_the_other_reference_changes_on_text_only_samples_is_measured(tmp_path: Path) -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    (action,) = [action for action in plan.actions if action.stage == "reference_gap"]
    assert action.name == "reference_gap:decoder.hf"
    assert action.params["samples"] == [0, 1, 4]
    assert action.params["absent"] == {"input_boxes": [[0, 0, 0, 0]], "input_boxes_labels": [-10]}
    assert action.params["network"] == "whole_decoder_as_hf"
    (gap,) = gaps(plan)
    assert (gap.name, gap.action) == ("decoder.fp32.gap@hf", action.name)
    assert gap.label == "text-only prompts fed as transformers does instead of as Meta's code does"
    other = planned(tmp_path, "reference: hf\n")
    assert names(other, "reference_gap") == ["reference_gap:decoder.meta"]
    assert other.action("reference_gap:decoder.meta").params["network"] == "whole_decoder_as_meta"


def test_a_reference_gap_however_large_fails_nothing_and_nothing_depends_on_it() -> None:
    plan = make_plan(load("sam3_mini", ROOT))
    (gap,) = gaps(plan)
    metrics = {"cosine": -1.0, "max_abs_over_std": 1e6, "mismatches": 0, "nonfinite": 0}
    outputs = {name: {"dtype": "float32", "elements": 4, "metrics": metrics} for name in gap.outputs}
    rows = judge(gap, {"outputs": outputs})
    assert {(row.verdict, row.reason) for row in rows} == {(Verdict.INFO, ONLY_REPORTED)}
    assert {row.metric for row in rows} == {"cosine", "max_abs_over_std"}
    assert not any(gap.name in comparison.depends_on for comparison in plan.comparisons)
    unmeasured = judge(gap, None)
    assert {(row.verdict, row.reason) for row in unmeasured} == {
        (Verdict.INFO, "no statistics: run `doit reference_gap:decoder.hf`")
    }


@pytest.mark.parametrize(
    "text",
    [
        "samples: [{image: samples/scene1.png, text: star, boxes: 'pos:40,40,30,30'}]\n",
        "components: {decoder: null}\ntolerances: null\n",
    ],
    ids=["no text-only sample", "no decoder"],
)
def test_no_gap_is_measured_where_nothing_would_show(text: str, tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "manifests" / "samples")
    plan = planned(tmp_path, text)
    assert names(plan, "reference_gap") == []
    assert gaps(plan) == []


def test_the_reference_is_in_the_key_of_the_decoder_of_v2_and_of_no_other_export(tmp_path: Path) -> None:
    v1 = [planned(tmp_path, f"reference: {reference}\n") for reference in ("meta", "hf")]
    cut = "layout: v2\ncomponents: {geometry_encoder: null}\nshape_profiles: {default: {prompt_len: null}}\n"
    v2 = [planned(tmp_path, f"{cut}reference: {reference}\n") for reference in ("meta", "hf")]
    for plans, differing in ((v1, []), (v2, ["export:decoder"])):
        meta, hf = plans
        assert [name for name in names(meta, "export") if meta.action(name) != hf.action(name)] == differing
    for name in ("export:vision_encoder", "export:text_encoder", "simplify:text_encoder"):
        assert v1[0].action(name) == v2[0].action(name), "both layouts share it"
    assert names(v2[0], "export") == ["export:vision_encoder", "export:text_encoder", "export:decoder"]
    default = {"batch": [1, 1, 8], "num_boxes": [1, 8, 20]}
    assert v2[0].action("build:decoder.fp16.ada").params["profiles"] == [default]


def test_a_tokenizer_is_downloaded_only_for_a_family_that_reads_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = "checkpoint: {hub: facebook/sam3}\n"
    family = registry.family("sam3_image")
    for tokenizer, inputs in (("anywhere", {"config", "tokenizer"}), (None, {"config"})):
        other = replace(family, tokenizer=tokenizer)
        monkeypatch.setattr(registry, "family", {"sam3_image": other}.__getitem__)
        plan = planned(tmp_path, hub)
        source = plan.action("checkpoint").params["source"]
        assert isinstance(source, dict) and source["tokenizer"] is (tokenizer is not None)
        assert plan.action("samples").inputs.keys() == inputs


def test_every_output_of_a_comparison_has_gates() -> None:
    family = registry.family("sam3_image")
    for comparison in make_plan(load("sam3_mini", ROOT)).comparisons:
        if comparison.kind == Kind.RESULT:
            assert set(comparison.gates) == set(comparison.outputs) == {"instances"}
            continue
        outputs = tuple(tensor.name for tensor in family.component(comparison.component).outputs)
        assert comparison.outputs == (outputs if comparison.kind == Kind.GAP else (*outputs, "types"))
        assert all(comparison.gates[output] for output in outputs)


def test_verify_is_told_what_types_to_expect_and_on_which_nodes(tmp_path: Path) -> None:
    plan = planned(tmp_path, "")
    verify, written = plan.action("verify:decoder.fp16"), plan.action("precision:decoder.fp16")
    assert verify.params["types"] == written.params
    assert verify.inputs["fp32"].action == "precision:decoder.fp32"
    assert "precisions.fp16" in verify.recipe
    assert "fp32" not in plan.action("verify:decoder.fp32").inputs


def test_an_emulation_is_judged_and_the_file_itself_is_not_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, "targets: {ada: {precisions: [fp32, bf16]}}\n")
    assert emulates(registry.precision("bf16").onnx_type)
    found = {c.name: c for c in plan.comparisons if c.component == "decoder" and c.target is None}
    assert found["decoder.bf16"].label == "onnxruntime fp32 vs onnxruntime bf16, emulated (range parity)"
    assert found["decoder.bf16.file"].action is None
    assert found["decoder.bf16.file"].not_run
    assert "decoder.bf16" in next(c for c in plan.comparisons if c.name == "decoder.bf16.ada").depends_on


def test_what_an_engine_cannot_show_is_said_and_neither_passes_nor_fails(tmp_path: Path) -> None:
    one_row = "shape_profiles: {default: {batch: 1, num_boxes: [1, 8, 20], prompt_len: [1, 34, 60]}}\n"
    for text, told in (
        ("", {"gemms", "low_gemms", "low_share"}),
        (one_row, {"rows", "gemms", "low_gemms", "low_share"}),
    ):
        plan = planned(tmp_path, text)
        engine = next(c for c in plan.comparisons if c.name == "decoder.fp16.ada")
        assert engine.informs.keys() == told
        assert all(why.startswith("not checked: ") for metric, why in engine.informs.items() if metric != "rows")
        assert engine.informs.get("rows", "not applicable: ").startswith("not applicable: ")
        graph = next(c for c in plan.comparisons if c.name == "decoder.fp16")
        assert graph.informs == {}
        assert plan.action("verify:decoder.fp16").params["rows"] == 3
        # Nothing but the types may be missing from what its run measures.
        rows = judge(replace(engine, not_run=None, action="x"), {"outputs": {}})
        assert {(row.output, row.verdict) for row in rows} == {
            *((name, Verdict.FAIL) for name in engine.outputs if name != TYPES),
            (TYPES, Verdict.INFO),
        }


def test_a_tolerance_changes_its_gate_and_no_action(tmp_path: Path) -> None:
    loose = planned(tmp_path, "tolerances: {fp16: {decoder: {pred_masks: {cosine: 0.5}}}}\n")
    strict = planned(tmp_path, "")
    assert loose.actions == strict.actions
    changed = {
        (now.component, now.label, output): gate
        for now, before in zip(loose.comparisons, strict.comparisons, strict=True)
        for output in now.outputs
        for gate in set(now.gates[output]) - set(before.gates[output])
    }
    assert set(changed.values()) == {Gate("cosine", 0.5, at_least=True)}
    assert {(component, output) for component, _, output in changed} == {("decoder", "pred_masks")}
    assert all("fp16" in label for _, label, _ in changed)


if __name__ == "__main__":
    sys.stdout.write(described(make_plan(load("sam3_mini", ROOT))))
