"""`doit publish` of OpenVINO blobs of a toy network that are really built and run: what is withheld, and why."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from build_space import BuildSpace
from test_search_engines import alter, project

from sam3_build import registry

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed"),
]

MANIFEST = "manifests/toy.yaml"
BACKEND = "sam3_build/backends/openvino.py"
BLOBS = {"encoder.fp32.openvino.blob", "encoder.bf16.openvino.blob"}

# Appended to the backend: the same machine, if OpenVINO had no BF16 kernels for its CPU.
NO_BF16 = """

_fields_of = _openvino.fields


def _without_bf16(device: str) -> Mapping[str, Json]:
    fields = _fields_of(device)
    return {**fields, "capabilities": [name for name in fields["capabilities"] if name != "BF16"]}


_openvino.fields = _without_bf16
"""

# Appended to the backend: of a BF16 file, what is built is the same network, with the same weights, in FP32.
FP32_SOLD_AS_BF16 = """

def _in_fp32(request: BuildRequest, out: Path) -> Mapping[str, Json]:
    import dataclasses

    import numpy as np
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load(request.onnx)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    altered = out.with_name(f"{out.name}.altered") / request.onnx.name
    altered.parent.mkdir()
    onnx.save(model, altered)
    return build(dataclasses.replace(request, onnx=altered), out)


object.__setattr__(BACKEND, "build", _in_fp32)
"""


@pytest.fixture
def has_bf16() -> None:
    """Skip where the CPU has no BF16 kernels."""
    backend = registry.backend("openvino")
    assert backend.probe and backend.lacks_kernels
    if why := backend.lacks_kernels({"device": "CPU"}, backend.probe(), registry.precision("bf16")):
        pytest.skip(why)


@pytest.fixture
def space(tmp_path: Path) -> BuildSpace:
    """A project whose pipeline is the encoder alone, in FP32 and BF16 for OpenVINO; nothing is built."""
    space, _ = project(tmp_path / "project", {}, "[fp32, bf16]")
    space.edit(MANIFEST, "cpu: {backend: onnxruntime}", "cpu: {backend: onnxruntime, precisions: [fp32]}")
    space.edit("sam3_build/families/toy/family.py", ', Step("head", (Feed("y", (("encoder", "y"),)),))', ",")
    return space


def published(space: BuildSpace) -> set[str]:
    """Return the blobs that are published."""
    return {path.name for path in (space.view / "published" / "openvino").glob("*.blob")}


def said(output: str) -> str:
    return " ".join(output.split())


def test_a_machine_without_bf16_kernels_publishes_fp32_and_says_why_not_bf16(space: BuildSpace) -> None:
    space.append(BACKEND, NO_BF16)
    assert space.doit("verify").code == 0, "what this machine cannot run is no failure"
    run = space.doit("publish:openvino")
    assert published(space) == {"encoder.fp32.openvino.blob"}, run.output
    assert run.code == 1 and "  published  openvino    1 engines, " in run.output, "the manifest makes more than that"
    assert "withheld: bf16 of openvino blocked: not built: bf16: this CPU (" in said(run.output)
    assert "has no BFLOAT16 kernels, OpenVINO says: " in said(run.output) and "Traceback" not in run.output


@pytest.mark.usefixtures("has_bf16")
def test_a_blob_in_fp32_that_is_sold_as_bf16_is_withheld_for_its_types_alone(space: BuildSpace) -> None:
    assert space.build("verify", "publish:openvino").output.count("  FAIL  ") == 0
    assert published(space) == BLOBS
    space.append(BACKEND, FP32_SOLD_AS_BF16)
    assert space.doit("verify").output.count("  FAIL  ") == 1
    run = space.doit("publish:openvino")
    assert run.code == 1 and published(space) == {"encoder.fp32.openvino.blob"}, run.output
    words = "withheld: bf16 of openvino failed: types: gemms is 6, not <= 0: 6 of 6 GEMMs: FLOAT where BFLOAT16 is"
    assert words in said(run.output) and "failed: y" not in run.output, run.output


def test_a_blob_that_was_built_of_other_weights_is_refused_by_what_it_computes(space: BuildSpace) -> None:
    space.edit(MANIFEST, "[fp32, bf16]", "[fp32]")
    alter(space, "encoder.layers.1.mlp.second.weight", 1.05)
    assert space.doit("verify").code == 1
    run = space.doit("publish:openvino")
    assert run.code == 1 and published(space) == set(), run.output
    assert "refused: openvino failed: y: max_abs_over_std is " in said(run.output), run.output


def test_a_blob_of_other_weights_that_lies_under_the_right_name_is_refused_by_its_origin(space: BuildSpace) -> None:
    space.edit(MANIFEST, "[fp32, bf16]", "[fp32]")
    weights = space.root / "manifests/weights.safetensors"
    (space.root / "manifests/tuned.safetensors").write_text(
        weights.read_text().replace('"encoder.seed": 0', '"encoder.seed": 1')
    )
    text = (space.root / MANIFEST).read_text()
    (space.root / "manifests/tuned.yaml").write_text(text.replace("weights.safetensors", "tuned.safetensors"))
    space.build("verify")
    space.build("manifest=tuned", "build")
    for ours in list((space.view / "encoder").glob("encoder.fp32.openvino.*")):
        theirs = space.artifacts / "tuned/encoder" / ours.name
        ours.unlink()
        shutil.copy(theirs, ours)
    run = space.doit("publish:openvino")
    assert run.code == 1 and published(space) == set(), run.output
    assert "was made from other weights: their inventory is " in said(run.output), run.output
    space.build("build")
    space.build("publish:openvino")
    assert published(space) == {"encoder.fp32.openvino.blob"}
