"""What is asked of a picture becomes arrays in the frame of the network, and what comes back masks of the picture."""

from __future__ import annotations

import numpy as np
import pytest
from miniature import ROOT, SCENES
from PIL import Image
from tracker_model import CODE, CONFIG

from sam3_build.documents import document_of
from sam3_build.errors import BuildError, ManifestError
from sam3_build.families.sam3_tracker.family import FAMILY
from sam3_build.manifest.load import load
from sam3_build.params import SampleParams
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.click_cases import Clicks, case_shapes
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import CaseRequest

SCENE = SCENES / "scene1.png"
POINT, OTHER, BOX = Point(1, 42, 84), Point(0, 0, 167), Box(1, 21, 42, 63, 84)


def request(layout="clicks", samples=(), files=None):
    return PromptRequest(layout, "interactive", "meta", samples, None, files or {}, CONFIG, 0)


def arrays(*prompts, layout="clicks"):
    """Return what prompts on scene1, 168 x 168 pixels, give for a network of 112."""
    return CODE.prompts.prompt_arrays(request(layout), prompts, (168, 168))


def test_points_and_boxes_are_in_pixels_of_the_network():
    given = arrays(Clicks((POINT, OTHER), (BOX,)))
    np.testing.assert_allclose(given["input_points"], np.array([[[[28, 56], [0, 167 * 2 / 3]]]]), rtol=1e-6)
    assert given["input_labels"].tolist() == [[[1, 0]]] and given["input_labels"].dtype == np.int64
    np.testing.assert_allclose(given["input_boxes"], [[[14, 28, 56, 84]]], rtol=1e-6)


def test_what_is_not_asked_has_size_0():
    given = arrays(Clicks(boxes=(BOX,)))
    assert given["input_points"].shape == (1, 1, 0, 2) and given["input_labels"].shape == (1, 1, 0)
    assert arrays(Clicks((POINT,)))["input_boxes"].shape == (1, 0, 4)


def test_a_mask_alone_comes_with_a_point_that_is_none_and_a_row_without_one_says_so(tmp_path):
    inside = np.zeros((168, 168), np.uint8)
    inside[:84] = 255
    Image.fromarray(inside).save(tmp_path / "mask.png")
    files = {"mask": tmp_path / "mask.png"}
    given = CODE.prompts.prompt_arrays(
        request("previous_mask", files=files), [ObjectPrompts(mask="mask"), ObjectPrompts()], (168, 168)
    )
    assert given["input_labels"].tolist() == [[[-1]], [[-1]]]
    assert given["has_masks"].tolist() == [[True], [False]]
    assert given["input_masks"].shape == (2, 1, 32, 32)
    assert (given["input_masks"][0, 0, :16] > 0).all() and (given["input_masks"][0, 0, 16:] < 0).all()
    assert not given["input_masks"][1].any()


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ((Clicks((POINT,)), Clicks((POINT, OTHER))), "prompts of 1, 2 points"),
        ((Clicks((POINT,)), Clicks((POINT,), (BOX,))), "with a box and without are asked together"),
        ((Clicks(boxes=(BOX,)), Clicks((POINT,), (BOX,))), "with points and without are asked together"),
        ((Clicks((Point(1, 168, 3),)),), "the point 168,3 lies outside"),
        ((Clicks(boxes=(BOX, BOX)),), "has 2 boxes; a prompt is for one object"),
    ],
)
def test_what_cannot_be_asked_is_refused(prompts, says):
    with pytest.raises(BuildError, match=says):
        arrays(*prompts)


def test_shapes_of_cases_are_those_of_their_arrays():
    asked = [Clicks((POINT,)), Clicks((POINT, OTHER), (BOX,)), Clicks(boxes=(BOX,)), Clicks((OTHER,))]
    samples = [SampleParams(number=i, pictures=("p",), prompts=document_of(p)) for i, p in enumerate(asked)]
    made = list(CODE.prompts.make_cases(request(samples=samples, files={"p": SCENE})))
    shapes = case_shapes(CaseRequest("clicks", "interactive", "meta", asked, range(4), 0, {}))
    assert [case.name for case in made] == [s.name for s in shapes] == [*(f"sample{i}" for i in range(4)), "batch"]
    assert shapes[-1].samples == (0, 3)
    for case, shape in zip(made, shapes, strict=True):
        for spec in FAMILY.components[1].inputs[:3]:
            expected = [shape.sizes.get(dim, dim) for dim in spec.dims]
            assert list(case.arrays[spec.name].shape) == expected
        assert case.arrays["pixel_values"].shape == (shape.sizes["batch"], 3, 112, 112)


def test_a_mask_is_no_prompt_of_the_layout_without_one(tmp_path):
    (tmp_path / "m.yaml").write_text(
        f"extends: {ROOT / 'manifests' / 'sam3_tracker_mini.yaml'}\n"
        f"samples: [{{image: {SCENE}, mask: {SCENES / 'masks' / 'star.png'}}}]\n"
    )
    with pytest.raises(ManifestError, match=r"samples\[0\]\.mask: is nothing that family 'sam3_tracker'"):
        load(str(tmp_path / "m.yaml"), ROOT)


def test_the_mask_of_the_best_predicted_iou_is_the_answer():
    masks = np.full((1, 3, 4, 4), -1, np.float32)
    masks[0, 2, :, :2] = 1
    outputs = {"iou_scores": np.array([[0.3, 0.2, 0.9]], np.float32), "pred_masks": masks}
    found = CODE.results.find({**outputs, "object_score_logits": np.array([[0.5]], np.float32)}, (8, 8), 0.5)
    assert found.chosen == 2 and found.visible and found.masks.shape == (3, 8, 8)
    assert found.masks[2, :, :3].all() and not found.masks[2, :, 5:].any() and not found.masks[0].any()
    hidden = CODE.results.find({**outputs, "object_score_logits": np.array([[-0.5]], np.float32)}, (8, 8), 0.5)
    assert not hidden.visible
