"""Draws a clip that training never saw, with a box around each shape in the first frame, for `make demo-track`.

python -m docs.demo_track FOLDER    writes FOLDER/clip/*.png, and FOLDER/prompts.json for `sam3-build track --prompts`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# A clip of the held-out ones, 16 frames: three shapes cross, and two of them are wholly hidden for a moment.
NUMBER = 522


def main(folder: Path) -> None:
    """Write the frames and the prompts."""
    import numpy as np
    from PIL import Image

    from sam3_build.pipeline.masks import boxes_around
    from training.scenes import HELD_OUT
    from training.tracking import clips

    clip = clips.draw(HELD_OUT, NUMBER, range(clips.MOST_FRAMES))
    (folder / "clip").mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(folder / "clip" / f"{i:05}.png")
    edges = boxes_around(clip.masks[0].astype(np.bool_)).tolist()
    marks = [{"type": "rectangle", "data": box, "object": i + 1} for i, box in enumerate(edges)]
    (folder / "prompts.json").write_text(json.dumps(marks) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
