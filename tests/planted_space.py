"""A scratch project whose encoder is a toy transformer with planted faults, and whose precision and verify are real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from build_space import ROOT, BuildSpace
from planted_overflow import planted

HERE = Path(__file__).parent
REAL = ("precision", "verify")

MANIFEST = """\
family: toy
checkpoint: {path: weights.safetensors, config: config.json}
reference: meta
tokenizer: tokenizer.json
opset: 20
components: {encoder: {}}
shape_profiles: {default: {batch: [1, 1, 8]}}
precisions: [fp32, fp16]
targets: {cpu: {backend: onnxruntime}}
samples: [{image: scene.png, text: red circle}]
"""


def create(
    root: Path, blocks: int, plants: dict[str, str], seed: int = 0, *, is_plain: bool = False
) -> tuple[BuildSpace, frozenset[str]]:
    """Return a project with these faults planted (see planted_overflow.py), and the names of the planted nodes."""
    space = BuildSpace.create(root)
    for name in REAL:
        shutil.copy(ROOT / "sam3_build" / "stages" / f"{name}.py", root / "sam3_build" / "stages")
    shutil.copytree(HERE / "planted" / "stages", root / "sam3_build" / "stages", dirs_exist_ok=True)
    shutil.copy(HERE / "planted_overflow.py", root / "sam3_build" / "families" / "toy")
    (root / "manifests" / "toy.yaml").write_text(MANIFEST)
    asked = {"encoder.blocks": blocks, "encoder.plants": plants, "encoder.seed": seed, "encoder.is_plain": is_plain}
    (root / "manifests" / "weights.safetensors").write_text(json.dumps(asked))
    return space, planted(blocks, plants, seed=seed, is_plain=is_plain)[1]
