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
precisions: [fp32, fp16_prefix, fp16_safe]
tolerances: null
components: {decoder: {precisions: {fp16: null, fp16_prefix: {blocks: 2, keep_fp32: ["*softmax*"]}}}}
""")
    )
    own = plan.action("precision:decoder.fp16_prefix").params
    assert (own["options"], own["keep_fp32"]) == ({"blocks": 2}, ["*softmax*"])
    assert plan.action("precision:vision_encoder.fp16_prefix").params["options"] == {"blocks": None}
    assert "options" not in plan.action("precision:decoder.fp16_safe").params


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            "{block: 2}",
            "unknown key 'block' of precision 'fp16_prefix' (allowed: blocks, keep_fp32); did you mean 'blocks'?",
        ),
        ("{blocks: 0}", "blocks is 0, but a prefix has at least 1; for none, choose fp16"),
        ("{blocks: two}", "must be an integer, found the string 'two'"),
    ],
)
def test_a_wrong_option_is_reported_with_file_and_line(options, problem):
    (found,) = problems(
        "precisions: [fp32, fp16_prefix]\ntolerances: null\ncomponents:\n"
        f"  decoder:\n    precisions:\n      fp16: null\n      fp16_prefix: {options}\n"
    )
    assert found.startswith("m.yaml:8: components.decoder.precisions.fp16_prefix")
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


OLD = """\
precisions: [fp32, prefix]
tolerances: {prefix: {decoder: {pred_boxes: {cosine: 0.9}}}, fp16: null}
components: {decoder: {precisions: {fp16: null, prefix: {blocks: 2}}}}
"""


def test_the_old_name_of_a_precision_is_read_with_a_note_of_each_place():
    old = manifest(OLD)
    notes = old.notes
    new = manifest(OLD.replace("prefix", "fp16_prefix"))
    assert old.precisions == new.precisions == ("fp32", "fp16_prefix")
    assert (old.components, old.tolerances) == (new.components, new.tolerances)
    assert [note.partition(": precision ")[0] for note in notes] == [
        "m.yaml:2: precisions[1]",
        "m.yaml:4: components.decoder.precisions.prefix",
        "m.yaml:3: tolerances.prefix",
    ]
    assert "'prefix' is called 'fp16_prefix' now" in notes[0] and not new.notes


def test_the_old_name_in_a_lock_file_is_read_and_written_anew():
    from sam3_build.manifest.lock_file import read_lock, with_entry

    entry = {"graph": "0" * 64, "keep_fp32": ["a"]}
    text = f"decoder:\n  prefix:\n    graph: '{'0' * 64}'\n    keep_fp32: [a]\n".encode()
    Path("n.lock.yaml").write_bytes(text)
    lock = read_lock(Path("n.yaml"), ["decoder"], ["fp32", "fp16_prefix"])
    assert not lock.problems and lock.locks["decoder"]["fp16_prefix"].keep_fp32 == ("a",) and len(lock.notes) == 1
    written = with_entry(text, "decoder", "fp16", entry)
    assert written and b"fp16_prefix:" in written and b" prefix:" not in written
    assert with_entry(text, "decoder", "fp16_prefix", None) is None


def test_an_old_name_beside_the_new_one_is_a_mistake():
    (found,) = problems(
        "precisions: [fp32, fp16_prefix]\ntolerances: null\ncomponents:\n"
        "  decoder:\n    precisions:\n      fp16: null\n      fp16_prefix: {blocks: 2}\n      prefix: {blocks: 3}\n"
    )
    assert found.startswith("m.yaml:9: components.decoder.precisions.prefix: is the old name of 'fp16_prefix'")
