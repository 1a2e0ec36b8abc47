"""The layout `predictor` follows objects as transformers' Sam2VideoModel does, and as Meta's predictor did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import predictor
import pytest
import torch
from tracked_clip import CORRECTED, CORRECTION, keep_memories_in_fp32

from sam3_build.pipeline import tracking
from sam3_build.pipeline.interactive import clicks
from sam3_build.torch_modules import tracker

# Of logits whose deviation is about 1. FP32 sums in another order, over five frames.
LARGEST = 1e-4

# Meta's memories are rounded to bfloat16, and a last bit that is rounded the other way grows: to 8e-4 where what
# the encoder gives was disturbed by 1e-6. Memories that are not rounded at all differ by 2.4e-3 and more in every case.
METAS = 2e-3

RECORDED = Path(__file__).parents[2] / "recorded" / "sam2" / "meta.npz"


@pytest.fixture(scope="module")
def run():
    torch.set_num_threads(1)
    return predictor.networks()


@pytest.fixture(scope="module")
def frames(run):
    return predictor.encoded(run)


@pytest.fixture(scope="module")
def transformers():
    """Return transformers' model with the same weights."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel

    model = Sam2VideoModel(predictor.CODE.modules.sam2_config(predictor.config())).eval()
    own = {name: tensor for tensors in predictor.tensors().values() for name, tensor in tensors.items()}
    labels = [name for name in own if ".point_embed." in name]
    own |= {"prompt_encoder.point_embed.weight": torch.cat([own.pop(name) for name in labels])}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert (set(missing), unexpected) == ({"no_memory_positional_encoding"}, [])
    return model


def followed_by_transformers(model, prompts):
    """Return mask logits [frames, objects, h, w]; each call of its session has one object, as its batches go wrong."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    frames = torch.from_numpy(np.concatenate(predictor.pixels()))
    session = Sam2VideoInferenceSession(frames, video_height=120, video_width=160, dtype=torch.float32)
    side = predictor.config()["image_size"]
    scale = torch.tensor([side / 160, side / 120])
    for prompt in prompts:
        index = session.obj_id_to_idx(prompt.object)
        asked = torch.tensor(clicks(prompt))
        points, labels = asked[:, :2] * scale, asked[:, 2].int()
        inputs = {"point_coords": points[None, None], "point_labels": labels[None, None]}
        session.add_point_inputs(index, prompt.frame, inputs)
        session.obj_with_new_inputs = [prompt.object]
        with torch.no_grad():
            model(session, frame_idx=prompt.frame)
    masks = {}
    with torch.no_grad():
        for output in model.propagate_in_video_iterator(session):
            masks[output.frame_idx] = output.pred_masks[:, 0].numpy()
    return masks


@pytest.mark.ci
@pytest.mark.parametrize("case", ["points", "box", "several_frames"])
def test_masks_are_those_of_transformers_where_neither_rounds_memories(
    case, run, frames, transformers, tmp_path, monkeypatch
):
    keep_memories_in_fp32(monkeypatch)
    prompts = predictor.PROMPTS[case]
    found = tracking.track(run, predictor.given(prompts, tmp_path), frames)
    expected = followed_by_transformers(transformers, prompts)
    assert (found["visible"][min(expected) :] > 0).all(), "hidden objects would pass any comparison"
    apart = {frame: np.abs(found["masks"][frame] - masks).max() for frame, masks in expected.items()}
    assert len(apart) == len(frames) - min(p.frame for p in prompts) and max(apart.values()) <= LARGEST, apart


@pytest.mark.ci
@pytest.mark.parametrize("case", predictor.PROMPTS)
def test_a_clip_is_followed_as_metas_predictor_follows_it(case, run, frames, tmp_path):
    prompts = predictor.PROMPTS[case]
    found = tracking.track(run, predictor.given(prompts, tmp_path), frames)
    require_metas(case, found["masks"])


@pytest.mark.ci
def test_a_frame_that_was_followed_is_corrected_as_metas_predictor_does(run, frames, tmp_path):
    """With its defaults: that frame fades as any other."""
    prompts = predictor.PROMPTS[CORRECTED]
    require_metas("corrected", predictor.OWN.corrected(run, frames, prompts, CORRECTION, tmp_path))


def require_metas(case, found):
    with np.load(RECORDED) as recorded:
        expected = recorded[f"{case}/masks"]
    masks = found[len(found) - len(expected) :, ..., ::2, ::2]
    assert masks.shape == expected.shape
    flipped = ((masks > 0) != (expected > 0)).sum((2, 3))
    apart = np.abs(masks - expected).max((1, 2, 3))
    # A logit this near to 0 may fall on either side of it.
    assert apart.max() <= METAS and flipped.max() <= 1, (apart, flipped)


@pytest.mark.ci
def test_the_mask_that_is_taken_has_the_largest_choice_score(run, frames, monkeypatch):
    """Meta's rule: the best of three where several objects may be meant, else the first if it is stable, or empty."""
    side, rows = frames[0]["image_embeddings.0"].shape[-1], 5
    masks = torch.full((rows, 4, side, side), 4.0) + torch.arange(4.0)[:, None, None]
    masks[1:3, 0, 0, :] = 0  # of 1024 cells these are no more certain than the stability asks for: 0.969 of 0.98
    masks[3, 0] = -4
    scores = torch.tensor([[0.9, 0.5, 0.7, 0.6]]).repeat(rows, 1)
    several = np.array([False, False, True, False, True])
    tokens = torch.zeros(rows, 4, 128)
    monkeypatch.setattr(tracker, "candidates", lambda *_: (masks, scores, tokens, torch.ones(rows, 1)))
    found = run["mask_decoder"](
        {
            "image_embeddings.0": frames[0]["image_embeddings.0"],
            "image_embeddings.1": frames[0]["image_embeddings.1"],
            "conditioned_features": frames[0]["image_embeddings.2"].repeat(rows, 0),
            "input_points": np.zeros((rows, 1, 2), np.float32),
            "input_labels": np.ones((rows, 1), np.int64),
            "input_masks": np.zeros((rows, side, side), np.float32),
            "has_masks": np.zeros(rows, np.bool_),
            "multimask": several,
        }
    )
    taken = found["choice_scores"].argmax(1)
    assert taken.tolist() == [0, 2, 2, 0, 2]
    assert (found["pred_masks"] == masks.numpy()[np.arange(rows), taken]).all()
    assert found["iou_scores"][:, 0].tolist() == scores.numpy()[np.arange(rows), taken].tolist()
    lead = found["choice_scores"][:, 0] - np.float32(0.7)
    assert lead == pytest.approx([1 - 0.98, 1 - 1 / side - 0.98, -1, 1, -1], abs=1e-6)
    assert (found["choice_scores"][:, 1:] == scores.numpy()[:, 1:]).all()
