"""What is done to found masks afterwards: NMS and steps on masks, against definitions and against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sam3_build.errors import BuildError
from sam3_build.pipeline import postprocess
from sam3_build.pipeline.ious import box_ious, mask_ious
from sam3_build.pipeline.postprocess import Nms, Step, cleaned, survivors
from sam3_build.runtime.found import Found
from sam3_build.runtime.keep import Keep

quick = settings(max_examples=100, derandomize=True, deadline=None, database=None)


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A mask of ragged blobs with holes, some of them at the edge."""
    noise = np.random.default_rng(seed).standard_normal(size)
    return ndimage.gaussian_filter(noise, 2) > 0


def circle(size: int) -> np.ndarray:
    import cv2

    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(bool)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 3, 7])
def test_opening_and_closing_are_those_of_morphology(seed: int, size: int) -> None:
    mask = blobs(seed)
    opened = ndimage.binary_dilation(ndimage.binary_erosion(mask, circle(size), border_value=1), circle(size))
    closed = ndimage.binary_erosion(ndimage.binary_dilation(mask, circle(size)), circle(size), border_value=1)
    assert np.array_equal(cleaned(mask, [Step("open", size)]), opened)
    assert np.array_equal(cleaned(mask, [Step("close", size)]), closed)


def test_smoothing_is_a_gaussian_and_a_half() -> None:
    mask = blobs(0)
    expected = ndimage.gaussian_filter(mask.astype(float), 2.0, mode="nearest", truncate=4)
    clear = abs(expected - 0.5) > 1e-3  # where the two filters' ends do not decide
    found = cleaned(mask, [Step("smooth", 2.0)])
    assert clear.mean() > 0.99 and np.array_equal(found[clear], (expected > 0.5)[clear])


def test_holes_are_filled_up_to_an_area_and_bays_of_the_edge_are_not() -> None:
    mask = blobs(1)
    everything = ndimage.binary_fill_holes(mask)
    assert not np.array_equal(everything, mask)
    assert np.array_equal(cleaned(mask, [Step("fill", 10**9)]), everything)
    ring = np.ones((9, 9), bool)
    ring[3:5, 3:6], ring[0, 7] = False, False
    assert cleaned(ring, [Step("fill", 5)]).sum() == 81 - 7
    assert cleaned(ring, [Step("fill", 6)]).sum() == 81 - 1


def test_steps_run_in_the_order_in_which_they_are_written() -> None:
    assert postprocess.steps("open:3, close:5,smooth:1.5,fill:100") == (
        *(Step("open", 3), Step("close", 5)),
        *(Step("smooth", 1.5), Step("fill", 100)),
    )
    mask = blobs(2)
    one, other = (cleaned(mask, postprocess.steps(text)) for text in ("open:7,close:7", "close:7,open:7"))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, cleaned(cleaned(mask, [Step("open", 7)]), [Step("close", 7)]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("opne:3", "post: there is no step 'opne:3'; did you mean 'open'?"),
        ("open:4", "post: 'open:4': the size is an odd number of pixels, from 1 to 255, such as open:3"),
        ("open:3,", "post: there is no step ''; known: close, fill, open, smooth"),
        ("smooth:0", "post: 'smooth:0': the standard deviation is above 0 and at most 42 pixels, such as smooth:1"),
        ("fill:-5", "post: 'fill:-5': the area is at least 1 pixel, such as fill:100"),
        ("close", "post: 'close': the size is an odd number"),
    ],
)
def test_steps_that_are_none_are_named(text: str, message: str) -> None:
    with pytest.raises(BuildError) as error:
        postprocess.steps(text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("text", ["masks:0.7", "mask", "mask:2", "box:-1", "box:nan", "", "mask:0.7:1"])
def test_nms_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match=r"^nms: "):
        postprocess.nms(text)


def test_nms_is_by_mask_by_box_or_none() -> None:
    assert [postprocess.nms(t) for t in ("mask:0.7", "box:.5", "none")] == [Nms("mask", 0.7), Nms("box", 0.5), None]


@quick
@given(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_nms_leaves_no_overlap_and_drops_nothing_without_a_better_one(count: int, seed: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (count, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 12, (count, 2))], 1).astype(np.float32)
    scores = random.integers(0, 5, count).astype(np.float32) / 5
    groups, ious = random.integers(0, 2, count), box_ious(boxes, boxes)
    kept = survivors(ious, scores, groups, limit)
    assert kept.tolist() == sorted({*kept.tolist()}) and (count == 0 or len(kept))
    rivals = (ious > limit) & (groups[:, None] == groups[None])
    for i in range(count):
        beaten = [j for j in kept if j != i and rivals[i, j] and (scores[j], -j) > (scores[i], -i)]
        assert (i in kept) == (not beaten)


letters = st.text("openclsmthfilbxak:,.0123456789 -+e\u00b2", max_size=20)
amounts = st.sampled_from(["3", "1", "255", "257", "0", "0.5", "1e3", "", "99999999999", "\u0663"])
written = st.lists(
    st.builds(lambda name, amount: f"{name}:{amount}", st.sampled_from([*postprocess.STEPS, "mask", "box"]), amounts),
    max_size=3,
).map(",".join)


@quick
@given(letters | written)
@example("open:" + "9" * 400)
def test_any_text_is_steps_and_nms_that_run_or_one_message(text: str) -> None:
    mask = blobs(3, (20, 30))
    try:
        assert cleaned(mask, postprocess.steps(text)).shape == mask.shape
    except BuildError as error:
        assert str(error).startswith("post: ")
    try:
        found = postprocess.nms(text)
        assert found is None or 0 <= found.iou <= 1
    except BuildError as error:
        assert str(error).startswith("nms: ")


def squares() -> Found:
    """Two nearly equal squares, one of another prompt in their place, and a dot."""
    masks = np.zeros((4, 40, 40), bool)
    masks[0, 5:25, 5:25] = masks[1, 5:26, 5:26] = masks[2, 5:25, 5:25] = True
    masks[3, 30, 30] = True
    boxes = np.array([[5, 5, 25, 25], [5, 5, 26, 26], [5, 5, 25, 25], [30, 30, 31, 31]], np.float32)
    scores, prompts = np.array([0.6, 0.9, 0.5, 0.7], np.float32), np.array([0, 0, 1, 0])
    picture = np.zeros((40, 40, 3), np.uint8)
    return Found(masks, boxes, scores, ["a", "a", "b", "a"], prompts, picture, ("a", "b"))


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, [0.6, 0.9, 0.5, 0.7]),
        ({"threshold": 0.6}, [0.9, 0.7]),
        ({"nms": "none"}, [0.6, 0.9, 0.5, 0.7]),
        ({"nms": "mask:0.7"}, [0.9, 0.5, 0.7]),
        ({"nms": "box:0.7"}, [0.9, 0.5, 0.7]),
        ({"nms": "mask:0.95"}, [0.6, 0.9, 0.5, 0.7]),
        ({"nms": "mask:0.7", "max_found": 2}, [0.9, 0.7]),
        ({"post": "open:3"}, [0.6, 0.9, 0.5]),
        ({"post": "open:3", "max_found": 2}, [0.9]),
    ],
)
def test_of_all_that_is_found_what_is_asked_for_is_kept(asked: dict[str, object], kept: list[float]) -> None:
    found = Keep.of(**asked).of_picture(squares())  # type: ignore[arg-type]
    assert found.scores.tolist() == pytest.approx(kept)
    assert len(found.masks) == len(found.boxes) == len(found.labels) == len(found.prompts) == len(kept)
    assert [found.texts[i] for i in found.prompts] == found.labels


def test_boxes_and_the_ious_of_masks_stay_as_the_model_gave_them() -> None:
    whole = squares()
    found = Keep.of(post="open:3").of_picture(whole)
    assert np.array_equal(found.boxes, whole.boxes[:3])
    assert (np.diag(mask_ious(found.masks, whole.masks[:3])) > 0.95).all()
