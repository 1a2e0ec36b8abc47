"""Objects are followed frame by frame as transformers' Sam3TrackerVideoModel follows them, with memories in FP32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from miniature import ROOT
from tracked_clip import CIRCLE, PROMPTS, SQUARE, STAR, keep_memories_in_fp32
from video_model import OWN, Session, transformers_model

from sam3_build.families.sam3_video.loops import Sam3Tracker, track
from sam3_build.pipeline.predictor_cases import ObjectPrompt
from sam3_build.pipeline.prompts import Point

pytestmark = pytest.mark.ci  # networks in PyTorch, and frames through them

RECORDED = ROOT / "tests" / "recorded" / "sam3_video" / "transformers.npz"

# FP32 sums in another order: of logits whose deviation is about 1 the worst seen was 6e-6.
LARGEST, VISIBLE = 1e-4, 1e-5


@pytest.fixture(autouse=True)
def memories_in_fp32(monkeypatch):
    keep_memories_in_fp32(monkeypatch)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return transformers_model()


@pytest.fixture(scope="module")
def run():
    return OWN.networks()


@pytest.fixture(scope="module")
def frames(run):
    return OWN.encoded(run)


def require_equal(found, expected):
    """found, expected: frame -> masks and visible, in the order of objects."""
    assert found.keys() == expected.keys() and expected
    for frame, (masks, visible) in expected.items():
        own_masks, own_visible = found[frame]
        assert own_masks.shape == masks.shape
        flipped = ((own_masks > 0) != (masks > 0)).sum((1, 2))
        assert np.abs(own_masks - masks).max() <= LARGEST and flipped.max() <= 1, (frame, flipped)
        assert np.abs(own_visible - visible).max() <= VISIBLE, frame


def answered(answers, ids):
    masks, visible = (np.stack([answers[i][name] for i in ids]) for name in ("pred_masks", "object_score_logits"))
    return masks, visible[:, 0]


def of_loop(arrays, since=0):
    return {t: (arrays["masks"][t], arrays["visible"][t]) for t in range(since, len(arrays["masks"]))}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_clip(case, run, frames, model, tmp_path):
    prompts = PROMPTS[case]
    session = Session(model)
    session.prompt(prompts)
    expected = session.follow()
    require_equal(of_loop(track(run, OWN.given(prompts, tmp_path), frames)), expected)
    assert min(visible.min() for _, visible in expected.values()) > 0, "hidden objects would pass any comparison"


@pytest.mark.parametrize("case", PROMPTS)
def test_a_clip_as_it_was_recorded(case, run, frames, tmp_path):
    """Recorded by tests/recorded/sam3_video/record.py."""
    arrays = track(run, OWN.given(PROMPTS[case], tmp_path), frames)
    with np.load(RECORDED) as recorded:
        masks, visible = recorded[f"{case}/masks"], recorded[f"{case}/visible"]
    expected = {t: (masks[t], visible[t]) for t in range(len(frames))}
    require_equal({t: (own[:, ::2, ::2], seen) for t, (own, seen) in of_loop(arrays).items()}, expected)


def test_in_reverse(run, frames, model, tmp_path):
    session = Session(model)
    session.prompt([ObjectPrompt(4, 1, (Point(1, 60, 44),)), ObjectPrompt(4, 2, (SQUARE, STAR))])
    expected = session.follow(start_frame_idx=4, reverse=True)
    prompts = [ObjectPrompt(0, 1, (Point(1, 60, 44),)), ObjectPrompt(0, 2, (SQUARE, STAR))]
    found = of_loop(track(run, OWN.given(prompts, tmp_path), frames[::-1]))
    require_equal({4 - t: own for t, own in found.items()}, expected)


def test_a_stream_in_which_an_object_appears(run, frames, model, tmp_path):
    """Where a call has a prompt, the memories of all objects are binarized, as transformers' one flag has it."""
    session, tracker = Session(model, video=False), Sam3Tracker(run)
    later = {0: [ObjectPrompt(0, 1, (STAR,))], 2: [ObjectPrompt(2, 2, boxes=(CIRCLE,))]}
    found, expected, ids = {}, {}, []
    for t, frame in enumerate(frames):
        prompts = later.get(t, [])
        ids += [prompt.object for prompt in prompts]
        answers = dict(tracker.ask(t, frame, OWN.given(prompts, tmp_path))) if prompts else {}
        found[t] = answered({**tracker.follow(t, frame), **answers}, ids)
        session.add(t, prompts)
        expected[t] = session.run(t)
    require_equal(found, expected)


def test_a_click_on_a_frame_that_was_followed(run, frames, model, tmp_path):
    session, tracker = Session(model), Sam3Tracker(run, len(frames))
    first, click = PROMPTS["points"], [ObjectPrompt(2, 1, (Point(0, 99, 96), STAR))]
    session.prompt(first)
    expected = session.follow(max_frame_num_to_track=2)
    session.add(2, click)
    expected[2] = session.run(2)
    expected |= session.follow(start_frame_idx=3)
    tracker.ask(0, frames[0], OWN.given(first, tmp_path))
    found = {0: expected[0]}
    for t in range(1, len(frames)):
        answers = tracker.follow(t, frames[t])
        if t == 2:
            answers = tracker.ask(t, frames[t], OWN.given(click, tmp_path))
        found[t] = answered(answers, [1, 2])
    require_equal(found, expected)


@pytest.mark.parametrize("read", [2, 4])
def test_more_frames_with_prompts_than_are_read(read, run, frames, model, tmp_path, monkeypatch):
    """Of the others pointers are read, and their memories as those of frames without prompts."""
    prompts = [ObjectPrompt(t, 1, (Point(1, 30 + 6 * t, 44),)) for t in (0, 1, 3)] + [ObjectPrompt(2, 2, (SQUARE,))]
    monkeypatch.setattr(Sam3Tracker, "PROMPTED", read)
    monkeypatch.setattr(model.config, "max_cond_frame_num", read)
    session = Session(model)
    session.prompt(prompts)
    require_equal(of_loop(track(run, OWN.given(prompts, tmp_path), frames)), session.follow())


def test_hidden_objects(frames, model, tmp_path, monkeypatch):
    """An object that is given by a mask, and hidden from the next frame on; and one that is hidden throughout."""
    head = model.mask_decoder.pred_obj_score_head.proj_out
    monkeypatch.setattr(head, "bias", torch.nn.Parameter(head.bias - 7))

    hidden = OWN.networks(
        others={"mask_decoder": {"mask_decoder.pred_obj_score_head.proj_out.bias": head.bias.detach()}}
    )
    prompts = PROMPTS["mask"]
    session = Session(model)
    session.prompt(prompts)
    expected = session.follow()
    require_equal(of_loop(track(hidden, OWN.given(prompts, tmp_path), frames)), expected)
    assert [visible[0] > 0 for _, visible in expected.values()] == [True, False, False, False, False]
