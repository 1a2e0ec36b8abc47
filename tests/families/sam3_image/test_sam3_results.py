"""Post-processing held against torch's interpolation and against transformers' own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers_code
from build_space import ROOT
from PIL import Image
from torch.nn.functional import interpolate

from sam3_build.families.sam3_image.results import find
from sam3_build.pipeline import images
from sam3_build.pipeline.masks import enlarged

RNG = np.random.default_rng(7)


def smooth(side: int, queries: int = 1) -> np.ndarray:
    """Blobs of logits, as masks are: low frequencies, both signs, and some noise."""
    coarse = torch.from_numpy(RNG.standard_normal((1, queries, 6, 6)).astype(np.float32)) * 8
    fine = interpolate(coarse, (side, side), mode="bicubic")[0].numpy()
    return (fine + RNG.standard_normal(fine.shape).astype(np.float32) * 0.3).astype(np.float32)


def outputs(queries: int = 12, side: int = 48, presence: float = 3.0) -> dict[str, np.ndarray]:
    low, high = np.sort(RNG.random((2, queries, 2)), axis=0)
    return {
        "pred_masks": smooth(side, queries),
        "pred_logits": RNG.standard_normal(queries).astype(np.float32) * 2,
        "pred_boxes": np.concatenate([low, high], axis=1).astype(np.float32),
        "presence_logits": np.array([presence], np.float32),
    }


def transformers_finds(given: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Run transformers' own code."""
    names = ("_scale_boxes", "post_process_instance_segmentation")
    used: dict[str, object] = {"torch": torch}
    used |= transformers_code.cut("models/sam3/image_processing_sam3.py", names[:1], used)
    finds = transformers_code.cut("models/sam3/image_processing_sam3.py", names, used)[names[1]]
    whole = SimpleNamespace(**{name: torch.from_numpy(array)[None] for name, array in given.items()})
    (found,) = finds(None, whole, threshold=0.5, target_sizes=[size])  # type: ignore[misc]
    return {name: tensor.numpy() for name, tensor in found.items()}


SIZES = [(48, 48), (96, 96), (97, 131), (720, 1283), (168, 168), (30, 41), (1, 1), (5, 300)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_are_enlarged_as_torch_does(size: tuple[int, int]) -> None:
    logits = smooth(48)[0]
    expected = interpolate(torch.from_numpy(logits)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(enlarged(logits, size), expected.numpy(), atol=2e-5 * np.abs(logits).max())


@pytest.mark.parametrize("size", [(168, 168), (333, 500), (30, 41)], ids=str)
def test_instances_are_those_of_transformers(size: tuple[int, int]) -> None:
    """But for two things: transformers enlarges probabilities where Meta's code enlarges logits, so that edges that are
    steeper on one side move by part of a cell; and it does not clip boxes, which these here do not need.
    """
    given = outputs()
    theirs = transformers_finds(given, size)
    found = find(given, size, 0.5)
    assert 0 < len(found.queries) < 12
    np.testing.assert_allclose(found.scores, theirs["scores"], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, theirs["boxes"], rtol=1e-6)
    assert found.masks.shape == theirs["masks"].shape
    for ours, mask in zip(found.masks, theirs["masks"].astype(bool), strict=True):
        assert (ours & mask).sum() >= 0.98 * (ours | mask).sum()


@pytest.mark.parametrize("size", [(168, 168), (333, 500)], ids=str)
def test_masks_are_what_torch_makes_of_the_logits_but_for_pixels_on_the_very_edge(size: tuple[int, int]) -> None:
    given = outputs()
    found = find(given, size, 0.0)
    logits = interpolate(torch.from_numpy(given["pred_masks"])[None], size, mode="bilinear")[0].numpy()
    assert list(found.queries) == list(range(12))
    differ = found.masks != (logits > 0)
    assert np.abs(logits[differ]).max(initial=0) < 1e-4


def test_a_score_needs_both_the_query_and_the_picture_and_more_than_the_threshold() -> None:
    given = {
        "pred_masks": np.ones((3, 4, 4), np.float32),
        "pred_logits": np.array([0.0, 100.0, -200.0], np.float32),
        "pred_boxes": np.tile(np.array([0, 0, 1, 1], np.float32), (3, 1)),
        "presence_logits": np.array([0.0], np.float32),
    }
    assert list(find(given, (8, 8), 0.25).queries) == [1], "0.25 is not above 0.25"
    found = find(given, (8, 8), 0.2)
    assert list(found.queries) == [0, 1]
    assert found.scores.tolist() == [0.25, 0.5]
    assert found.presence == 0.5
    nothing = find(given, (8, 8), 0.5)
    assert (nothing.masks.shape, nothing.boxes.shape) == ((0, 8, 8), (0, 4))


def test_boxes_are_pixels_of_the_picture_and_stay_inside_it() -> None:
    given = outputs(queries=2)
    given["pred_logits"][:] = 9
    given["pred_boxes"] = np.array([[0.1, 0.2, 0.5, 0.75], [-0.2, -0.1, 1.3, 1.001]], np.float32)
    found = find(given, (100, 200), 0.5)
    np.testing.assert_allclose(found.boxes, [[20, 20, 100, 75], [0, 0, 200, 100]], rtol=1e-6)


def test_a_mask_lies_where_its_logits_lie() -> None:
    given = outputs(queries=1, side=48)
    given["pred_logits"][:] = 9
    given["pred_masks"] = np.full((1, 48, 48), -5, np.float32)
    given["pred_masks"][0, 12:24, 6:12] = 5
    (mask,) = find(given, (480, 960), 0.5).masks
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (120, 239, 120, 239)


def test_a_picture_is_read_as_people_see_it(tmp_path) -> None:
    assert images.read(ROOT / "manifests" / "samples" / "scene1.png").mode == "RGB"
    turned = Image.new("RGB", (30, 10), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # rotated by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert images.read(tmp_path / "turned.jpg").size == (10, 30)
