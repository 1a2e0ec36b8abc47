"""Training of the click-and-track miniature: clips, prompts, and a network that is transformers' own."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from training.tracking import batches, clips, evaluate, learning, prompts
from training.tracking.network import Tracker
from training.tracking.train import CONFIG, TrainingOptions


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    torch.manual_seed(0)
    found = Tracker(json.loads(CONFIG.read_text())).eval()
    found.model.mask_decoder.dynamic_multimask_via_stability = False
    return found


def test_a_clip_is_the_same_again_whichever_frames_are_shown() -> None:
    whole = clips.draw(3, 5, range(10))
    some = clips.draw(3, 5, [7, 2])
    assert (some.frames == whole.frames[[7, 2]]).all()
    assert (some.masks == whole.masks[[7, 2]]).all()
    assert (clips.draw(3, 6, [0]).frames != whole.frames[0]).any()


def test_clips_move_their_shapes_hide_some_and_show_them_again() -> None:
    hidden = again = 0
    for number in range(24):
        clip = clips.draw(11, number, range(16))
        assert clip.visible[0].all()
        assert (clip.masks.sum(axis=1) <= 1).all()  # no pixel belongs to two
        for seen in clip.visible.T:
            hidden += not seen.all()
            again += bool((np.flatnonzero(~seen).size) and seen[np.flatnonzero(~seen)[-1] :].any())
    assert hidden >= 6
    assert again >= 3


def test_shapes_that_are_alike_have_one_colour_and_one_kind() -> None:
    for number in range(6):
        clip = clips.draw(11, number, [0], alike=True)
        inside = [cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0 for mask in clip.masks[0]]
        means = np.array([clip.frames[0][mask].mean(axis=0) for mask in inside])
        hues = [cv2.cvtColor(np.uint8([[mean]]), cv2.COLOR_RGB2HSV)[0, 0, 0].astype(int) for mean in means]
        assert np.ptp([(hue - hues[0] + 90) % 180 for hue in hues]) <= 12, hues
        assert (clip.frames != clips.draw(11, number, [0]).frames).any()


def test_a_correction_clicks_into_the_larger_error() -> None:
    wanted, found = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    wanted[2:10, 2:10] = True
    found[2:10, 2:6] = True
    found[15:17, 15:17] = True
    point, label = prompts.correction(wanted, found)
    assert label == prompts.FOREGROUND
    assert wanted[int(point[1]), int(point[0])]
    assert not found[int(point[1]), int(point[0])]
    found[10:20, 0:12] = True
    point, label = prompts.correction(wanted, found)
    assert label == prompts.BACKGROUND
    assert not wanted[int(point[1]), int(point[0])]
    assert prompts.box(wanted).tolist() == [2, 2, 10, 10]


def test_a_picture_is_segmented_as_by_transformers(tracker: Tracker) -> None:
    model, images = tracker.model, torch.randn(2, 3, batches.SIZE, batches.SIZE)
    points, labels = torch.rand(2, 1, 2) * batches.SIZE, torch.ones(2, 1)
    with torch.no_grad():
        levels, _ = tracker.encode(images)
        answer = tracker.decode(levels, tracker.without_memory(levels.coarse), points, labels)
        # One at a time: of several pictures, transformers mixes up which of the masks is the best one's.
        for i in range(2):
            expected = model._single_frame_forward(
                pixel_values=images[i : i + 1],
                input_points=points[i : i + 1, None],
                input_labels=labels[i : i + 1, None].int(),
                multimask_output=True,
            )
            # An absent object's mask and pointer are replaced there.
            assert expected.object_score_logits.item() > 0
            assert torch.allclose(answer.mask[i], expected.pred_masks.squeeze(), atol=1e-6)
            assert torch.allclose(answer.pointer[i], expected.object_pointer.squeeze(), atol=1e-6)
            assert torch.allclose(answer.present[i], expected.object_score_logits.squeeze(), atol=1e-6)


def test_memories_are_attended_to_as_by_transformers(tracker: Tracker) -> None:
    model, images = tracker.model, torch.randn(2, 3, batches.SIZE, batches.SIZE)

    class Session:
        dtype = torch.float32

    with torch.no_grad():
        levels, _ = tracker.encode(images)
        flat = levels.coarse.flatten(2).permute(2, 0, 1)
        sines = model.vision_encoder.neck.position_encoding((1, *levels.coarse.shape[1:]), "cpu", torch.float32)
        mask, pointer = torch.randn(2, 40, 40), torch.randn(2, levels.coarse.shape[1])
        memory = tracker.remember(levels.coarse, mask, torch.ones(2, 1), binary=True)
        attended = tracker.attend(levels.coarse, [(0, memory), (1, memory)], [(2, pointer), (1, pointer)], span=15)
        absent = tracker.remember(levels.coarse, torch.full_like(mask, -1024.0), torch.zeros(2, 1), binary=True)
        large = torch.nn.functional.interpolate(mask[:, None], (tracker.size, tracker.size), mode="bilinear")
        for row in range(2):
            one = flat[:, row : row + 1]
            features, places = model._encode_new_memory(one, large[row : row + 1], torch.ones(1, 1), True)
            # transformers keeps memories in BF16.
            assert torch.allclose(features[:, 0].float(), memory[row].flatten(1).T, atol=4e-3, rtol=8e-3)
            empty = torch.full_like(large[row : row + 1], -1024.0)
            features, _ = model._encode_new_memory(one, empty, -torch.ones(1, 1), True)
            assert torch.allclose(features[:, 0].float(), absent[row].flatten(1).T, atol=4e-3, rtol=8e-3)
            kept = {
                "maskmem_features": memory[row : row + 1].flatten(2).permute(2, 0, 1),
                "maskmem_pos_enc": places,
                "object_pointer": pointer[row : row + 1],
            }
            session = Session()
            session.output_dict_per_obj = [{"cond_frame_outputs": {0: kept}, "non_cond_frame_outputs": {1: kept}}]
            expected = model._prepare_memory_conditioned_features(
                session, 2, 0, False, one, sines.flatten(2).permute(2, 0, 1), 16
            )
            assert torch.allclose(attended[row], expected[0], atol=1e-5)


def test_a_clip_without_pointers_is_followed_by_memories_alone(tracker: Tracker) -> None:
    coarse, memory = torch.randn(2, 2, 128, 10, 10), torch.randn(2, 64, 10, 10)
    pointers = [torch.randn(2, 128), torch.randn(2, 128)]

    def features(pointer: torch.Tensor, *, pointing: bool) -> torch.Tensor:
        known = learning.Memory(tracker, 15, pointing=pointing)
        known._memories, known._pointers = [memory], [pointer]
        with torch.no_grad():
            return known.features(coarse[1])

    one, other = (features(pointer, pointing=False) for pointer in pointers)
    assert (one == other).all()
    one, other = (features(pointer, pointing=True) for pointer in pointers)
    assert (one != other).any()


def test_pictures_come_first_then_clips_that_grow_longer() -> None:
    options = TrainingOptions(CONFIG.parent, CONFIG, steps=100, clips_from=40, fall=20, stills=4, grow=10, longest=4)
    assert [options.frames(step) for step in (0, 39, 40, 41, 51, 61, 71, 99)] == [0, 0, 0, 2, 3, 4, 4, 4]
    assert options.rate(39) < options.rate(20) < options.peak * 0.05  # the rise is longer than that
    assert 0 < options.rate(99) < options.rate(70) < options.clip_peak


@pytest.mark.ci
def test_gradients_reach_every_weight_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "POINTING", 1.0)
    learner = learning.Learner(Tracker(json.loads(CONFIG.read_text())))
    rng = np.random.default_rng(0)
    loss, _ = learning.on_pictures(learner, batches.pictures(1, 0, 2, 2), rng)
    torch.autograd.backward(loss)
    for seed in range(1, 11):  # prompts by masks and by points
        loss, parts = learning.on_clips(learner, batches.videos(1, seed, 1, 3, 3), rng)
        torch.autograd.backward(loss)
        assert all(torch.isfinite(part) for part in parts.values())
    without = {name for name, weight in learner.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert without == {"tracker.model.no_memory_positional_encoding"}  # which no code of SAM 2 uses with these options


def test_the_evaluation_knows_a_right_answer_from_a_wrong_one(tracker: Tracker) -> None:
    numbers = evaluate.evaluate(tracker, pictures=2, videos=1)
    assert set(numbers) == set(evaluate.GOALS)
    assert all(row["iou"] < 0.5 for row in numbers.values())
