"""Records names and shapes of the tensors of Meta's four models: official_names.json, as their files have them.

1. Clone facebookresearch/sam2 (2b90b9f) and change into it; install hydra-core, omegaconf, iopath and torchvision.
2. PYTHONPATH=. python <this file>

Runs of blocks with equal shapes are one entry: `image_encoder.trunk.blocks.{4-6}.norm1.weight`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sam2.build_sam import build_sam2

SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
BLOCK = re.compile(r"(image_encoder\.trunk\.blocks\.)(\d+)\.(.*)")


def main() -> None:
    """Write official_names.json: `all` of all sizes, then what each has beside them."""
    shapes = {}
    for size, suffix in SIZES.items():
        model = build_sam2(f"configs/sam2.1/sam2.1_hiera_{suffix}.yaml", None, device="cpu")
        shapes[size] = _shortened({key: list(tensor.shape) for key, tensor in model.state_dict().items()})
    shared = {key: shape for key, shape in shapes["tiny"].items() if all(s.get(key) == shape for s in shapes.values())}
    own = {size: {key: shape for key, shape in of.items() if key not in shared} for size, of in shapes.items()}
    text = json.dumps({"all": shared, **own}, indent=1)
    text = re.sub(r"\[\s+([\d,\s]*?)\s*\]", lambda found: f"[{', '.join(found[1].split())}]".replace(",,", ","), text)
    Path(__file__).with_name("official_names.json").write_text(text + "\n")


def _shortened(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    runs: dict[tuple[str, str], list[tuple[int, int, list[int]]]] = {}
    rest = {}
    for key, shape in shapes.items():
        if not (found := BLOCK.fullmatch(key)):
            rest[key] = shape
            continue
        of = runs.setdefault((found[1], found[3]), [])
        number = int(found[2])
        if of and of[-1][1] == number - 1 and of[-1][2] == shape:
            of[-1] = (of[-1][0], number, shape)
        else:
            of.append((number, number, shape))
    return rest | {
        f"{before}{{{first}-{last}}}.{after}": shape
        for (before, after), of in runs.items()
        for first, last, shape in of
    }


if __name__ == "__main__":
    main()
