"""`sam3-build search` and `localize` with `--target`, on OpenVINO engines of toy transformers with faults."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import planted_space
import pytest
from build_space import ROOT, BuildSpace

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed"),
]

PRECISION, LOCK = "int8_matmul", "manifests/toy.lock.yaml"
SEARCH = ("search", "encoder", "--precision", PRECISION, "--target", "openvino")

# Appended to the backend: of the ONNX that has the weight, OpenVINO builds one in which it is another.
ALTERED = """


def _altered(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    import dataclasses

    import onnx
    from onnx import numpy_helper

    model = onnx.load(request.onnx)
    for tensor in model.graph.initializer:
        if tensor.name == {weight!r}:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((array * {factor}).astype(array.dtype), tensor.name))
    altered = out.with_name(f"{{out.name}}.altered") / request.onnx.name
    altered.parent.mkdir()
    onnx.save(model, altered)
    return build(dataclasses.replace(request, onnx=altered), out)


object.__setattr__(BACKEND, "build", _altered)
"""


def alter(space: BuildSpace, weight: str, factor: float) -> None:
    with (space.root / "sam3_build" / "backends" / "openvino.py").open("a") as file:
        file.write(ALTERED.format(weight=weight, factor=factor))


def project(root: Path, plants: dict[str, str], precisions: str) -> tuple[BuildSpace, set[str]]:
    """Return a project with an OpenVINO target, and its planted nodes."""
    space, nodes = planted_space.create(root, 3, plants, is_plain=True)
    shutil.copy(ROOT / "sam3_build" / "stages" / "build.py", root / "sam3_build" / "stages")
    manifest = root / "manifests" / "toy.yaml"
    text = manifest.read_text().replace("[fp32, fp16]", precisions)
    target = "{backend: openvino, threads: 1}"
    manifest.write_text(
        text.replace("{cpu: {backend: onnxruntime}}", f"{{cpu: {{backend: onnxruntime}}, openvino: {target}}}")
    )
    return space, set(nodes)


def locked(space: BuildSpace) -> list[str]:
    return re.findall(r"^    - (.*)$", (space.root / LOCK).read_text(), re.M)


def test_a_product_that_int8_must_not_touch_is_found_on_the_engine(tmp_path: Path) -> None:
    space, nodes = project(tmp_path / "project", {"layers.1.mlp": "outlier"}, f"[fp32, {PRECISION}]")
    (planted,) = (node for node in nodes if "MatMul" in node)
    assert space.doit("verify").code != 0
    run = space.cli(*SEARCH)
    assert run.code == 0, run.output
    assert locked(space) == [planted]
    assert "openvino y: cosine >= 0.99" in (space.root / LOCK).read_text()
    assert "rules on ranges and weights name 0 of them" in run.output
    assert space.plan()[f"verify:encoder.{PRECISION}.openvino"] == "fresh"
    assert space.doit("verify").code == 0
    again = space.cli(*SEARCH)
    assert again.code == 0 and re.search(r" 0 actions run$", again.output, re.M)


def test_what_only_the_engine_does_wrong_is_found_by_a_search_on_it_alone(tmp_path: Path) -> None:
    space, _ = project(tmp_path / "project", {}, f"[fp32, {PRECISION}]")
    alter(space, "encoder.layers.1.mlp.second.weight.int8", 0)
    run = space.cli(*SEARCH[:-2])
    assert run.code == 0 and "with no node kept in FP32: nothing to lock" in run.output
    run = space.cli(*SEARCH)
    assert run.code == 0 and "fails, on openvino, y: " in run.output
    assert locked(space) == ["encoder.layers.1.mlp.second/MatMul_0"]


def test_the_block_whose_weight_an_engine_has_scaled_is_named_and_verify_fails(tmp_path: Path) -> None:
    space, _ = project(tmp_path / "project", {}, "[fp32]")
    assert space.doit("verify").code == 0
    alter(space, "encoder.layers.1.mlp.second.weight", 1.05)
    run = space.doit("verify")
    assert run.code != 0 and "onnxruntime fp32 vs openvino fp32" in run.output
    found = space.cli("localize", "encoder", "--precision", "fp32", "--target", "openvino")
    assert found.code == 0, found.output
    assert "the error begins at encoder.layers.1:" in found.output
