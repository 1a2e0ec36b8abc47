"""`Model.track`: prompts are added to a clip or a stream, which gives its frames; equal to the loop of verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import predictor
import pytest
import torch
from PIL import Image
from tracked_clip import keep_memories_in_fp32

from sam3_build.errors import BuildError
from sam3_build.model_format import ModelComponent
from sam3_build.pipeline import tracking
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.interactive import clicks
from sam3_build.runtime.clip import frames_of
from sam3_build.runtime.open_clip import OpenClip
from sam3_build.runtime.track import Track
from sam3_build.spec import Loop, Step

pytestmark = pytest.mark.ci  # networks in PyTorch, and frames through them

FOLDER = predictor.CLIP[0].parent
STAR, SQUARE = [[30, 44]], [[99, 96]]
CIRCLE = [[82, 20, 116, 54]]


class InPyTorch(OpenClip):
    """The pipeline on PyTorch's modules in the place of built files."""

    def __init__(self, run):
        family = predictor.CODE.family.laid_out("predictor")
        pipeline = family.pipeline("video")
        self._networks = self._in_loop = run
        self._components = {c.name: ModelComponent(c.name, c.inputs, c.outputs) for c in family.components}
        self._steps = [step for step in pipeline.steps if isinstance(step, Step)]
        (self._loop,) = (step for step in pipeline.steps if isinstance(step, Loop))
        self._code, self._host, self._kind = predictor.CODE, predictor.CODE.prompts, pipeline.prompts
        self._request = PromptRequest("predictor", "video", "meta", (), None, {}, predictor.config())
        self._threshold = 0.5


@pytest.fixture(scope="module")
def opened():
    torch.set_num_threads(1)
    return InPyTorch(predictor.networks())


def track(opened, video=FOLDER, reverse=False):
    return Track(opened, frames_of(video, reverse))


def test_a_clip_is_followed_as_the_loop_does_to_the_last_bit(opened, tmp_path):
    frames = predictor.encoded(opened._networks)
    prompts = predictor.PROMPTS["several_frames"]
    arrays = tracking.track(opened._networks, predictor.given(prompts, tmp_path), frames)
    expected = predictor.CODE.results.find(arrays, (120, 160), 0.5)
    clip = track(opened)
    assert clip.add(0, points=STAR) == 1
    assert clip.add(2, points=SQUARE) == 2
    assert clip.add(3, object=1, points=[[48, 44]]) == 1
    found = list(clip)
    assert [frame.index for frame in found] == list(range(len(frames)))
    for t, frame in enumerate(found):
        assert frame.ids.tolist() == [1, 2]
        seen = expected.visible[t]
        assert frame.visible.tolist() == seen.tolist()
        assert (frame.masks[seen] == expected.masks[t][seen]).all()
        assert not frame.masks[~seen].any()
        assert frame.scores.tolist() == expected.scores[t].tolist()
    assert expected.visible.any()


def test_masks_and_a_clip_in_reverse(opened, tmp_path):
    Image.fromarray(predictor.square()).save(tmp_path / "square.png")
    clip = track(opened, reverse=True)
    clip.add(0, mask=tmp_path / "square.png")
    frame = next(iter(clip))
    assert (np.asarray(Image.open(predictor.CLIP[-1]).convert("RGB")) == frame.picture).all()
    # The mask itself is the answer, at the resolution of the network's masks.
    inside = predictor.square()
    assert (frame.masks[0] & inside).sum() / (frame.masks[0] | inside).sum() > 0.8
    with pytest.raises(BuildError, match="a stream cannot be followed in reverse"):
        frames_of(iter([]), reverse=True)


def test_a_stream_knows_nothing_ahead_and_counts_as_long(opened):
    def camera():
        yield from (np.asarray(Image.open(file).convert("RGB")) for file in predictor.CLIP)

    clip = track(opened, camera())
    clip.add(1, points=STAR)
    found = list(clip)
    assert not found[0].visible.any()
    assert len(found) == len(predictor.CLIP)
    late = track(opened, camera())
    late.add(0, points=STAR)
    late.add(9, points=SQUARE)
    with pytest.raises(BuildError, match="the clip ends after 5 frames; object 2 is prompted on frame 9"):
        list(late)


def test_objects_are_added_corrected_and_removed_midway(opened):
    clip = track(opened)
    star = clip.add(0, points=STAR)
    frames = iter(clip)
    next(frames)
    before = next(frames)
    assert clip.add(1, object=star, points=SQUARE, point_labels=[0]) == star
    assert clip.frame.index == 1
    assert (clip.frame.masks != before.masks).any()
    circle = clip.add(1, boxes=CIRCLE)
    assert clip.frame.ids.tolist() == [star, circle]
    assert next(frames).ids.tolist() == [star, circle]
    clip.remove(star)
    assert next(frames).ids.tolist() == [circle]
    with pytest.raises(BuildError, match=f"no object {star} is followed; there are {circle}"):
        clip.remove(star)


def test_a_correction_is_metas_by_transformers_networks(opened, monkeypatch):
    """On a frame that was followed, a click is looked at with memories and with the mask that was found."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession, Sam2VideoModel

    keep_memories_in_fp32(monkeypatch)
    model = Sam2VideoModel(predictor.CODE.modules.sam2_config(predictor.config())).eval()
    own = {name: tensor for tensors in predictor.tensors().values() for name, tensor in tensors.items()}
    labels = [name for name in own if ".point_embed." in name]
    model.load_state_dict(own | {"prompt_encoder.point_embed.weight": torch.cat([own.pop(n) for n in labels])}, False)
    frames = torch.from_numpy(np.concatenate(predictor.pixels()))
    session = Sam2VideoInferenceSession(frames, video_height=120, video_width=160, dtype=torch.float32)
    side = predictor.config()["image_size"]
    scale, expected = torch.tensor([side / 160, side / 120]), {}

    def inputs(prompt):
        asked = torch.tensor(clicks(prompt))
        points = (asked[:, :2] * scale)[None, None]
        return {"point_coords": points, "point_labels": asked[:, 2].int()[None, None]}

    with torch.no_grad():
        session.add_point_inputs(session.obj_id_to_idx(1), 0, inputs(predictor.PROMPTS["points"][0]))
        session.obj_with_new_inputs = [1]
        for t in range(3):
            expected[t] = model(session, frame_idx=t).pred_masks
        # transformers' own session feeds no earlier mask; Meta's predictor does as follows.
        click = inputs(predictor.PROMPTS["refined"][1])
        output = model._run_single_frame_inference(
            session, 2, 0, 1, False, click, None, False, expected[2].clamp(-32, 32)
        )
        session.store_output(0, 2, output_value=output, is_conditioning_frame=False)
        scores = [output["object_score_logits"]]
        model._batch_encode_memories(session, 2, [0], [output["high_res_masks"]], scores, [True])
        expected[2] = output["pred_masks"]
        for t in range(3, 5):
            expected[t] = model(session, frame_idx=t).pred_masks
    clip = track(opened)
    clip.add(0, points=STAR)
    found = {}
    for frame in clip:
        if frame.index == 2:
            clip.add(2, object=1, points=[[99, 96]], point_labels=[0])
        found[frame.index] = clip._now.answers[1]["pred_masks"]
    apart = {t: float(np.abs(found[t] - expected[t].numpy()).max()) for t in expected}
    assert max(apart.values()) <= 1e-4, apart


def test_what_is_kept_does_not_grow_with_the_clip(opened):
    """Counted in bytes, equal at all frames with equally many objects once their memories are full."""
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in predictor.CLIP]

    def sizes(clip, frames):
        seen = {}
        for frame in clip:
            if frame.index in (22, 30):
                clip.add(frame.index, boxes=CIRCLE)
            if frame.index in (28, 36):
                clip.remove(clip.ids[-1])
            seen[frame.index] = (len(clip.ids), clip.nbytes)
            if frame.index == frames:
                break
        return seen

    clip = track(opened, (pictures[i % len(pictures)] for i in range(10**6)))
    clip.add(0, points=STAR)
    seen = sizes(clip, 60)
    alone = {size for index, (count, size) in seen.items() if count == 1 and index >= 17}
    assert len(alone) == 1, seen
    leaking = track(opened, (pictures[i % len(pictures)] for i in range(10**6)))
    leaking.add(0, points=STAR)
    kept = leaking._follower.banks

    def leak(frame, memory, longest):
        bank = kept[1]
        bank.tracked[frame] = memory
        bank.tracked = {at: own for at, own in bank.tracked.items() if frame - at < longest or at == 20}

    next(iter(leaking))
    kept[1].track = leak
    seen = sizes(leaking, 40)
    assert (
        len({size for index, (count, size) in seen.items() if count == 1 and index >= 17}) > 1 or seen[39] != seen[17]
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"frame": 5, "points": STAR}, "there is no frame 5: the clip has 5, from 0 to 4"),
        ({"frame": 0}, "nothing is asked for: give points, boxes or mask"),
        ({"frame": 0, "points": [[400, 3]]}, "the point 400,3 lies outside its frame, which is 160 x 120 pixels"),
        ({"frame": 0, "boxes": [[1, 1, 9, 9], [2, 2, 9, 9]]}, "has 2 boxes"),
        ({"frame": 0, "points": STAR, "object": -3}, "object -3 is no name of one"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_one_message(opened, asked, message):
    clip = track(opened)
    with pytest.raises(BuildError, match=message):
        clip.add(**asked)
    assert clip.ids == ()


def test_frames_that_are_gone_other_sizes_and_broken_files(opened, tmp_path):
    clip = track(opened)
    clip.add(0, points=STAR)
    next(iter(clip))
    next(iter(clip))
    with pytest.raises(BuildError, match="frame 0 has passed: frame 1 was the last"):
        clip.add(0, points=STAR)
    for i, file in enumerate(predictor.CLIP):
        (tmp_path / f"{i}.png").write_bytes(Path(file).read_bytes())
    (tmp_path / "2.png").write_bytes(b"no picture")
    broken = track(opened, tmp_path)
    broken.add(0, points=STAR)
    assert [next(broken).index, next(broken).index] == [0, 1]
    with pytest.raises(BuildError, match=r"2\.png"):
        next(broken)
    Image.new("RGB", (80, 60)).save(tmp_path / "2.png")
    other = track(opened, tmp_path)
    other.add(0, points=STAR)
    next(other)
    next(other)
    with pytest.raises(BuildError, match="frame 2 is 80 x 60 pixels, and the others 160 x 120"):
        next(other)


def test_a_mask_on_a_frame_is_the_answer_itself(opened, tmp_path):
    Image.fromarray(predictor.square()).save(tmp_path / "square.png")
    clip = track(opened)
    clip.add(0, mask=tmp_path / "square.png")
    with pytest.raises(BuildError, match="object 1 is prompted on frame 0 already"):
        clip.add(0, object=1, points=STAR)
