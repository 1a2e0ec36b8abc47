"""The decoder as ONNX, for as many pictures, objects, points and boxes as clients send, against transformers."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from miniature import run_onnx
from tracker_model import CODE, CONFIG, SOURCE, transformers_model

from sam3_build import registry
from sam3_build.params import ExportParams, InterfaceParams
from sam3_build.stages import export, simplify
from sam3_build.weights import inventory

pytestmark = pytest.mark.ci

DIMS = registry.family("sam3_tracker").static_dims(CONFIG)
RANDOM = np.random.default_rng(0)
OUTPUTS = ("iou_scores", "pred_masks", "object_score_logits")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Layout -> the decoder's file, exported and simplified."""

    @cache
    def file(layout):
        root = tmp_path_factory.mktemp(layout)
        family = registry.family("sam3_tracker").laid_out(layout)
        spec = family.components[1]
        (root / "config.json").write_text(json.dumps(CONFIG))
        tensors = inventory.inventory(CODE, SOURCE, CONFIG, None, layout)[spec.name]
        (root / "tensors.json").write_text(json.dumps({"tensors": tensors}))
        params = ExportParams(
            family="sam3_tracker",
            component=spec.name,
            network=layout,
            source=SOURCE,
            spec=InterfaceParams(inputs=spec.inputs, outputs=spec.outputs),
            opset=20,
            dynamic_dims=family.dynamic_dims,
        )
        for name in ("export", "simplify"):
            (root / name).mkdir()
        inputs = {"config": root / "config.json", "tensors": root / "tensors.json"}
        export.run(params.document(), inputs, root / "export")
        simplify.run({"component": spec.name}, {"onnx": root / "export"}, root / "simplify")
        return root / "simplify" / f"{spec.name}.onnx"

    return file


def maps(batch):
    shapes = [(DIMS["hidden_8"], 4), (DIMS["hidden_4"], 2), (DIMS["hidden_size"], 1)]
    return {
        f"image_embeddings.{level}": RANDOM.standard_normal((batch, channels, *[times * DIMS["grid"]] * 2), np.float32)
        for level, (channels, times) in enumerate(shapes)
    }


def points(batch, objects, count):
    where = RANDOM.uniform(0, DIMS["image_size"], (batch, objects, count, 2)).astype(np.float32)
    return {"input_points": where, "input_labels": RANDOM.integers(0, 2, (batch, objects, count))}


def boxes(batch, count):
    low = RANDOM.uniform(0, 50, (batch, count, 2))
    return {"input_boxes": np.concatenate([low, low + RANDOM.uniform(5, 50, low.shape)], -1).astype(np.float32)}


def none(batch, objects):
    """Return points as transformers.js sends them beside boxes."""
    return {
        "input_points": np.zeros((batch, 1, 0, 2), np.float32),
        "input_labels": np.zeros((batch, objects, 0), np.int64),
    }


def absent(objects):
    """Return points as usls sends them beside boxes."""
    return {
        "input_points": np.zeros((1, objects, 1, 2), np.float32),
        "input_labels": np.full((1, objects, 1), -1, np.int64),
    }


FEEDS = {
    "a point": {**points(1, 1, 1), **boxes(1, 0)},
    "points of two objects on two pictures": {**points(2, 2, 3), **boxes(2, 0)},
    "points of three objects on a picture": {**points(1, 3, 2), **boxes(1, 0)},
    "a box, transformers.js": {**none(1, 1), **boxes(1, 1)},
    "two boxes on two pictures, transformers.js": {**none(2, 2), **boxes(2, 2)},
    "a box, usls": {**absent(1), **boxes(1, 1)},
    "two boxes, usls": {**absent(2), **boxes(1, 2)},
    "points and boxes of two objects on two pictures": {**points(2, 2, 2), **boxes(2, 2)},
    "a point of no object, usls": {**absent(1), **boxes(1, 0)},
}


def in_transformers(prompts, features, **more):
    """Return what transformers computes; it is not asked for what has size 0."""
    given = {name: torch.from_numpy(array) for name, array in prompts.items() if array.size}
    if "input_points" not in given:
        given.pop("input_labels", None)
    with torch.no_grad():
        found = transformers()(image_embeddings=[torch.from_numpy(f) for f in features.values()], **given, **more)
    return {name: getattr(found, name).numpy() for name in OUTPUTS}


@cache
def transformers():
    return transformers_model()


def assert_equal(found, expected):
    for name in OUTPUTS:
        assert found[name].shape == expected[name].shape
        assert np.abs(found[name] - expected[name]).max() <= 5e-5 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("name", FEEDS)
def test_each_feed_gives_what_transformers_gives(name, files):
    prompts = FEEDS[name]
    features = maps(prompts["input_labels"].shape[0])
    assert_equal(run_onnx(files("clicks"), {**prompts, **features}), in_transformers(prompts, features))


def test_an_earlier_mask_joins_the_objects_that_have_one(files):
    prompts, features, side = FEEDS["points of two objects on two pictures"], maps(2), DIMS["grid_4"]
    masks = RANDOM.standard_normal((2, 2, side, side), np.float32)
    has_masks = np.array([[True, False], [False, True]])
    found = run_onnx(files("previous_mask"), {**prompts, "input_masks": masks, "has_masks": has_masks, **features})
    for picture in range(2):
        for number in range(2):
            rows = slice(picture, picture + 1)
            own = {name: array[rows, number : number + 1] for name, array in prompts.items() if "boxes" not in name}
            more = {"input_masks": torch.from_numpy(masks[rows, number : number + 1])}
            expected = in_transformers(
                own, {n: f[rows] for n, f in features.items()}, **(more if has_masks[picture, number] else {})
            )
            assert_equal({name: array[rows, number : number + 1] for name, array in found.items()}, expected)


@pytest.mark.parametrize("layout", ["clicks", "previous_mask"])
def test_names_and_open_dims_are_those_of_the_published_files(layout, files):
    graph = onnx.load(files(layout)).graph
    dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert dims["input_points"] == ["batch", "point_objects", "points", 2]
    assert dims["input_labels"] == ["batch", "objects", "points"]
    assert dims["input_boxes"] == ["batch", "num_boxes", 4]
    assert [value.name for value in graph.output] == list(OUTPUTS)
    assert any(node.name.startswith("prompt_encoder.coordinates/") for node in graph.node)
