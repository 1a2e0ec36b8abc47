"""Times memory attention of SAM 2.1 tiny at seeded weights, ours beside NVIDIA's own export, on ONNX Runtime's CPU.

1. Clone NVIDIA-AI-IOT/deepstream_tools (94b243a), change into sam2-onnx-tensorrt; install what record_nvidia.py needs.
2. PYTHONPATH=<this project>:<this project>/tests/recorded:. python <this file> <ours.onnx>, the file that
   `doit manifest=sam2_tiny_random simplify:memory_attention` made; one line for each run is printed: seconds, and
   seconds of the processor.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from meta_code import fill
from narrow import SEED, drawn
from sam2.build_sam import build_sam2
from src.Module import MemAttention

from sam3_build import registry
from sam3_build.families.sam2.config import SIZES
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

NAMES = ("current_vision_feat", "current_vision_pos_embed", "memory_0", "memory_1", "memory_pos_embed")
OPEN = {"memory_0": ("b", "n"), "memory_1": ("b", "m"), "memory_pos_embed": ("b", "e")}


def feed(masks: int, pointers: int) -> dict[str, np.ndarray]:
    """Return inputs of one object."""
    shapes = ((1, 256, 64, 64), (4096, 1, 256), (1, pointers, 256), (1, masks, 64, 64, 64))
    shapes = (*shapes, (1, masks * 4096 + 4 * pointers, 64))
    arrays = {name: drawn(i, *shape) for i, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))}
    return arrays | {"cond_frame_id_diff": np.array(20, np.float32)}


def export(file: Path) -> None:
    """Write NVIDIA's network as NVIDIA does, with the weights of our random model."""
    code = registry.family_code("sam2")
    config = code.modules.complete_config(SIZES["tiny"].config())
    listed = inventory(code, SEED, config, None)
    own = {k: t for name, lines in listed.items() for k, t in load(code, name, SEED, config, None, lines).items()}
    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu")
    fill(model, code, own)
    given = {name: torch.from_numpy(array) for name, array in feed(2, 3).items()}
    with torch.no_grad():
        torch.onnx.export(
            MemAttention(model),
            tuple(given.values()),
            str(file),
            opset_version=17,
            input_names=list(given),
            output_names=["image_embed"],
            dynamic_axes={name: dict(enumerate(dims)) for name, dims in OPEN.items()},
            dynamo=False,
        )


def main() -> None:
    """Time both in turns."""
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with TemporaryDirectory() as folder:
        theirs = Path(folder) / "nvidia.onnx"
        export(theirs)
        files = {"ours": sys.argv[1], "NVIDIA's": str(theirs)}
        sessions = {name: onnxruntime.InferenceSession(file, options) for name, file in files.items()}
    arrays = feed(7, 16)
    for _ in range(3):
        for name, session in sessions.items():
            began, processor = time.perf_counter(), time.process_time()
            (output,) = session.run(None, arrays)
            seconds = time.perf_counter() - began, time.process_time() - processor
            sys.stdout.write(f"{name}: {seconds[0]:.2f} s, {seconds[1]:.2f} s; {output.std():.6f}\n")


if __name__ == "__main__":
    main()
