"""Layouts v2, whose decoder holds the geometry encoder, and two_files, whose detector holds the text encoder as well.

What they compute is held against v1's chain with equal weights.
"""

from __future__ import annotations

import pytest
import sam3_weights as weights
import torch
from conftest import IMAGES, SAMPLES
from miniature import ROOT, SOURCE, TOKENIZER
from sam3_cases import cases_of

from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.manifest.load import load
from sam3_build.pipeline.concept_networks import BOXES
from sam3_build.plan.make import make_plan

V2 = FAMILY.laid_out("v2")
SPEC = V2.component("decoder")
DETECTOR = FAMILY.laid_out("two_files").component("detector")
OUTPUTS = tuple(tensor.name for tensor in SPEC.outputs)

EVERY_KIND = [
    *SAMPLES,
    {"image": "image1", "text": None, "boxes": [{"label": 0, "xywh": (20, 30, 40, 25)}]},
    {"image": "image0", "text": "star", "boxes": [{"label": 1, "xywh": (20, 30, 40, 25)}]},
]


@pytest.fixture(scope="module")
def decoders(config, tensors):
    """Reference -> v2's decoder, with the tensors of v1's geometry encoder and decoder."""
    loaded = tensors["geometry_encoder"] | tensors["decoder"]
    return {name: weights.assemble(SPEC.network(name), config, loaded) for name in FAMILY.references}


@pytest.fixture(scope="module")
def detectors(config, tensors):
    """Reference -> the detector of two_files, with the tensors of v1's components."""
    loaded = tensors["text_encoder"] | tensors["geometry_encoder"] | tensors["decoder"]
    return {name: weights.assemble(DETECTOR.network(name), config, loaded) for name in FAMILY.references}


@pytest.fixture(scope="module")
def given(config):
    """Return a function that gives the cases of samples of every kind, by name, under a reference in a layout."""

    def make(reference, layout):
        made = cases_of(reference, EVERY_KIND, TOKENIZER, IMAGES, config, layout)
        return {c.name: {name: torch.from_numpy(array) for name, array in c.arrays.items()} for c in made}

    return make


@pytest.fixture(scope="module")
def run_v2(run, decoders):
    """Return a function that runs v2's components on a case: v1's run gives what the two encoders feed."""

    def run_all(reference, case):
        known = run(case) | case
        with torch.no_grad():
            outputs = decoders[reference](**{tensor.name: known[tensor.name] for tensor in SPEC.inputs})
        return dict(zip(OUTPUTS, outputs, strict=True))

    return run_all


def assert_equal(found, expected):
    for name in OUTPUTS:
        assert found[name].shape == expected[name].shape
        assert (found[name] - expected[name]).abs().max() <= 2e-6 * expected[name].abs().max(), name


@pytest.mark.parametrize("name", [*(f"sample{i}" for i in range(len(EVERY_KIND))), "batch"])
def test_v2_is_v1_as_meta_feeds_it(name, given, run, run_v2):
    case = given("meta", "v2")[name]
    assert_equal(run_v2("meta", case), run(given("meta", "v1")[name]))


@pytest.mark.parametrize("name", [f"sample{i}" for i in range(len(EVERY_KIND))])
def test_v2_is_v1_as_transformers_feeds_it_though_it_gets_an_ignored_box_for_none(name, given, run, run_v2):
    case = given("hf", "v2")[name]
    assert "input_boxes" in case
    assert ("input_boxes" in given("hf", "v1")[name]) == bool((case["input_boxes_labels"] != -10).any())
    assert_equal(run_v2("hf", case), run(given("hf", "v1")[name]))


def test_v2_masks_cls_in_the_rows_without_a_box_only(given, run, run_v2):
    case, alone = given("hf", "v2")["batch"], given("hf", "v1")
    has_box = (case["input_boxes_labels"] != -10).any(1).tolist()
    assert has_box == [False, True, True, True], "a batch that mixes both"
    found = run_v2("hf", case)
    for row in range(4):
        expected = run(alone[f"sample{row}"])
        for name in OUTPUTS:
            limit = 1e-5 * expected[name].abs().max()
            assert (found[name][row : row + 1] - expected[name]).abs().max() <= limit, (name, row)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_mask_of_cls_matters_to_every_output_of_a_text_only_prompt(name, given, run_v2):
    case = given("hf", "v2")["sample0"]
    meta, hf = run_v2("meta", case)[name], run_v2("hf", case)[name]
    assert (meta - hf).abs().max() > 1e-3 * hf.abs().max()


def test_the_two_references_are_one_function_as_soon_as_there_is_a_box(given, run_v2):
    case = given("hf", "v2")["sample4"]
    assert_equal(run_v2("hf", case), run_v2("meta", case))


def test_both_references_are_fed_the_same(given):
    meta, hf = given("meta", "v2"), given("hf", "v2")
    assert list(meta) == list(hf) == [*(f"sample{i}" for i in range(len(EVERY_KIND))), "batch"]
    for name, case in meta.items():
        assert case.keys() == hf[name].keys()
        assert all(torch.equal(tensor, hf[name][key]) for key, tensor in case.items())


def test_the_inventory_of_v2_is_that_of_v1_with_two_components_in_one(config):
    v1, v2 = (weights.inventory(SOURCE, config, None, layout) for layout in ("v1", "v2"))
    assert list(v2) == [component.name for component in V2.components]
    assert v2["decoder"] == v1["geometry_encoder"] | v1["decoder"]
    assert {name: v2[name] for name in ("vision_encoder", "text_encoder")} == {
        name: v1[name] for name in ("vision_encoder", "text_encoder")
    }


@pytest.mark.ci
@pytest.mark.parametrize("reference", FAMILY.references)
def test_the_detector_is_the_text_encoder_and_v2s_decoder(reference, given, run, run_v2, detectors):
    for name, case in given(reference, "two_files").items():
        assert all(torch.equal(tensor, given(reference, "v2")[name][key]) for key, tensor in case.items())
        known = run(case) | case
        with torch.no_grad():
            outputs = detectors[reference](**{tensor.name: known[tensor.name] for tensor in DETECTOR.inputs})
        assert_equal(dict(zip(OUTPUTS, outputs, strict=True)), run_v2(reference, case))


def test_the_inventory_of_two_files_is_that_of_v2_with_the_text_encoder_in_the_detector(config):
    v2, two = (weights.inventory(SOURCE, config, None, layout) for layout in ("v2", "two_files"))
    assert two == {"vision_encoder": v2["vision_encoder"], "detector": v2["text_encoder"] | v2["decoder"]}


def test_who_chooses_two_files_is_told_what_it_costs_before_anything_is_built(tmp_path):
    path = tmp_path / "m.yaml"
    components = "components: {detector: {patches: [einsum_to_matmul]}}"
    path.write_text(f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\nlayout: two_files\n{components}\n")
    manifest = load(str(path), ROOT)
    assert list(manifest.components) == ["vision_encoder", "detector"]
    (note,) = manifest.notes
    assert "m.yaml:2: layout: two_files: the detector holds the text encoder, and encodes the text again" in note
    plan = make_plan(manifest)
    gap = plan.action("reference_gap:detector.hf")
    assert gap.params["network"] == "detector_as_hf" and set(gap.params["absent"]) == {t.name for t in BOXES}
    assert not load("sam3_mini", ROOT).notes


@pytest.mark.parametrize("layout", FAMILY.layouts)
def test_a_component_owns_the_prefixes_that_it_declares(layout, config):
    for component in FAMILY.laid_out(layout).components:
        keys = weights.skeleton(component.network("meta"), config).state_dict()
        assert {key.split(".")[0] for key in keys} == set(component.modules)
