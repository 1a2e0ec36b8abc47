"""Which detections of words become objects, and which objects are kept: rule by rule, and against transformers'."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Sam3VideoConfig
from transformers.models.sam3_video.processing_sam3_video import Sam3VideoProcessor

from sam3_build.errors import BuildError
from sam3_build.pipeline.association import Detections, Matches, Objects, associate, detections, within_limit
from sam3_build.pipeline.hotstart import Hotstart
from sam3_build.pipeline.overlaps import ALWAYS, HIDDEN, NEVER, apart, recently_hidden, without_shrunk
from sam3_build.pipeline.postprocess import mended
from sam3_build.pipeline.word_settings import WordSettings
from tests.transformers_words import like_a_model, theirs, with_kernels

USUAL = WordSettings()
SIDE = 10


def strip(*rows: range) -> np.ndarray:
    """Return logits [n, SIDE, SIDE]: 1 in these rows of each mask, else -1."""
    masks = np.full((len(rows), SIDE, SIDE), -1, np.float32)
    for mask, own in zip(masks, rows, strict=True):
        mask[list(own)] = 1
    return masks


def found(*rows: range, scores: Any = 0.9, texts: Any = 0) -> Detections:
    count = len(rows)
    return Detections(strip(*rows), np.full(count, scores, np.float32), np.full(count, texts, np.int64))


def objects(*rows: range, texts: Any = 0) -> Objects:
    return Objects(range(10, 10 + len(rows)), strip(*rows), np.full(len(rows), texts, np.int64))


def blobs(seed: int, count: int, side: int = 12) -> np.ndarray:
    """Return logits [count, side, side] of boxes that overlap, some of them empty."""
    rng = np.random.default_rng(seed)
    masks = rng.normal(-2, 0.5, (count, side, side)).astype(np.float32)
    for mask in masks:
        top, left = rng.integers(0, side // 2, 2)
        high, wide = rng.integers(0, side, 2)
        mask[top : top + high, left : left + wide] += 4
    return masks


# ------------------------------------------------------------------ settings


def test_settings_are_transformers_defaults() -> None:
    config = Sam3VideoConfig()
    assert asdict(USUAL) == {name: getattr(config, name) for name in asdict(USUAL)}
    assert WordSettings.of({"hotstart_delay": 20, "unknown": 3}) == replace(USUAL, hotstart_delay=20)


def test_settings_survive_as_an_array() -> None:
    other = replace(USUAL, recondition_on_trk_masks=False, det_nms_thresh=0.25, min_trk_keep_alive=-7)
    assert WordSettings.of_array(other.array()) == other


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hotstart_delay": "15"}, "model config: hotstart_delay is '15', where 15 is usual"),
        ({"hotstart_delay": 1.5}, "hotstart_delay is 1.5"),
        ({"recondition_on_trk_masks": 1}, "recondition_on_trk_masks is 1, where True is usual"),
        ({"fill_hole_area": True}, "fill_hole_area is True"),
        ({"hotstart_unmatch_thresh": 16}, "hotstart_unmatch_thresh is 16, and hotstart_delay 15"),
        ({"hotstart_dup_thresh": 16}, "hotstart_dup_thresh is 16, and hotstart_delay 15"),
    ],
)
def test_settings_that_are_wrong_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        WordSettings.of(config)


# ------------------------------------------------------------------ detections


def decoded(scores: list[float], *rows: range, presence: float = 100.0) -> dict[str, np.ndarray]:
    values = np.array(scores, np.float32)
    logits = np.log(values) - np.log1p(-values)
    presences = np.array([[presence]], np.float32)
    return {"pred_masks": strip(*rows)[None], "pred_logits": logits[None], "presence_logits": presences}


def test_a_detection_scores_above_the_threshold_with_its_presence() -> None:
    outputs = decoded([0.9, 0.4], range(2), range(5, 7))
    assert detections(outputs, 3, USUAL).texts.tolist() == [3]
    np.testing.assert_allclose(detections(outputs, 3, USUAL).scores, [0.9], atol=1e-6)
    assert len(detections({**outputs, "presence_logits": np.zeros((1, 1), np.float32)}, 0, USUAL).scores) == 0


def test_of_detections_that_overlap_the_best_stays() -> None:
    outputs = decoded([0.8, 0.9, 0.7], range(4), range(4), range(6, 9))
    np.testing.assert_allclose(detections(outputs, 0, USUAL).scores, [0.9, 0.7], atol=1e-6)
    off = replace(USUAL, det_nms_thresh=0.0)
    np.testing.assert_allclose(detections(outputs, 0, off).scores, [0.8, 0.9, 0.7], atol=1e-6)


def test_nms_keeps_what_transformers_keeps_with_its_kernel() -> None:
    counts = set()
    for seed in range(30):
        rng, masks = np.random.default_rng(seed), blobs(seed, 12)
        logits = rng.normal(1, 2, (1, 12)).astype(np.float32)
        outputs = {"pred_masks": masks[None], "pred_logits": logits, "presence_logits": np.full((1, 1), 30, np.float32)}
        probabilities = torch.from_numpy(logits[0]).sigmoid()
        with with_kernels():
            keep = theirs.nms_masks(probabilities, torch.from_numpy(masks), 0.5, 0.1)
        ours = detections(outputs, 0, USUAL)
        np.testing.assert_array_equal(ours.masks, masks[keep.numpy()])
        counts.add(len(ours.scores))
    assert len(counts) > 2


def test_detections_of_several_texts_are_joined_and_may_be_none() -> None:
    parts = [found(range(2), texts=0), found(range(2), range(4), texts=1)]
    assert Detections.joined(parts, SIDE).texts.tolist() == [0, 1, 1]
    assert Detections.joined([], SIDE).masks.shape == (0, SIDE, SIDE)


# ------------------------------------------------------------------ association


def test_while_nothing_is_followed_all_detections_are_new() -> None:
    assert associate(found(range(2), range(3), scores=0.51), objects(), USUAL) == Matches((0, 1), {}, (), (), {})


def test_a_detection_is_an_object_from_one_iou_on_and_the_object_is_matched_from_another() -> None:
    # 1 of 9 rows, 4 of 8 rows, and none
    matches = associate(found(range(5)), objects(range(4, 9), range(1, 5), range(8, 9)), USUAL)
    assert matches.matched == {0: (10, 11)}
    assert matches.unmatched == (10, 12), "an IoU of 0.11 does not match the object, though it is no new one"
    assert matches.new == ()


@pytest.mark.parametrize(("score", "new"), [(0.71, (0,)), (0.69, ())])
def test_a_detection_becomes_an_object_from_a_score_on(score: float, new: tuple[int, ...]) -> None:
    assert associate(found(range(2), scores=score), objects(range(5, 9)), USUAL).new == new


def test_detections_of_one_text_are_no_objects_of_another() -> None:
    matches = associate(found(range(3), texts=1), objects(range(3), texts=0), USUAL)
    assert (matches.new, matches.unmatched, matches.matched) == ((0,), (10,), {0: ()})


def test_an_object_without_pixels_is_not_unmatched() -> None:
    for seen in (found(range(3)), found()):
        matches = associate(seen, objects(range(0), range(7, 9)), USUAL)
        assert (matches.empty, matches.unmatched) == ((10,), (11,))


@pytest.mark.parametrize(
    ("rows", "score", "confirmed"),
    [(range(5), 0.81, {10: 0}), (range(5), 0.79, {}), (range(4), 0.81, {10: 0}), (range(3), 0.9, {})],
)
def test_an_object_is_confirmed_by_a_sure_detection_that_fits(rows: range, score: float, confirmed: dict) -> None:
    assert associate(found(rows, scores=score), objects(range(5), range(8, 9)), USUAL).confirmed == confirmed


def test_what_becomes_an_object_of_its_own_confirms_no_other() -> None:
    loose = replace(USUAL, assoc_iou_thresh=0.3, high_iou_thresh=0.1)
    matches = associate(found(range(5)), objects(range(4, 9)), loose)
    assert (matches.new, matches.confirmed) == ((0,), {})


def test_of_too_many_new_detections_the_best_stay() -> None:
    scores = np.array([0.9, 0.5, 0.8, 0.7], np.float32)
    assert within_limit((1, 2, 3), scores, 5, 8) == (1, 2, 3)
    assert within_limit((1, 2, 3), scores, 5, 7) == (2, 3)
    assert within_limit((1, 2, 3), scores, 9, 7) == ()


def test_association_is_transformers() -> None:
    settings = replace(USUAL, high_iou_thresh=0.4)
    kinds = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, m = rng.integers(0, 7, 2)
        ours = Detections(
            blobs(seed, n), rng.uniform(0.5, 1, n).astype(np.float32), rng.integers(0, 2, n).astype(np.int64)
        )
        tracked = Objects(
            rng.permutation(20)[:m].tolist(), blobs(seed + 1000, m), rng.integers(0, 2, m).astype(np.int64)
        )
        given = [torch.from_numpy(a) for a in (ours.masks, ours.scores, tracked.masks, ours.texts, tracked.texts)]
        expected = theirs.Sam3VideoModel._associate_det_trk(like_a_model(settings), *given[:3], tracked.ids, *given[3:])
        new, unmatched, matched, confirmed, empty = expected
        matches = associate(ours, tracked, settings)
        assert matches == Matches(
            tuple(new), {i: tuple(ids) for i, ids in matched.items()}, tuple(unmatched), tuple(empty), confirmed
        )
        kinds |= {name for name, value in asdict(matches).items() if value}
    assert kinds == {"new", "matched", "unmatched", "empty", "confirmed"}


# ------------------------------------------------------------------ hotstart


def frame(new: tuple[int, ...] = (), matched: Any = (), unmatched: tuple[int, ...] = (), empty: Any = ()) -> Matches:
    return Matches(new, dict(enumerate(matched)), unmatched, empty, {})


SHORT = replace(USUAL, hotstart_delay=4, hotstart_unmatch_thresh=2, hotstart_dup_thresh=2)


def ran(settings: WordSettings, *frames: Matches, new: tuple[int, ...] = (1, 2), removes: bool = True) -> list[Any]:
    """Return what each frame removes and hides; the objects `new` are found in the first one."""
    hotstart = Hotstart(settings, removes)
    hotstart.update(0, frame(new), new)
    return [hotstart.update(position, matches, ()) for position, matches in enumerate(frames, start=1)]


def test_an_object_without_a_match_is_removed_while_it_is_young() -> None:
    lost = frame(unmatched=(1,))
    assert ran(SHORT, lost, lost, lost) == [(set(), set()), ({1}, set()), (set(), set())]
    # The first frame of an object of age 4 is no longer within the delay.
    assert ran(SHORT, frame(), lost, frame(), lost) == [(set(), set())] * 4
    assert ran(SHORT, lost, frame(), lost)[2] == ({1}, set()), "frames without a match need not follow each other"


def test_an_object_that_is_an_older_one_is_removed() -> None:
    both = frame(matched=((2, 3),))
    hotstart = Hotstart(SHORT)
    hotstart.update(0, frame(), (3,))
    hotstart.update(1, frame(), (2,))
    assert hotstart.update(2, both, ()) == (set(), set())
    assert hotstart.update(3, both, ()) == ({2}, set()), "the younger of the two, whatever its number"
    assert hotstart.removed == {2}
    assert hotstart.update(4, both, ()) == (set(), set())


def test_duplicates_that_are_no_longer_young_stay() -> None:
    both = frame(matched=((1, 2),))
    assert ran(SHORT, frame(), frame(), both, both) == [(set(), set())] * 4


def test_a_stream_removes_nothing() -> None:
    lost = frame(matched=((1, 2),), unmatched=(1,))
    assert (
        ran(
            replace(SHORT, suppress_unmatched_only_within_hotstart=False, init_trk_keep_alive=1),
            lost,
            lost,
            removes=False,
        )
        == [(set(), set())] * 2
    )


FADING = replace(
    SHORT,
    suppress_unmatched_only_within_hotstart=False,
    init_trk_keep_alive=2,
    max_trk_keep_alive=3,
    hotstart_unmatch_thresh=4,
    hotstart_dup_thresh=4,
)


def test_an_object_without_matches_is_hidden_until_it_has_some() -> None:
    lost, seen = frame(unmatched=(1,)), frame(matched=((1,),))
    hidden = [hides for _, hides in ran(replace(FADING, hotstart_delay=0), lost, lost, lost, lost, seen, seen)]
    # 2 -> 1, 0, -1, -1 (no lower), 0, 1
    assert hidden == [set(), {1}, {1}, {1}, {1}, set()]
    only = replace(FADING, hotstart_delay=0, suppress_unmatched_only_within_hotstart=True)
    assert ran(only, lost, lost, lost) == [(set(), set())] * 3


def test_matches_count_up_to_a_limit() -> None:
    lost, seen = frame(unmatched=(1,)), frame(matched=((1,),))
    hidden = [hides for _, hides in ran(replace(FADING, hotstart_delay=0), *[seen] * 5, lost, lost, lost)]
    assert hidden == [set()] * 7 + [{1}]


def test_frames_with_an_empty_mask_count_where_that_is_asked_for() -> None:
    lost, empty = frame(unmatched=(1,)), frame(empty=(1,))
    for asked, hides in ((False, set()), (True, {1})):
        settings = replace(FADING, hotstart_delay=0, decrease_trk_keep_alive_for_empty_masklets=asked)
        assert ran(settings, lost, empty)[1] == (set(), hides)


@pytest.mark.parametrize("streaming", [False, True])
def test_hotstart_is_transformers(streaming: bool) -> None:
    settings = replace(
        FADING,
        hotstart_unmatch_thresh=3,
        hotstart_dup_thresh=2,
        init_trk_keep_alive=1,
        decrease_trk_keep_alive_for_empty_masklets=True,
    )
    removed, suppressed = 0, 0
    for seed in range(40):
        rng, ours = np.random.default_rng(seed), Hotstart(settings, removes=not streaming)
        state: dict[str, Any] = {
            "obj_first_frame_idx": {},
            "unmatched_frame_inds": defaultdict(list),
            "trk_keep_alive": {},
            "overlap_pair_to_frame_inds": defaultdict(list),
            "removed_obj_ids": set(),
            "suppressed_obj_ids": defaultdict(set),
        }
        alive: list[int] = []
        for position in range(10):
            new = [position * 10 + i for i in range(rng.integers(0, 3))]
            kinds = {which: rng.integers(0, 4) for which in alive}
            unmatched = [which for which, kind in kinds.items() if kind == 0]
            empty = [which for which, kind in kinds.items() if kind == 1]
            seen = [which for which, kind in kinds.items() if kind > 1]
            matched = {0: seen[::2], 1: seen[1::2]}
            gone, state = theirs.Sam3VideoModel._process_hotstart(
                like_a_model(settings), None, position, False, matched, new, empty, unmatched, state, streaming
            )
            matches = frame(matched=[tuple(ids) for ids in matched.values()], unmatched=tuple(unmatched), empty=empty)
            hidden = state["suppressed_obj_ids"][position]
            assert ours.update(position, matches, new) == (gone, hidden)
            alive = [which for which in (*alive, *new) if which not in gone]
            removed, suppressed = removed + len(gone), suppressed + len(hidden)
        assert ours.removed == state["removed_obj_ids"]
    assert (removed > 20, suppressed > 20) == (not streaming, not streaming)


# ------------------------------------------------------------------ overlaps


def hidden_again(last: list[int], texts: Any = 0, iou: float = 0.7) -> list[bool]:
    masks = strip(range(5), range(4), range(7, 9)) > 0
    return recently_hidden(masks, np.full(3, texts, np.int64), np.array(last, np.int64), iou).tolist()


def test_of_two_that_were_hidden_the_one_hidden_last_is_hidden_again() -> None:
    assert hidden_again([3, 5, 7]) == [False, True, False]
    assert hidden_again([5, 3, 7]) == [True, False, False]
    assert hidden_again([5, 5, 7]) == [False, False, False]
    assert hidden_again([ALWAYS, 3, 7]) == [True, False, False]


def test_what_was_never_hidden_hides_nothing() -> None:
    assert hidden_again([3, NEVER, 2]) == [False, False, False]


def test_what_overlaps_less_or_is_of_another_text_hides_nothing() -> None:
    assert hidden_again([3, 5, 7], iou=0.81) == [False, False, False]
    assert hidden_again([3, 5, 7], texts=[0, 1, 0]) == [False, False, False]


def test_what_loses_its_pixels_gives_way() -> None:
    masks = strip(range(10), range(4), range(4, 10)) * np.array([2, 1, 3], np.float32)[:, None, None]
    after = without_shrunk(masks, np.zeros(3, np.int64))
    np.testing.assert_array_equal(after[[0, 2]], masks[[0, 2]])  # 4 of 10 rows are left
    assert (after[1] == HIDDEN).all()
    np.testing.assert_array_equal(without_shrunk(masks, np.array([0, 1, 2])), masks)


def test_shown_masks_do_not_overlap_within_a_text() -> None:
    masks, scores = strip(range(6), range(4, 8)) > 0, np.array([0.4, 0.6], np.float32)
    first, second = apart(masks, np.zeros(2, np.int64), scores)
    assert (first.any(1).tolist(), second.any(1).tolist()) == (
        [row < 4 for row in range(SIDE)],
        [4 <= row < 8 for row in range(SIDE)],
    )
    np.testing.assert_array_equal(apart(masks, np.arange(2), scores), masks)


def test_overlaps_are_transformers() -> None:
    changed = defaultdict(int)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        masks, texts, last = blobs(seed, 6), rng.integers(0, 2, 6), rng.integers(-1, 3, 6)
        model = like_a_model(replace(USUAL, suppress_overlapping_based_on_recent_occlusion_threshold=0.3))
        suppressed = torch.zeros(6, dtype=torch.bool)
        for text in range(2):
            group = torch.from_numpy(np.flatnonzero(texts == text))
            suppressed[group] = model._get_objects_to_suppress_based_on_most_recently_occluded(
                torch.from_numpy(masks)[group] > 0, torch.from_numpy(last)[group], group.tolist()
            )
        ours = recently_hidden(masks > 0, texts, last, 0.3)
        np.testing.assert_array_equal(ours, suppressed.numpy())
        shrunk = theirs.Sam3VideoModel._suppress_object_pw_area_shrinkage(
            model, torch.from_numpy(masks)[:, None], texts.tolist()
        )
        np.testing.assert_array_equal(without_shrunk(masks, texts), shrunk[:, 0].numpy())
        scores = rng.uniform(0.1, 1, 6).astype(np.float32)
        processor = Sam3VideoProcessor.__new__(Sam3VideoProcessor)
        shown = processor._apply_object_wise_non_overlapping_constraints(
            torch.from_numpy(masks > 0)[:, None], torch.from_numpy(scores)[:, None], 0, texts.tolist()
        )
        np.testing.assert_array_equal(apart(masks > 0, texts, scores), shown[:, 0].numpy() > 0)
        changed["hidden"] += ours.sum()
        changed["shrunk"] += int((shrunk[:, 0].numpy() != masks).any((1, 2)).sum())
        changed["apart"] += int(((shown[:, 0].numpy() > 0) != (masks > 0)).any((1, 2)).sum())
    assert min(changed.values()) > 10


# ------------------------------------------------------------------ holes and specks


def test_small_holes_and_specks_go_and_large_ones_stay() -> None:
    logits = np.full((20, 20), -1, np.float32)
    logits[2:18, 2:12] = 1
    logits[4:6, 4:6] = logits[9:14, 4:7] = -1  # holes of 4 and of 15 pixels
    logits[0, 15] = logits[1, 16] = 1  # a speck of 2, joined by a corner
    logits[10:14, 15:18] = 1  # one of 12
    after = mended(logits, 4)
    assert (after[4:6, 4:6] == np.float32(0.1)).all() and (after[9:14, 4:7] == -1).all()
    assert after[0, 15] == after[1, 16] == np.float32(-0.1) and (after[10:14, 15:18] == 1).all()
    assert ((after > 0) != (logits > 0)).sum() == 6
    np.testing.assert_array_equal(mended(logits, 0), logits)


def test_a_small_object_is_no_speck() -> None:
    logits = np.full((20, 20), -1, np.float32)
    logits[3:5, 3:5] = 1
    np.testing.assert_array_equal(mended(logits, 16), logits)


def test_holes_and_specks_are_transformers_with_its_kernel() -> None:
    changed = 0
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(-0.2, 1, (15, 21)).astype(np.float32)
        with with_kernels():
            expected = theirs.fill_holes_in_mask_scores(torch.from_numpy(logits)[None, None], 8)[0, 0].numpy()
        np.testing.assert_array_equal(mended(logits, 8), expected)
        changed += int(((expected > 0) != (logits > 0)).sum())
    assert changed > 100
