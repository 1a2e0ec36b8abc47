"""A precision's options: YAML through the manifest boundary into the params of its actions."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam3_build.errors import ManifestError
from sam3_build.manifest.load import load
from sam3_build.plan.make import make_plan

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def manifest(text):
    Path("m.yaml").write_text(f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n{text}")
    return load("m.yaml", ROOT)


def problems(text):
    with pytest.raises(ManifestError) as caught:
        manifest(text)
    return caught.value.problems


def test_options_reach_the_key_with_defaults_filled_in_where_the_recipe_has_any():
    plan = make_plan(
        manifest("""\
precisions: [fp32, prefix, fp16_safe]
tolerances: null
components: {decoder: {precisions: {fp16: null, prefix: {blocks: 2, keep_fp32: ["*softmax*"]}}}}
""")
    )
    own = plan.action("precision:decoder.prefix").params
    assert (own["options"], own["keep_fp32"]) == ({"blocks": 2}, ["*softmax*"])
    assert plan.action("precision:vision_encoder.prefix").params["options"] == {"blocks": None}
    assert "options" not in plan.action("precision:decoder.fp16_safe").params


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            "{block: 2}",
            "unknown key 'block' of precision 'prefix' (allowed: blocks, keep_fp32); did you mean 'blocks'?",
        ),
        ("{blocks: 0}", "blocks is 0, but a prefix has at least 1; for none, choose fp16"),
        ("{blocks: two}", "must be an integer, found the string 'two'"),
    ],
)
def test_a_wrong_option_is_reported_with_file_and_line(options, problem):
    (found,) = problems(
        f"precisions: [fp32, prefix]\ntolerances: null\ncomponents:\n  decoder:\n    precisions:\n      fp16: null\n"
        f"      prefix: {options}\n"
    )
    assert found.startswith("m.yaml:8: components.decoder.precisions.prefix")
    assert found.endswith(problem)


def test_an_option_of_another_precision_is_unknown():
    (found,) = problems("components: {decoder: {precisions: {fp16: {blocks: 2}}}}\n")
    assert found.endswith("unknown key 'blocks' of precision 'fp16'; allowed: keep_fp32")


def test_only_what_is_calibrated_needs_pytorch_and_onnx_runtime():
    plan = make_plan(manifest("precisions: [fp32, fp16, bf16, int8_matmul]\ntargets: {cpu: null}\n"))
    calibrated = plan.action("precision:decoder.int8_matmul")
    assert (calibrated.stage, calibrated.inputs["reference"].action) == ("quantize", "reference:decoder")
    assert "onnxruntime" in calibrated.tools
    for name in ("fp16", "bf16"):
        action = plan.action(f"precision:decoder.{name}")
        assert (action.stage, set(action.inputs)) == ("precision", {"onnx"})
        assert "onnxruntime" not in action.tools
