"""What DeepStream's MaskTracker relies on, point by point. Each test fails when the network stops doing it.

Where it can be, what one of the two layouts computes is held against the other, fed in its own way.
"""

from __future__ import annotations

import numpy as np
import predictor
import pytest
import torch

from sam3_build.families.sam2.config import static_dims

# name -> dims, -1 where they are open; all tensors are float32. Of batches the seed's table prints 1 at the memory
# attention's memories and the memory encoder's masks, where NVIDIA's exporter leaves them open.
INPUTS = {
    "image_encoder": {"image": (1, 3, 1024, 1024)},
    "mask_decoder": {
        "point_coords": (-1, -1, 2),
        "point_labels": (-1, -1),
        "image_embed": (-1, 256, 64, 64),
        "high_res_feats_0": (1, 32, 256, 256),
        "high_res_feats_1": (1, 64, 128, 128),
    },
    "memory_attention": {
        "current_vision_feat": (1, 256, 64, 64),
        "current_vision_pos_embed": (4096, 1, 256),
        "memory_0": (-1, -1, 256),
        "memory_1": (-1, -1, 64, 64, 64),
        "memory_pos_embed": (-1, -1, 64),
        "cond_frame_id_diff": (),
    },
    "memory_encoder": {"mask_for_mem": (-1, 1, 1024, 1024), "pix_feat": (1, 256, 64, 64), "occ_logit": (-1, 1)},
}
OUTPUTS = {
    "image_encoder": {
        "pix_feat": (1, 256, 64, 64),
        "high_res_feat0": (1, 32, 256, 256),
        "high_res_feat1": (1, 64, 128, 128),
        "vision_feats": (1, 256, 64, 64),
        "vision_pos_embed": (4096, 1, 256),
    },
    "mask_decoder": {
        "obj_ptr": (-1, 256),
        "mask_for_mem": (-1, 1, 1024, 1024),
        "pred_mask": (-1, 1, 256, 256),
        "iou": (-1, 1),
        "occ_logit": (-1, 1),
    },
    "memory_attention": {"image_embed": (-1, 256, 64, 64)},
    "memory_encoder": {
        "maskmem_features": (-1, 64, 64, 64),
        "maskmem_pos_enc": (-1, 4096, 64),
        "temporal_code": (7, 1, 1, 64),
    },
}


def shown(tensors):
    """Return name -> dims of tensors in order, at the published sizes."""
    static = static_dims({})
    return {t.name: tuple(static.get(d, -1) if isinstance(d, str) else d for d in t.dims) for t in tensors}


@pytest.mark.parametrize("name", INPUTS)
def test_names_order_dims_and_types_are_those_of_nvidias_exports(name):
    spec = predictor.CODE.family.component(name)
    for tensors, expected in ((spec.inputs, INPUTS[name]), (spec.outputs, OUTPUTS[name])):
        assert list(shown(tensors).items()) == list(expected.items())
        assert {tensor.dtype for tensor in tensors} == {"float32"}


# ------------------------------------------------------------------ what is computed


@pytest.fixture(scope="module")
def nvidia():
    torch.set_num_threads(1)
    return predictor.networks("deepstream")


@pytest.fixture(scope="module")
def meta():
    return predictor.networks("predictor")


@pytest.fixture(scope="module")
def picture(nvidia, meta):
    """What both encoders give of a frame, by all their names."""
    frame = predictor.pixels()[0]
    return nvidia["image_encoder"]({"image": frame}) | meta["vision_encoder"]({"pixel_values": frame})


def decoded(run, picture, points, labels):
    """Return what NVIDIA's decoder gives of points [n, 2] and labels [n]."""
    return run["mask_decoder"](
        {
            "point_coords": np.array([points], np.float32),
            "point_labels": np.array([labels], np.float32),
            "image_embed": picture["vision_feats"],
            "high_res_feats_0": picture["high_res_feat0"],
            "high_res_feats_1": picture["high_res_feat1"],
        }
    )


def predicted(run, picture, points, labels, several):
    """Return what the predictor's decoder gives of the same."""
    side = picture["image_embeddings.0"].shape[-1]
    return run["mask_decoder"](
        {
            **{name: picture[name] for name in ("image_embeddings.0", "image_embeddings.1")},
            "conditioned_features": picture["image_embeddings.2"],
            "input_points": np.array([points], np.float32),
            "input_labels": np.array([labels], np.int64),
            "input_masks": np.zeros((1, side, side), np.float32),
            "has_masks": np.array([False]),
            "multimask": np.array([several]),
        }
    )


def squashed(logits):
    return 20 / (1 + np.exp(-logits)) - 10


BOX = [[60, 20], [90, 60]], [2, 3]


@pytest.mark.ci
def test_the_best_of_three_masks_is_taken_for_boxes_too(nvidia, meta, picture):
    found = decoded(nvidia, picture, *BOX)
    best, single = (predicted(meta, picture, *BOX, several) for several in (True, False))
    np.testing.assert_allclose(found["pred_mask"][:, 0], best["pred_masks"], atol=1e-5)
    np.testing.assert_allclose(found["obj_ptr"], best["object_pointer"], atol=1e-5)
    np.testing.assert_allclose(found["iou"], best["iou_scores"], atol=1e-6)
    assert np.abs(best["object_pointer"] - single["object_pointer"]).max() > 0.1, "one of three or the first differs"


@pytest.mark.ci
def test_the_mask_for_memory_is_squashed_and_scaled_once(nvidia, meta, picture):
    found = decoded(nvidia, picture, *BOX)["mask_for_mem"]
    expected = squashed(predicted(meta, picture, *BOX, True)["high_res_masks"])
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)


@pytest.mark.ci
def test_the_memory_encoder_squashes_and_scales_again(nvidia, meta, picture):
    mask = decoded(nvidia, picture, *BOX)["mask_for_mem"]
    logit = np.ones((1, 1), np.float32)
    encoded = nvidia["memory_encoder"]({"mask_for_mem": mask, "pix_feat": picture["pix_feat"], "occ_logit": logit})
    once, twice = (
        meta["memory_encoder"](
            {
                "vision_features": picture["vision_features"],
                "mask_for_memory": given[:, 0].astype(np.float32),
                "object_score_logits": logit,
            }
        )["memory_features"]
        for given in (mask, squashed(mask))
    )
    found = encoded["maskmem_features"].reshape(*twice.shape[::2], -1).transpose(0, 2, 1)
    np.testing.assert_allclose(found, twice, atol=1e-4)
    assert np.abs(once - twice).max() > 0.05


@pytest.mark.ci
def test_the_point_that_pads_is_added_inside(nvidia, picture):
    alone = decoded(nvidia, picture, [[30, 40]], [1])["pred_mask"]
    padded = decoded(nvidia, picture, [[30, 40], [0, 0]], [1, -1])["pred_mask"]
    assert np.abs(alone - padded).max() > 1e-3, "two points that are none are another prompt than one"
    elsewhere = [decoded(nvidia, picture, [at], [-1])["pred_mask"] for at in ([0, 0], [99, 12])]
    np.testing.assert_array_equal(*elsewhere, "the place of a point that is none does not matter")


@pytest.mark.ci
def test_features_come_with_what_stands_for_no_memory(picture):
    np.testing.assert_allclose(picture["vision_feats"], picture["image_embeddings.2"], atol=1e-6)
    assert np.abs(picture["vision_feats"] - picture["pix_feat"]).max() > 0.1


@pytest.fixture(scope="module")
def memories(nvidia, picture):
    """Inputs of NVIDIA's memory attention: a conditioning frame 20 frames ago, and the two before this one."""
    rng = np.random.default_rng(0)
    dims = static_dims(predictor.config())
    features = rng.standard_normal((2, 3, dims["memory_size"], dims["grid"], dims["grid"]), np.float32)
    mask = np.zeros((1, 1, dims["image_size"], dims["image_size"]), np.float32)
    made = nvidia["memory_encoder"](
        {"mask_for_mem": mask, "pix_feat": picture["pix_feat"], "occ_logit": np.ones((1, 1), np.float32)}
    )
    codes = made["temporal_code"][[-1, 0, 1], 0]
    places = np.repeat((made["maskmem_pos_enc"] + codes).reshape(1, -1, dims["memory_size"]), 2, 0)
    rows = 3 * dims["hidden_size"] // dims["memory_size"]
    return {
        "current_vision_feat": picture["vision_feats"],
        "current_vision_pos_embed": picture["vision_pos_embed"],
        "memory_0": rng.standard_normal((2, 3, dims["hidden_size"]), np.float32),
        "memory_1": features,
        "memory_pos_embed": np.concatenate([places, np.zeros((2, rows, dims["memory_size"]), np.float32)], 1),
        "cond_frame_id_diff": np.array(20, np.float32),
    }


@pytest.mark.ci
def test_times_of_pointers_are_made_inside_by_fifteen_one_conditioning_frame_first(nvidia, meta, picture, memories):
    found = nvidia["memory_attention"](memories)["image_embed"]
    features = memories["memory_1"].reshape(*memories["memory_1"].shape[:3], -1).transpose(0, 1, 3, 2)
    expected = meta["memory_attention"](
        {
            "vision_features": picture["vision_features"],
            "memory_features": features,
            "memory_offsets": np.array([[0, 1, 2]] * 2, np.int64),
            "object_pointers": memories["memory_0"],
            "pointer_times": np.array([[20, 1, 2]] * 2, np.float32) / 15,
        }
    )["conditioned_features"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.ci
def test_the_tail_of_the_places_is_not_read_and_the_rest_is(nvidia, memories):
    found, other = memories["memory_pos_embed"], memories["memory_pos_embed"].copy()
    other[:, -3:] = 7
    expected = nvidia["memory_attention"](memories)["image_embed"]
    np.testing.assert_array_equal(
        nvidia["memory_attention"](memories | {"memory_pos_embed": other})["image_embed"], expected
    )
    assert (other[:, -3:] == 7).all() and (found[:, -3:] == 0).all(), "NVIDIA's code writes into its caller's tensor"
    other[:, :3] += 1
    changed = nvidia["memory_attention"](memories | {"memory_pos_embed": other})["image_embed"]
    assert np.abs(changed - expected).max() > 1e-4


@pytest.mark.ci
def test_the_temporal_code_is_the_table_itself(nvidia, picture):
    own = predictor.tensors("deepstream")["memory_encoder"]["memory_temporal_positional_encoding"]
    side = predictor.config()["image_size"]
    given = {"mask_for_mem": np.zeros((2, 1, side, side), np.float32), "occ_logit": np.ones((2, 1), np.float32)}
    made = nvidia["memory_encoder"](given | {"pix_feat": picture["pix_feat"]})
    np.testing.assert_array_equal(made["temporal_code"], own.numpy())
