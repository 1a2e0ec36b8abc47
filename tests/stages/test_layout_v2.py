"""Layout v2 as ONNX: one decoder against v1's chain of files, prompt by prompt, and what both layouts share."""

from __future__ import annotations

import json
from functools import cache, partial

import miniature
import numpy as np
import onnx
import pytest
from miniature import MANIFEST_V2, SCENES, TOKENIZER, run_onnx
from sam3_cases import cases_of

from sam3_build import registry
from sam3_build.graph.names import module_path
from sam3_build.pipeline import chain
from sam3_build.stages import export

FAMILY = registry.family("sam3_image")
SPEC = FAMILY.laid_out("v2").component("decoder")
SAMPLES = [
    {"image": "image0", "text": "red circle", "boxes": []},
    {"image": "image0", "text": None, "boxes": [{"label": 1, "xywh": (40, 40, 30, 30)}]},
    {"image": "image1", "text": None, "boxes": [{"label": 0, "xywh": (90, 80, 20, 20)}]},
    {
        "image": "image1",
        "text": "star",
        "boxes": [{"label": 0, "xywh": (10, 10, 40, 40)}, *[{"label": 1, "xywh": (60, 20, 30, 30)}] * 3],
    },
]


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    """Reference -> v2's decoder as ONNX: that of the shipped manifest, and one that is exported for the other."""
    out = tmp_path_factory.mktemp("meta")
    action = ("export:decoder", MANIFEST_V2)
    params = miniature.params(*action)
    assert params["network"] == SPEC.network("hf")
    export.run({**params, "network": SPEC.network("meta")}, miniature.inputs(*action), out)
    return {"hf": miniature.onnx(*action), "meta": out / "decoder.onnx"}


@cache
def cases(reference, layout):
    config = json.loads((miniature.folder("checkpoint") / "config.json").read_text())
    images = {"image0": SCENES / "scene1.png", "image1": SCENES / "scene2.png"}
    return {c.name: c.arrays for c in cases_of(reference, SAMPLES, TOKENIZER, images, config, layout)}


@cache
def chained(reference, name):
    """Run v1's files one after the other; return all that is known of the case then."""
    given = cases(reference, "v1")[name]
    files = {spec.name: miniature.onnx(f"precision:{spec.name}.fp32") for spec in FAMILY.components}
    networks = {component: partial(run_onnx, file) for component, file in files.items()}
    components = {spec.name: spec for spec in FAMILY.components}
    computed = chain.run(components, FAMILY.pipelines[0].steps, networks, given).values()
    return {**given, **{name: array for outputs in computed for name, array in outputs.items()}}


def run_v2(decoders, reference, name):
    known = chained(reference, name) | cases(reference, "v2")[name]
    return run_onnx(decoders[reference], {tensor.name: known[tensor.name] for tensor in SPEC.inputs})


PROMPTS = [
    *(("meta", name) for name in ("sample0", "sample1", "sample2", "sample3", "batch")),
    *(("hf", name) for name in ("sample0", "sample1", "sample2", "sample3")),
]


@pytest.mark.parametrize(("reference", "name"), PROMPTS)
@pytest.mark.ci
def test_the_one_decoder_gives_what_the_chain_of_files_gives(reference, name, decoders):
    expected = chained(reference, name)
    for output, found in run_v2(decoders, reference, name).items():
        assert found.shape == expected[output].shape
        assert np.abs(found - expected[output]).max() <= 1e-5 * np.abs(expected[output]).max(), output


@pytest.mark.ci
def test_rows_with_and_without_boxes_share_a_batch_under_hf(decoders):
    case = cases("hf", "v2")["batch"]
    assert (case["input_boxes_labels"] != -10).any(1).tolist() == [False, True, True, True]
    known = {**chained("meta", "batch"), **case}
    found = run_onnx(decoders["hf"], {tensor.name: known[tensor.name] for tensor in SPEC.inputs})
    for row in range(4):
        for output, array in found.items():
            alone = chained("hf", f"sample{row}")[output]
            assert np.abs(array[row : row + 1] - alone).max() <= 2e-5 * np.abs(alone).max(), (output, row)


@pytest.mark.ci
def test_the_reference_makes_two_graphs_that_differ_on_a_text_only_prompt_alone(decoders):
    for name, differ in (("sample0", True), ("sample1", False)):
        known = chained("meta", name)
        given = {tensor.name: known[tensor.name] for tensor in SPEC.inputs}
        meta, hf = (run_onnx(decoders[reference], given)["pred_masks"] for reference in ("meta", "hf"))
        assert (np.abs(meta - hf).max() > 1e-2 * np.abs(meta).max()) == differ


@pytest.mark.parametrize("reference", FAMILY.references)
@pytest.mark.ci
def test_more_ignored_boxes_change_nothing_so_their_number_is_really_open(reference, decoders):
    known = chained("meta", "sample1")
    given = {tensor.name: known[tensor.name] for tensor in SPEC.inputs}
    expected = run_onnx(decoders[reference], given)
    for more in (1, 2, 19):
        padded = {
            **given,
            "input_boxes": np.pad(given["input_boxes"], ((0, 0), (0, more), (0, 0)), constant_values=0.3),
            "input_boxes_labels": np.pad(given["input_boxes_labels"], ((0, 0), (0, more)), constant_values=-10),
        }
        for output, found in run_onnx(decoders[reference], padded).items():
            assert np.abs(found - expected[output]).max() <= 1e-5 * np.abs(expected[output]).max(), output


@pytest.mark.ci
def test_the_decoder_has_the_interface_and_the_module_paths_of_its_parts(decoders):
    for file in decoders.values():
        onnx.checker.check_model(str(file), full_check=True)
        graph = onnx.load(file).graph
        dims = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input
        }
        assert list(dims) == [tensor.name for tensor in SPEC.inputs]
        assert dims["input_boxes"] == ["batch", "num_boxes", 4]
        paths = {(module_path(node.name) or "").split(".")[0] for node in graph.node}
        assert paths >= set(SPEC.modules)
        coordinates = [node.name for node in graph.node if ".coordinates." in node.name]
        assert any("geometry_encoder" in name for name in coordinates)
        assert any("detr_decoder" in name for name in coordinates)


def test_both_layouts_share_every_action_of_the_encoders_graphs():
    for stage in ("export", "simplify"):
        for component in ("vision_encoder", "text_encoder"):
            action = f"{stage}:{component}"
            assert miniature.folder(action) == miniature.folder(action, MANIFEST_V2)
