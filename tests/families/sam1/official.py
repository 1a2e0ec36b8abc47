"""What Meta's own code computed at random weights, as `record.py` recorded it; its weights and prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

RECORD = Path(__file__).with_name("record.npz")

# Sizes of the model: small, and windows do not divide the grid of 6 cells.
SIDE, GRID, HIDDEN = 96, 6, 32
WIDTH, LAYERS, HEADS, WINDOW, GLOBAL = 24, 3, 2, 4, [1]
CONFIG = {
    "model_type": "sam",
    "vision_config": {
        "image_size": SIDE,
        "hidden_size": WIDTH,
        "output_channels": HIDDEN,
        "num_pos_feats": HIDDEN // 2,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "window_size": WINDOW,
        "global_attn_indexes": GLOBAL,
    },
    "prompt_encoder_config": {"image_size": SIDE, "hidden_size": HIDDEN},
    "mask_decoder_config": {
        "hidden_size": HIDDEN,
        "mlp_dim": 64,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    },
}

# Pictures whose preprocessing is recorded, by height and width; the first is encoded.
PICTURES = ((120, 250), (333, 200), (50, 50), (96, 96))

# x, y and label of each point, in pixels of the padded picture; corners of a box are 2 and 3, and -1 is no point.
PAD = (0.0, 0.0, -1.0)
PROMPTS = {
    "point": [(30.25, 20.5, 1), PAD],
    "two points": [(30.25, 20.5, 1), (70, 10, 0), PAD],
    "box": [(12, 8, 2), (60.5, 40, 3)],
    "box and point": [(40, 30, 0), (12, 8, 2), (60.5, 40, 3)],
    "point and mask": [(30.25, 20.5, 1), PAD],
}
# Heights and widths at which masks were asked for.
SIZES = ((50, 70), (64, 40))


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return a tensor for each name, from a generator of its own: no two are alike, and activations stay near 1."""
    found = {}
    for name, shape in shapes.items():
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        drawn = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        if name.endswith(".bias"):
            drawn *= 0.1
        elif len(shape) == 1:
            drawn = 1 + 0.1 * drawn
        elif "rel_pos" in name:
            drawn *= 0.1
        elif name.endswith(".weight") and shape[0] != 1 and "mask_tokens" not in name:
            transposed = "output_upscaling" in name and len(shape) == 4
            drawn *= np.float32((shape[0] if transposed else np.prod(shape[1:])) ** -0.5)
        found[name] = drawn.astype(np.float32)
    return found


def mask_input(name: str) -> np.ndarray:
    """Return the mask of a prompt, logits [1, 1, 24, 24]; zeros where it has none."""
    if "mask" not in name:
        return np.zeros((1, 1, 4 * GRID, 4 * GRID), np.float32)
    return (5 * np.random.default_rng(7).standard_normal((1, 1, 4 * GRID, 4 * GRID))).astype(np.float32)


def inputs(name: str) -> dict[str, np.ndarray]:
    """Return what SamOnnxModel gets of a prompt, but for the picture."""
    points = np.array([PROMPTS[name]], np.float32)
    return {
        "point_coords": points[..., :2].copy(),
        "point_labels": points[..., 2].copy(),
        "mask_input": mask_input(name),
        "has_mask_input": np.array([float("mask" in name)], np.float32),
    }


def record() -> dict[str, np.ndarray]:
    """Return all that was recorded."""
    with np.load(RECORD) as arrays:
        return dict(arrays)


def shapes(recorded: Mapping[str, np.ndarray], size: str = "") -> dict[str, tuple[int, ...]]:
    """Return name -> shape of Meta's state dict, of the small model or of a published size, such as `vit_b`."""
    listed = json.loads(str(recorded[f"names/{size}" if size else "names"]))
    return {name: tuple(shape) for name, shape in listed.items()}
