"""Compares a clip at full size with Meta's SAM2VideoPredictor: SAM 2.1 tiny, seeded weights, one object, one click.

1. Clone facebookresearch/sam2 (2b90b9f) and change into it; install hydra-core, omegaconf, iopath and torchvision.
2. PYTHONPATH=<this project>:. python <this file> [<folder of frames>]; takes minutes and 4 GB.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import sam2.sam2_video_predictor as metas
import torch
from narrow import SEED
from narrow import metas as by_their_names
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

from sam3_build import registry
from sam3_build.families.sam2.config import SIZES
from sam3_build.families.sam2.prompts import MEAN, STD
from sam3_build.pipeline import images, tracking
from sam3_build.pipeline.masks import enlarged
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

CODE = registry.family_code("sam2")
FRAMES, CLICK = 4, (30.0, 44.0)
CLIP = Path(__file__).parents[3] / "manifests" / "samples" / "clip"


def ours(config, tensors, frames, size) -> dict[str, np.ndarray]:
    """Follow the object with our networks in PyTorch and our loop."""
    specs = {component.name: component for component in CODE.family.laid_out("predictor").components}
    models = {name: assemble(CODE.modules, spec.network("meta"), config, tensors[name]) for name, spec in specs.items()}

    def runs(name):
        outputs = [tensor.name for tensor in specs[name].outputs]
        return lambda arrays, kind="": compute(models[name], arrays, outputs)

    networks = {name: runs(name) for name in specs}
    side, (height, width) = config["image_size"], size
    given = {
        "prompt_frames": np.array([0], np.int64),
        "prompt_objects": np.array([1], np.int64),
        "prompt_counts": np.array([1], np.int64),
        "point_coords": np.array([[CLICK[0] * side / width, CLICK[1] * side / height]], np.float32),
        "point_labels": np.ones(1, np.float32),
    }
    encoded = [networks["vision_encoder"]({"pixel_values": frame}) for frame in frames]
    return tracking.track(networks, given, encoded)


def theirs(tensors, frames, size) -> np.ndarray:
    """Return mask logits [frames, h, w] of Meta's predictor; memories read as float32 where they are bfloat16."""
    overrides = ["++model.fill_hole_area=0"]
    name = "configs/sam2.1/sam2.1_hiera_t.yaml"
    model = build_sam2_video_predictor(name, None, device="cpu", hydra_overrides_extra=overrides)
    own = {name: tensor for made in tensors.values() for name, tensor in made.items()}
    model.load_state_dict(by_their_names(own, {key: tuple(t.shape) for key, t in model.state_dict().items()}))
    attend = model.memory_attention.forward
    model.memory_attention.forward = lambda memory, **given: attend(memory=memory.float(), **given)
    metas.load_video_frames = lambda **_: (torch.from_numpy(np.concatenate(frames)), *size)
    state = model.init_state("the clip")
    points, labels = np.array([CLICK], np.float32), np.ones(1, np.int32)
    model.add_new_points_or_box(state, frame_idx=0, obj_id=1, points=points, labels=labels)
    for _ in model.propagate_in_video(state):
        pass
    (found,) = state["output_dict_per_obj"].values()
    made = [found["cond_frame_outputs"].get(t) or found["non_cond_frame_outputs"][t] for t in range(len(frames))]
    return np.stack([one["pred_masks"][0, 0].float().numpy() for one in made])


def main() -> None:
    """Print, frame by frame, the IoU at the frame's size and the largest difference of logits."""
    torch.set_num_threads(1)
    files = sorted(Path(sys.argv[1] if len(sys.argv) > 1 else CLIP).iterdir())[:FRAMES]
    config = CODE.modules.complete_config(SIZES["tiny"].config())
    listed = inventory(CODE, SEED, config, None, "predictor")
    family = CODE.family.laid_out("predictor")
    tensors = {
        name: load(CODE, family.component(name).network("meta"), SEED, config, None, lines)
        for name, lines in listed.items()
    }
    pictures = [Image.open(file) for file in files]
    size = (pictures[0].height, pictures[0].width)
    side = config["image_size"]
    frames = [images.frame_input(picture, (side, side), MEAN, STD)[None] for picture in pictures]
    with torch.no_grad():
        expected = theirs(tensors, frames, size)
    found = ours(config, tensors, frames, size)
    for frame, (logits, reference) in enumerate(zip(found["masks"][:, 0], expected, strict=True)):
        own, other = (enlarged(one, size) > 0 for one in (logits, reference))
        union = (own | other).sum()
        line = f"frame {frame}: IoU {(own & other).sum() / union if union else 1:.6f} of {other.sum()} pixels"
        apart = np.abs(logits - reference).max()
        sys.stdout.write(f"{line}, logits {apart:.2g} apart, of {np.abs(reference).max():.3g}\n")


if __name__ == "__main__":
    main()
