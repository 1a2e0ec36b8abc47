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
from record_meta import build, followed
from torch.nn import functional
from tracked_clip import CLIP, CORRECTED, CORRECTION, PROMPTS, Predictor, square

from sam3_build.families.sam2.config import SIZES
from sam3_build.pipeline.masks import enlarged
from sam3_build.pipeline.predictor_cases import ObjectPrompt
from sam3_build.pipeline.tracking import track

FRAMES = 6
# Case -> prompts, and those by which a frame is corrected.
CASES = {case: (prompts, []) for case, prompts in PROMPTS.items()} | {"corrected": (PROMPTS[CORRECTED], CORRECTION)}


class Tiny(Predictor):
    """SAM 2.1 tiny as it was published, but for its weights."""

    def config(self):
        """Return the config with all defaults."""
        return self.code.modules.complete_config(SIZES["tiny"].config())


OWN = Tiny("sam2")


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
        prompts, corrected = ([stretched(prompt, size) for prompt in own] for own in CASES[case])
        with torch.no_grad():
            expected = followed(model, prompts, corrected, square(size))
            # As Meta's predictor does.
            theirs = functional.interpolate(torch.from_numpy(expected), size, mode="bilinear").numpy()
        with tempfile.TemporaryDirectory() as scratch:
            if corrected:
                found = OWN.corrected(run, encoded, prompts, corrected, Path(scratch), size)
            else:
                found = track(run, OWN.given(prompts, Path(scratch), size), encoded)["masks"]
        for frame, which in np.ndindex(expected.shape[:2]):
            own, other = enlarged(found[frame, which].squeeze(), size), theirs[frame, which]
            inside, among = own > 0, other > 0
            union = (inside | among).sum()
            shown = f"IoU {(inside & among).sum() / union if union else 1:.6f} of {among.mean():.1%} of the frame"
            apart = f"{np.abs(own - other).max():.2g} apart, of {np.abs(other).max():.3g}"
            sys.stdout.write(f"{case}, frame {frame}, object {which + 1}: {shown}, logits {apart}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
