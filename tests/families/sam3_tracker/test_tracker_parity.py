"""Both networks against transformers' Sam3TrackerModel with the same weights, fed as each client feeds them.

The vision encoder is held against it as `hf`; what `meta` adds, Meta's code adds to the coarsest map that is read.
"""

from __future__ import annotations

import pytest
import torch
from tracker_model import CONFIG, fed, network, tensors, transformers_model

from sam3_build import registry
from sam3_build.pipeline.click_sizes import static_dims

DIMS = static_dims(CONFIG)
SIZE, GRID = DIMS["image_size"], DIMS["grid"]


@pytest.fixture(scope="module")
def model():
    return transformers_model()


@pytest.fixture(scope="module")
def maps():
    generator = torch.Generator().manual_seed(3)
    shapes = [(DIMS["hidden_8"], 4 * GRID), (DIMS["hidden_4"], 2 * GRID), (DIMS["hidden_size"], GRID)]
    return [torch.randn(2, channels, side, side, generator=generator) for channels, side in shapes]


def assert_equal(found, expected, limit=2e-5):
    for name in ("iou_scores", "pred_masks", "object_score_logits"):
        one, other = found[name], getattr(expected, name)
        assert one.shape == other.shape
        assert (one - other).abs().max() <= limit * other.abs().max(), name


def asked(model, maps, batch, **prompts):
    """Return what transformers computes of prompts on so many pictures."""
    with torch.no_grad():
        return model(image_embeddings=[features[:batch] for features in maps], **prompts)


POINTS = torch.tensor([[[[30.0, 40.0], [70.0, 20.0]], [[10.0, 90.0], [50.0, 55.0]]]] * 2)
LABELS = torch.tensor([[[1, 0], [1, 1]]] * 2)
BOXES = torch.tensor([[[10.0, 20.0, 60.0, 90.0], [5.0, 6.0, 100.0, 40.0]]] * 2)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("objects", [1, 2])
def test_points_alone(batch, objects, model, maps):
    points, labels = POINTS[:batch, :objects], LABELS[:batch, :objects]
    found = fed("clicks", maps, batch, input_points=points, input_labels=labels, input_boxes=torch.zeros(batch, 0, 4))
    assert_equal(found, asked(model, maps, batch, input_points=points, input_labels=labels))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("objects", [1, 2])
def test_points_and_boxes(batch, objects, model, maps):
    prompts = {
        "input_points": POINTS[:batch, :objects],
        "input_labels": LABELS[:batch, :objects],
        "input_boxes": BOXES[:batch, :objects],
    }
    assert_equal(fed("clicks", maps, batch, **prompts), asked(model, maps, batch, **prompts))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("objects", [1, 2])
def test_boxes_alone_as_transformers_js_sends_them(batch, objects, model, maps):
    """Points [batch, 1, 0, 2], labels [batch, objects, 0]."""
    boxes = BOXES[:batch, :objects]
    found = fed(
        "clicks",
        maps,
        batch,
        input_points=torch.zeros(batch, 1, 0, 2),
        input_labels=torch.zeros(batch, objects, 0, dtype=torch.int64),
        input_boxes=boxes,
    )
    assert_equal(found, asked(model, maps, batch, input_boxes=boxes))


def test_a_box_alone_as_usls_sends_it(model, maps):
    """With one point that is none."""
    prompts = {
        "input_points": torch.zeros(1, 1, 1, 2),
        "input_labels": torch.full((1, 1, 1), -1),
        "input_boxes": BOXES[:1, :1],
    }
    assert_equal(fed("clicks", maps, 1, **prompts), asked(model, maps, 1, **prompts))


def test_a_box_and_its_corners_as_points_are_one_prompt(maps):
    box = BOXES[:1, :1]
    none = {"input_points": torch.zeros(1, 1, 0, 2), "input_labels": torch.zeros(1, 1, 0, dtype=torch.int64)}
    corners = {"input_points": box.reshape(1, 1, 2, 2), "input_labels": torch.tensor([[[2, 3]]])}
    one = fed("clicks", maps, 1, **none, input_boxes=box)
    other = fed("clicks", maps, 1, **corners, input_boxes=torch.zeros(1, 0, 4))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_padding_point_is_a_zero_token_as_in_transformers_and_changes_the_answer(model, maps):
    prompts = {"input_points": POINTS[:1], "input_labels": torch.tensor([[[1, -10], [1, 1]]])}
    none = {"input_boxes": torch.zeros(1, 0, 4)}
    found = fed("clicks", maps, 1, **prompts, **none)
    assert_equal(found, asked(model, maps, 1, **prompts))
    alone = fed("clicks", maps, 1, input_points=POINTS[:1, :1, :1], input_labels=LABELS[:1, :1, :1], **none)
    assert (alone["pred_masks"][0, 0] - found["pred_masks"][0, 0]).abs().max() > 1e-3


def test_an_earlier_mask_joins_the_objects_that_have_one_row_by_row(model, maps):
    masks = torch.randn(2, 2, 4 * GRID, 4 * GRID, generator=torch.Generator().manual_seed(5))
    has_masks = torch.tensor([[True, False], [False, True]])
    prompts = {"input_points": POINTS, "input_labels": LABELS, "input_boxes": torch.zeros(2, 0, 4)}
    found = fed("previous_mask", maps, 2, **prompts, input_masks=masks, has_masks=has_masks)
    for picture in range(2):
        for number in range(2):
            own = {"input_points": POINTS[:1, number : number + 1], "input_labels": LABELS[:1, number : number + 1]}
            if has_masks[picture, number]:
                own["input_masks"] = masks[picture, number][None, None]
            alone = asked(model, [features[picture : picture + 1] for features in maps], 1, **own)
            row = {name: tensor[picture, number][None, None] for name, tensor in found.items()}
            assert_equal(row, alone)


def test_without_an_earlier_mask_both_layouts_are_one_function(maps):
    prompts = {"input_points": POINTS, "input_labels": LABELS, "input_boxes": BOXES}
    side = 4 * GRID
    none = {"input_masks": torch.ones(2, 2, side, side), "has_masks": torch.zeros(2, 2, dtype=torch.bool)}
    one, other = fed("clicks", maps, 2, **prompts), fed("previous_mask", maps, 2, **prompts, **none)
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("has_box", [True, False])
def test_a_prompt_encoder_and_a_mask_decoder_of_their_own_are_the_same_function(has_box, maps):
    points, labels, boxes = POINTS[:, :1], LABELS[:, :1], BOXES[:, : int(has_box)]
    one = fed("clicks", maps, 2, input_points=points, input_labels=labels, input_boxes=boxes)
    corners = boxes.reshape(2, -1, 2)
    with torch.no_grad():
        sparse, dense = network("prompt_encoder")(
            torch.cat([points[:, 0], corners], 1),
            torch.cat([labels[:, 0], torch.tensor([[2, 3]] * 2)[:, : corners.shape[1]]], 1),
        )
        assert sparse.shape[1] == 3 + corners.shape[1] and dense.shape == maps[2].shape
        masks, scores, visible = network("mask_decoder")(maps[2], sparse, dense, maps[0], maps[1])
    other = {"pred_masks": masks, "iou_scores": scores, "object_score_logits": visible}
    assert all(torch.allclose(one[name][:, 0], tensor, atol=1e-5) for name, tensor in other.items())


# ------------------------------------------------------------------ vision encoder


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)) * 2 - 1


def test_hf_is_transformers_and_meta_adds_what_stands_for_no_memory_to_the_coarsest_map(model, pixels):
    with torch.no_grad():
        expected = model.get_image_embeddings(pixels)[:3]
        hf, meta = (network(f"vision_encoder_as_{reference}")(pixel_values=pixels) for reference in ("hf", "meta"))
    embedding = tensors("vision_encoder_as_meta")["no_memory_embedding"].flatten()
    assert embedding.abs().max() > 0.1
    added = (*expected[:2], expected[2] + embedding[:, None, None])
    for one, other in zip((*hf, *meta), (*expected, *added), strict=True):
        assert one.shape == other.shape and (one - other).abs().max() <= 2e-5 * other.abs().max()


def test_the_declared_shapes_are_those_that_the_networks_give(pixels):
    family = registry.family("sam3_tracker")
    outputs = network("vision_encoder_as_meta")(pixel_values=pixels)
    sizes = {**DIMS, "batch": 2}
    for spec, tensor in zip(family.component("vision_encoder").outputs, outputs, strict=True):
        assert tuple(sizes.get(dim, dim) for dim in spec.dims) == tensor.shape
