"""How outputs become inputs, on arrays made by hand; and files of the miniature run along it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import miniature
import numpy as np
import pytest

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.params import NetworkParams
from sam3_build.pipeline import chain
from sam3_build.pipeline.cases import Case, write_cases
from sam3_build.spec import ComponentSpec, Feed, Step, TensorSpec
from sam3_build.stages._networks import network_session

FEATURES = Feed("features", (("vision", "features"),))
DECODER_FEEDS = (Feed("prompt", (("text", "words"), ("geometry", "corners"))), FEATURES)
STEPS = (Step("vision"), Step("text"), Step("geometry", (FEATURES,)), Step("decoder", DECODER_FEEDS))


def component(name: str, *inputs: str) -> ComponentSpec:
    return ComponentSpec(name, tuple(TensorSpec(i, "float32", ("batch",)) for i in inputs), (), (name,))


COMPONENTS = {
    spec.name: spec
    for spec in (
        component("vision", "images"),
        component("text", "ids"),
        component("geometry", "boxes", "features"),
        component("decoder", "features", "prompt"),
    )
}
NETWORKS = {
    "vision": lambda given: {"features": given["images"] + 1},
    "text": lambda given: {"words": given["ids"] * 10},
    "geometry": lambda given: {"corners": given["boxes"] + given["features"]},
    "decoder": lambda given: {"masks": given["prompt"] - given["features"][:, :1]},
}
GIVEN = {"images": np.array([[1.0, 2.0]]), "ids": np.array([[3.0]]), "boxes": np.array([[5.0, 7.0]])}


def test_each_component_gets_what_the_ones_before_it_computed() -> None:
    found = chain.run(COMPONENTS, STEPS, NETWORKS, GIVEN)
    assert list(found) == ["vision", "text", "geometry", "decoder"]
    assert found["geometry"]["corners"].tolist() == [[7, 10]]
    assert found["decoder"]["masks"].tolist() == [[30 - 2, 7 - 2, 10 - 2]], "words first, then corners, along axis 1"


def test_a_component_that_the_case_lacks_an_input_of_does_not_run_and_is_left_out_of_the_join() -> None:
    found = chain.run(COMPONENTS, STEPS, NETWORKS, {name: GIVEN[name] for name in ("images", "ids")})
    assert list(found) == ["vision", "text", "decoder"]
    assert found["decoder"]["masks"].tolist() == [[28]]
    assert list(chain.run(COMPONENTS, STEPS, NETWORKS, {"ids": GIVEN["ids"]})) == ["text"]


def test_what_stands_for_an_absent_input_is_taken_only_where_there_is_none() -> None:
    known = {("vision", "features"): np.zeros((1, 2))}
    given = chain.gather(
        ["features", "prompt"], DECODER_FEEDS, lambda *key: known.get(key), {"prompt": np.ones((1, 1))}
    )
    assert given is not None and given["prompt"].tolist() == [[1]] and given["features"].tolist() == [[0, 0]]
    assert chain.gather(["features", "prompt"], DECODER_FEEDS, lambda *key: known.get(key)) is None


def test_recorded_and_computed_files_are_read_alike(tmp_path) -> None:
    for folder, key in (("samples", "x"), ("vision", "outputs/x"), ("text", "x")):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "case.npz", **{key: np.array([len(folder)]), "inputs/x": np.array([0])})
    find = chain.in_files({name: tmp_path / name for name in ("samples", "vision", "text")}, "case")
    assert [int(find(name, "x")[0]) for name in ("samples", "vision", "text")] == [7, 6, 4]
    assert find("vision", "y") is None
    assert chain.in_files({"vision": tmp_path / "vision"}, "other")("vision", "x") is None


def test_what_a_frame_has_is_taken_before_what_its_case_has(tmp_path) -> None:
    for stem, arrays in (("case", {"once": [1], "both": [1]}), ("case.00001", {"own": [2], "both": [2]})):
        np.savez(tmp_path / f"{stem}.npz", **{name: np.array(array) for name, array in arrays.items()})
    find = chain.in_files({"samples": tmp_path}, "case.00001", "case")
    assert [int(find("samples", name)[0]) for name in ("own", "both", "once")] == [2, 2, 1]


@pytest.mark.parametrize("manifest", [miniature.MANIFEST, pytest.param(miniature.MANIFEST_V2, marks=pytest.mark.ci)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_links_of_a_chain_give_what_the_whole_chain_gives_in_memory(precision: str, manifest: str) -> None:
    family = registry.family("sam3_image").laid_out("v2" if manifest == miniature.MANIFEST_V2 else "v1")

    def computed(component: str, given: chain.Arrays) -> chain.Arrays:
        folder = miniature.folder(f"precision:{component}.{precision}", manifest)
        with network_session(NetworkParams(component=component, precision=precision), {"onnx": folder}) as session:
            return session.run(given)

    networks = {c.name: partial(computed, c.name) for c in family.components}
    components = {c.name: c for c in family.components}
    linked = miniature.folder(f"chain:decoder.{precision}", manifest)
    for name in ("sample0", "batch"):
        with np.load(miniature.folder("samples", manifest) / f"{name}.npz") as given:
            found = chain.run(components, family.pipelines[0].steps, networks, dict(given))["decoder"]
        with np.load(linked / f"{name}.npz") as expected:
            assert sorted(expected.files) == sorted(found)
            for output, array in found.items():
                np.testing.assert_allclose(array, expected[output], atol=2e-5 * np.abs(array).max(), err_msg=output)


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    case = Case("clip0", (0,), {"points": np.zeros(2, np.float32)})
    with pytest.raises(BuildError, match="two cases called 'clip0'"):
        write_cases([case, case], tmp_path)
