"""A project whose family is the blinker (tests/blinker): real stages, a drawn clip, weights made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from build_space import ROOT, BuildSpace
from PIL import Image

HERE = Path(__file__).parent / "blinker"
SIZE, CHANNELS, FRAMES = 32, 4, 6
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)

MANIFEST = """\
family: blinker
checkpoint: {path: weights.safetensors, config: config.json}
reference: own
opset: 20
components: {frame_encoder: {}, decode: {}, update_state: {}}
shape_profiles: {default: {batch: [1, 1, 2], objects: [1, 2, 4]}}
precisions: [fp32, fp16]
targets: {cpu: {backend: onnxruntime}}
samples:
  - video: clip
    frames: 6
    prompts:
      - {frame: 0, object: 1, points: "pos:6,8"}
      - {frame: 0, object: 2, points: "pos:22,4"}
"""


def weights(channels: int = CHANNELS) -> dict[str, np.ndarray]:
    """Return weights by which a colour is found again where it is, and a state stays near what it was."""
    colours = np.eye(channels, 3, dtype=np.float32) * 2
    encoder = np.zeros((channels, 3, 3, 3), np.float32)
    encoder[:, :, 1, 1] = colours
    identity = np.eye(8, channels, dtype=np.float32)
    update = np.concatenate([np.eye(channels) * 0.9, np.eye(channels) * 0.1], axis=1).astype(np.float32)
    return {
        "encoder.weight": encoder,
        "encoder.bias": np.zeros(channels, np.float32),
        "decoder.query.weight": identity,
        "decoder.query.bias": np.zeros(8, np.float32),
        "decoder.key.weight": identity.copy(),
        "decoder.key.bias": np.zeros(8, np.float32),
        "update.weight": update,
        "update.bias": np.zeros(channels, np.float32),
    }


def draw(folder: Path) -> None:
    """Draw a red square that goes right, and a blue one that goes down and is not there in frame 3."""
    folder.mkdir()
    for frame in range(FRAMES):
        pixels = np.full((SIZE, SIZE, 3), GREY, np.uint8)
        pixels[5:13, 3 + 3 * frame : 11 + 3 * frame] = RED
        if frame != 3:
            pixels[1 + 4 * frame : 8 + 4 * frame, 19:26] = BLUE
        Image.fromarray(pixels).save(folder / f"{frame:03}.png")


def save_weights(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file."""
    from safetensors.numpy import save_file

    save_file(tensors, str(file))


def create(root: Path) -> BuildSpace:
    """Return the project; nothing of it lies outside the family's folder and the manifest's."""
    space = BuildSpace.create(root)
    for folder in ("stages", "families", "patches"):
        shutil.rmtree(root / "sam3_build" / folder)
        shutil.copytree(
            ROOT / "sam3_build" / folder, root / "sam3_build" / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copytree(HERE / "families" / "blinker", root / "sam3_build" / "families" / "blinker")
    manifests = root / "manifests"
    for file in manifests.iterdir():
        file.unlink()
    (manifests / "toy.yaml").write_text(MANIFEST)
    (manifests / "config.json").write_text(json.dumps({"model_type": "blinker", "size": SIZE, "channels": CHANNELS}))
    save_weights(manifests / "weights.safetensors", weights())
    draw(manifests / "clip")
    return space
