"""The clip that `make demo-track` wrote in, by its path; docs/tracked.webp out, twice as large, for the README.

python docs/tracked.py artifacts/demo-track/clip.webm
"""

from __future__ import annotations

import sys
from pathlib import Path

MILLISECONDS = 250


def main(clip: Path) -> None:
    """Write the animation."""
    import av
    from PIL import Image

    with av.open(str(clip)) as video:
        frames = [frame.to_image() for frame in video.decode(video=0)]
    large = [frame.resize((2 * frame.width, 2 * frame.height), Image.Resampling.LANCZOS) for frame in frames]
    file = Path(__file__).with_name("tracked.webp")
    large[0].save(file, save_all=True, append_images=large[1:], duration=MILLISECONDS, loop=0, quality=70, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
