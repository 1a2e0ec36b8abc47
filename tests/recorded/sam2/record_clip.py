"""Compares clips at full size with Meta's SAM2VideoPredictor: SAM 2.1 tiny, 1024 x 1024, seeded weights.

As record_meta.py, and behind it [<folder of frames> [<case> ...]]; takes 4 GB, and minutes for a case.
The cases are those of `tracked_clip`, stretched to the frames' size, and `corrected`: a click on a frame that was
followed. Of each frame and object it prints the IoU and the largest difference of logits, both at the frames' size.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import sam2.sam2_video_predictor as metas
import torch
from PIL import Image
from record_meta import ask, build
from tracked_clip import CLIP, PROMPTS, SQUARE, STAR, Predictor, square

from sam3_build.families.sam2.config import SIZES
from sam3_build.pipeline.masks import enlarged
from sam3_build.pipeline.predictor_cases import ObjectPrompt
from sam3_build.pipeline.tracking import Tracker, track

FRAMES = 6
# The frame of a correction, and which it is.
LATER, CORRECTION = 3, ObjectPrompt(3, 1, (replace(SQUARE, label=0),))
CASES = {**PROMPTS, "corrected": [ObjectPrompt(0, 1, (STAR,)), ObjectPrompt(0, 2, (SQUARE,))]}


class Tiny(Predictor):
    """SAM 2.1 tiny as it was published, but for its weights."""

    def config(self):
        """Return the config with all defaults."""
        return self.code.modules.complete_config(SIZES["tiny"].config())


OWN = Tiny("sam2")


def ours(run, encoded, case, prompts, size) -> np.ndarray:
    """Return mask logits [frames, objects, h, w] of our networks in PyTorch and our loop."""
    with tempfile.TemporaryDirectory() as folder:
        given = OWN.given(prompts, Path(folder), size)
        if case != "corrected":
            return track(run, given, encoded)["masks"]
        tracker = Tracker(run, len(encoded))
        found = [tracker.ask(0, encoded[0], given)]
        for position in range(1, len(encoded)):
            answers = tracker.follow(position, encoded[position])
            if position == LATER:
                before = {which: answer["pred_masks"] for which, answer in answers.items()}
                correction = OWN.given([stretched(CORRECTION, size)], Path(folder), size)
                answers |= tracker.ask(position, encoded[position], correction, before)
            found.append(answers)
    return np.stack([[answers[which]["pred_masks"] for which in (1, 2)] for answers in found])


def theirs(model, case, prompts, size) -> np.ndarray:
    """Return mask logits [frames, objects, height, width] of Meta's predictor."""
    state, found = model.init_state("the clip"), {}
    ask(model, state, prompts, square(size))
    until = LATER if case == "corrected" else None
    found |= {frame: masks for frame, _, masks in model.propagate_in_video(state, max_frame_num_to_track=until)}
    if until is not None:
        ask(model, state, [stretched(CORRECTION, size)], None)
        found |= {frame: masks for frame, _, masks in model.propagate_in_video(state, start_frame_idx=until)}
    return np.stack([found[frame][:, 0].float().numpy() for frame in sorted(found)])


def stretched(prompt: ObjectPrompt, size) -> ObjectPrompt:
    """Return a prompt on the drawn clip as one on frames of another size, height and width."""
    y, x = size[0] / 120, size[1] / 160
    points = tuple(replace(point, x=point.x * x, y=point.y * y) for point in prompt.points)
    boxes = tuple(replace(box, x=box.x * x, y=box.y * y, w=box.w * x, h=box.h * y) for box in prompt.boxes)
    return replace(prompt, points=points, boxes=boxes)


def main() -> None:
    """Print how far both are apart."""
    torch.set_num_threads(1)
    folder, *cases = sys.argv[1:] or [CLIP[0].parent]
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(Path(folder).iterdir())[:FRAMES]]
    size = pictures[0].shape[:2]
    run, model = OWN.networks(), build(OWN.tensors())
    pixels = torch.from_numpy(np.concatenate(OWN.pixels(pictures)))
    metas.load_video_frames = lambda **_: (pixels, *size)
    encoded = OWN.encoded(run, frames=pictures)
    for case in cases or CASES:
        prompts = [stretched(prompt, size) for prompt in CASES[case]]
        with torch.no_grad():
            expected = theirs(model, case, prompts, size)
        found = ours(run, encoded, case, prompts, size)[-len(expected) :]
        for frame, objects in enumerate(zip(found, expected, strict=True)):
            for which, (logits, other) in enumerate(zip(*objects, strict=True)):
                own = enlarged(logits, size)
                inside, among = own > 0, other > 0
                union = (inside | among).sum()
                shown = f"IoU {(inside & among).sum() / union if union else 1:.6f} of {among.mean():.1%} of the frame"
                apart = f"{np.abs(own - other).max():.2g} apart, of {np.abs(other).max():.3g}"
                sys.stdout.write(f"{case}, frame {frame}, object {which + 1}: {shown}, logits {apart}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
