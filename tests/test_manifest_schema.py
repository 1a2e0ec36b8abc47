"""The manifests that ship: they load, and their JSON Schema is up to date and agrees with the loader."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sam3_build.errors import ManifestError
from sam3_build.manifest.json_schema import json_schema, write_schema
from sam3_build.manifest.load import load
from sam3_build.manifest.lock import manifest_files
from sam3_build.manifest.shape import ManifestFile
from sam3_build.manifest.yaml_tree import Problem, read_yaml
from sam3_build.pipeline.prompts import boxes_of
from sam3_build.spec import Json

ROOT = Path(__file__).parents[1]
MANIFESTS = manifest_files(ROOT / "manifests")


def plain(text: str, folder: Path) -> Json:
    (folder / "m.yaml").write_text(text)
    problems: list[Problem] = []
    root = read_yaml(folder / "m.yaml", (folder / "m.yaml").read_bytes(), problems)
    assert root is not None
    assert not problems
    return root.plain()


def accepts(schema: Json, value: Json, top: Json) -> bool:
    """Validate as JSON Schema does, for the keywords that our schema uses; any other keyword is an error here."""
    assert isinstance(schema, dict)
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "number": int | float,
        "integer": int,
        "boolean": bool,
        "null": type(None),
    }

    def of_type(name: str) -> bool:
        return isinstance(value, kinds[name]) and (isinstance(value, bool) == (name == "boolean"))

    items = value if isinstance(value, list) else []
    entries = value if isinstance(value, dict) else {}
    known = schema.get("properties", {})
    rules: dict[str, Callable[[Json], bool]] = {
        "$ref": lambda ref: accepts(top["definitions"][ref.removeprefix("#/definitions/")], value, top),
        "type": lambda t: any(map(of_type, t if isinstance(t, list) else [t])),
        "enum": lambda names: value in names,
        "const": lambda name: value == name,
        "anyOf": lambda parts: any(accepts(part, value, top) for part in parts),
        "not": lambda part: not accepts(part, value, top),
        "if": lambda part: not accepts(part, value, top) or accepts(schema["then"], value, top),
        "required": lambda names: not isinstance(value, dict) or all(n in value for n in names),
        "properties": lambda parts: all(accepts(parts[k], v, top) for k, v in entries.items() if k in parts),
        "additionalProperties": lambda p: all(p and accepts(p, v, top) for k, v in entries.items() if k not in known),
        "propertyNames": lambda part: all(accepts(part, k, top) for k in entries),
        "items": lambda part: all(accepts(part, item, top) for item in items),
        "minItems": lambda n: not isinstance(value, list) or len(items) >= n,
        "maxItems": lambda n: not isinstance(value, list) or len(items) <= n,
        "minimum": lambda n: not isinstance(value, int | float) or value >= n,
        "maximum": lambda n: not isinstance(value, int | float) or value <= n,
        "pattern": lambda p: not isinstance(value, str) or re.search(p, value) is not None,
    }
    words = {"$schema", "title", "description", "definitions", "then"}
    return all(rules[key](part) for key, part in schema.items() if key not in words)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_manifest_that_ships_loads_and_fits_the_schema(path: Path, tmp_path: Path) -> None:
    assert load(path.stem, ROOT).name == path.stem
    assert accepts(json_schema(), plain(path.read_text(), tmp_path), json_schema())


def test_the_default_manifest_is_what_the_readme_shows() -> None:
    manifest = load("sam3_mini", ROOT)
    assert list(manifest.components) == ["vision_encoder", "text_encoder", "geometry_encoder", "decoder"]
    assert manifest.precisions == ("fp32", "fp16", "bf16")
    assert list(manifest.targets) == ["openvino", "cpu", "ampere", "ada", "blackwell"]
    assert manifest.targets["openvino"].precisions == ("fp32", "bf16")
    assert {t.precisions for name, t in manifest.targets.items() if name != "openvino"} == {("fp32", "fp16")}
    assert manifest.targets["ada"].options == {"compute_capabilities": ["8.9"]}
    assert manifest.shape_profiles == {
        "default": {"batch": (1, 1, 8), "num_boxes": (1, 8, 20), "prompt_len": (1, 34, 60)}
    }
    assert [(s.prompts.get("text"), [b.label for b in boxes_of(s.prompts)]) for s in manifest.samples] == [
        ("red circle", []),
        ("yellow star", []),
        (None, [1]),
        ("star", [0]),
        ("blue circle", []),
        ("blue", [0]),
    ]


def test_the_schema_file_is_up_to_date(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema.json")
    shipped = (ROOT / "manifests" / "schema.json").read_text()
    assert shipped == (tmp_path / "schema.json").read_text(), "run: python -m sam3_build schema"


def test_the_schema_knows_every_key_of_the_model_and_extends() -> None:
    properties = json_schema()["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == {"extends", *ManifestFile.model_fields}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("family: sam3_image", "family: sam3_imag"),
        ("reference: meta ", "reference: mata "),
        ("opset: 20\ncomponents", "opset: 17\ncomponents"),
        ("opset: 20\ncomponents", "opset: 21\ncomponents"),
        ("decoder: {opset: 20", "decoder: {opset: 21"),
        ("opset: 20\ncomponents", "components"),
        ("  text_encoder: {}", "  text_encode: {}"),
        ("[fold_position_tables, rope]", "[fold_position_table]"),
        ("[fold_position_tables, rope]", "fold_position_tables"),
        ("{fp16: {keep_fp32", "{fp17: {keep_fp32"),
        ('keep_fp32: ["*layer_norm*"]', 'keep: ["*layer_norm*"]'),
        ("[fp32, fp16, bf16]", "[fp32, fp17, bf16]"),
        ("[fp32, bf16]", "[fp32, bf17]"),
        ("batch: [1, 1, 8]", "batch: [1, 8]"),
        ("batch: [1, 1, 8]", "batch: 0"),
        ("batch: [1, 1, 8]", "batch: [1, 1, 2147483648]"),
        ("batch: [1, 1, 8]", "batches: 1"),
        ("backend: onnxruntime", "backend: onnxruntim"),
        ('compute_capabilities: ["8.9"]', "compute_capabilities: [8.9]"),
        ('compute_capabilities: ["8.9"]', 'compute_capability: ["8.9"]'),
        ("  ada: ", "  Ada: "),
        ("text: red circle", "texts: red circle"),
        ("text: red circle", "text: 3"),
        ('"neg:130,150,60,60"', '"130,150,60,60"'),
        ("{cosine: 0.999}", "{cosin: 0.999}"),
        ("{cosine: 0.999}", "{cosine: [0.999]}"),
        ("{cosine: 0.999}", "{cosine: 1.5}"),
        ("{cosine: 0.999}", "{cosine: -1.5}"),
        ("{cosine: 0.999}", "{max_abs_over_std: -1}"),
        ("{cosine: 0.999}", "{std_ratio: [-1, 1]}"),
        ("{cosine: 0.999}", "{std_ratio: 1}"),
        ("{cosine: 0.999}", "{nonfinite: 1}"),
        ("{path: sam3_mini}", "{random: {seed: -1, config: sam3_mini/config.json}}"),
    ],
)
def test_what_the_schema_refuses_the_loader_refuses_too(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = (ROOT / "manifests" / "sam3_mini.yaml").read_text()
    assert base.count(old) == 1
    text = base.replace(old, new)
    monkeypatch.chdir(tmp_path)
    value = plain(text, tmp_path)
    for name in ("sam3_mini", "samples"):
        (tmp_path / name).symlink_to(ROOT / "manifests" / name)
    with pytest.raises(ManifestError):
        load("m.yaml", tmp_path)
    assert not accepts(json_schema(), value, json_schema())


def test_a_manifest_that_extends_another_needs_no_more_and_may_remove(tmp_path: Path) -> None:
    text = """\
extends: sam3_mini.yaml
targets: {ada: null, cpu: {}}
shape_profiles: {default: {batch: null}}
tolerances: null
"""
    assert accepts(json_schema(), plain(text, tmp_path), json_schema())


@pytest.mark.parametrize(
    ("sample", "fits"),
    [
        ("image: a.png, points: 'pos:1,2', mask: m.png", True),
        ("video: clip, frames: 2, reverse: true, prompts: [{frame: 0, object: 1, points: 'pos:1,2'}]", True),
        ("video: clip, frames: 2, prompts: [{frame: 0, text: cat}, {frame: 1, remove: 0}]", True),
        ("text: cat", False),
        ("video: clip, prompts: []", False),
        ("video: clip, frames: 0, prompts: []", False),
        ("video: clip, frames: 2, prompts: [{object: 1, points: 'pos:1,2'}]", False),
        ("video: clip, frames: 2, prompts: [{frame: -1, object: 1}]", False),
        ("video: clip, frames: 2, prompts: [{frame: 0, image: a.png}]", False),
    ],
)
def test_a_sample_is_a_picture_or_a_clip_with_prompts_on_frames(sample: str, fits: bool, tmp_path: Path) -> None:
    text = f"extends: sam3_mini.yaml\nsamples: [{{{sample}}}]\n"
    assert accepts(json_schema(), plain(text, tmp_path), json_schema()) == fits


def test_a_list_selects_only_where_there_is_something_to_select_from(tmp_path: Path) -> None:
    lists = "components: [decoder]\ntargets: [cpu]\nshape_profiles: [default]\n"
    assert accepts(json_schema(), plain(f"extends: sam3_mini.yaml\n{lists}", tmp_path), json_schema())
    for wrong in ("components: [decodr]", "targets: [1]", "shape_profiles: [A b]"):
        assert not accepts(json_schema(), plain(f"extends: sam3_mini.yaml\n{wrong}\n", tmp_path), json_schema())
    alone = (ROOT / "manifests" / "sam3_image.yaml").read_text()
    assert accepts(json_schema(), plain(alone, tmp_path), json_schema())
    for line in lists.splitlines():
        key = line.partition(":")[0]
        start = alone.index(f"{key}:")
        after = re.search(r"^\w", alone[start + 1 :], re.MULTILINE)
        assert after is not None
        text = f"{alone[:start]}{line}\n{alone[start + 1 + after.start() :]}"
        assert not accepts(json_schema(), plain(text, tmp_path), json_schema()), line


def test_what_no_machine_can_build_is_an_error_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(f"""\
extends: {ROOT / "manifests" / "sam3_mini.yaml"}
precisions: [fp32, fp16, fp8]
components: {{decoder: {{patches: [fold_position_table]}}}}
shape_profiles:
  default: {{batch: [4, 2, 8], prompt_len: null}}
targets:
  hopper: {{backend: tensorrt_rtx, compute_capabilities: ["9.0"]}}
  turing: {{backend: tensorrt_rtx, compute_capabilities: ["7.5"]}}
""")
    with pytest.raises(ManifestError) as caught:
        load("m.yaml", ROOT)
    takes = "this release takes 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"
    assert caught.value.problems == (
        "m.yaml:2: precisions[2]: unknown precision 'fp8'; allowed: bf16, fp16, fp16_islands, fp16_prefix, "
        "fp16_safe, fp32, int8_matmul",
        "m.yaml:3: components.decoder.patches[0]: unknown patch 'fold_position_table' "
        "(allowed: einsum_to_matmul, fold_position_tables, keep_windows, rope); did you mean 'fold_position_tables'?",
        "m.yaml:5: shape_profiles.default.batch: min <= opt <= max does not hold for [4, 2, 8]",
        "m.yaml:5: shape_profiles.default.prompt_len: dynamic dimension 'prompt_len' of decoder for target "
        "openvino, ampere, ada, blackwell, hopper, turing has no range; write [min, opt, max], or one number",
        f"m.yaml:7: targets.hopper: TensorRT-RTX cannot build for compute capability 9.0; {takes}",
        "m.yaml:8: targets.turing: TensorRT-RTX has no FP32 matrix multiplication on compute capability 7.5; "
        "leave it out, or build precisions that multiply in FLOAT16 only, such as fp16",
    )
