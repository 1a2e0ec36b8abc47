"""What is measured of another reference: held against what each of them records by itself."""

from __future__ import annotations

import json

import miniature
import numpy as np
import pytest
from miniature import MANIFEST_V2

from sam3_build import registry
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.errors import BuildError
from sam3_build.stages import reference, reference_gap, samples

FAMILY = registry.family("sam3_image")
OUTPUTS = [tensor.name for tensor in FAMILY.component("decoder").outputs]
TEXT_ONLY = ["sample0", "sample1", "sample4"]
CLOSE = {"rel": 1e-4, "abs": 1e-6}


def outputs(folder, case):
    with np.load(folder / f"{case}.npz") as arrays:
        return {name: arrays[f"outputs/{name}"] for name in OUTPUTS}


def expected(other, own):
    """Output -> metrics of the decoder's text-only cases in two folders of references."""
    measured = {}
    for name in OUTPUTS:
        found = OutputStatistics("float32")
        for case in TEXT_ONLY:
            found.add(case, outputs(other, case)[name], outputs(own, case)[name])
        measured[name] = found.metrics()
    return measured


def measured(folder):
    found = json.loads((folder / "statistics.json").read_text())
    assert found["cases"] == TEXT_ONLY, "the text-only samples, each once"
    return {name: output["metrics"] for name, output in found["outputs"].items()}


# The default manifest feeds as Meta's code does, in layout v1; the other as transformers does, in v2.
META = ("reference:decoder", miniature.MANIFEST)
HF = ("reference:decoder", MANIFEST_V2)


@pytest.mark.ci
def test_meta_to_transformers_in_v1_is_what_transformers_records_itself():
    found = measured(miniature.folder("reference_gap:decoder.hf"))
    for name, metrics in expected(miniature.folder(*HF), miniature.folder(*META)).items():
        assert found[name] == pytest.approx(metrics, **CLOSE)
    assert found["pred_masks"]["max_abs_over_std"] > 0.1, "two functions"


@pytest.mark.ci
def test_transformers_to_meta_in_v2_is_what_meta_records_itself():
    found = measured(miniature.folder("reference_gap:decoder.meta", MANIFEST_V2))
    for name, metrics in expected(miniature.folder(*META), miniature.folder(*HF)).items():
        assert found[name] == pytest.approx(metrics, **CLOSE)


@pytest.fixture(scope="module")
def hf_v1(tmp_path_factory):
    """Role -> folder: what transformers' way records in v1, where a text-only case has no box inputs at all."""
    root = tmp_path_factory.mktemp("hf")
    folders = {"samples": root / "samples"}
    folders["samples"].mkdir()
    params = {**miniature.params("samples"), "reference": "hf"}
    samples.run(params, miniature.inputs("samples"), folders["samples"])
    for component in (c.name for c in FAMILY.components):
        folders[component] = root / component
        folders[component].mkdir()
        given = {**miniature.inputs(f"reference:{component}"), **folders}
        reference.run(miniature.params(f"reference:{component}"), given, folders[component])
    return {**folders, "recorded": folders["decoder"]}


def test_transformers_to_meta_in_v1_adds_the_geometry_tokens_that_were_never_computed(hf_v1, tmp_path):
    given = {**miniature.inputs("reference_gap:decoder.hf"), **hf_v1}
    reference_gap.run(
        {**miniature.params("reference_gap:decoder.hf"), "network": "whole_decoder_as_meta"}, given, tmp_path
    )
    found = measured(tmp_path)
    for name, metrics in expected(miniature.folder(*META), hf_v1["decoder"]).items():
        assert found[name] == pytest.approx(metrics, **CLOSE)


def test_a_reference_fed_as_itself_differs_in_nothing_but_rounding(tmp_path):
    params = {**miniature.params("reference_gap:decoder.hf"), "network": "whole_decoder_as_meta"}
    reference_gap.run(params, miniature.inputs("reference_gap:decoder.hf"), tmp_path)
    assert all(metrics["max_abs_over_std"] < 1e-5 for metrics in measured(tmp_path).values())


def test_samples_of_which_none_is_concerned_are_refused(tmp_path):
    params = {**miniature.params("reference_gap:decoder.hf"), "samples": []}
    with pytest.raises(BuildError, match="no case holds one of the samples concerned alone"):
        reference_gap.run(params, miniature.inputs("reference_gap:decoder.hf"), tmp_path)
