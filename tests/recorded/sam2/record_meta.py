"""Records what Meta's SAM2VideoPredictor gives of the drawn clip, with the miniature's random weights: meta.npz.

1. Clone facebookresearch/sam2 (2b90b9f) and change into it; install hydra-core, omegaconf, iopath and torchvision.
2. With <tests> for this project's folder of that name:
   PYTHONPATH=<tests>/..:<tests>:<tests>/families/sam2:<tests>/recorded:. python <this file>
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import predictor
import sam2.sam2_video_predictor as metas
import torch
from meta_code import fill, resized
from sam2.build_sam import build_sam2_video_predictor
from sam2.modeling import sam2_base
from tracked_clip import CORRECTED, CORRECTION

# The miniature's sizes (manifests/sam2_mini.json) as Meta's configs say them.
D, SIDE = 128, 8
LAYER = "++model.memory_attention.layer."
UNFILLED = ("++model.fill_hole_area=0",)
OVERRIDES = (
    "++model.image_size=128",
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.stages=[1,1,2,1]",
    "++model.image_encoder.trunk.global_att_blocks=[3]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    f"++model.image_encoder.neck.d_model={D}",
    f"++model.image_encoder.neck.position_encoding.num_pos_feats={D}",
    f"++model.memory_attention.d_model={D}",
    "++model.memory_attention.num_layers=2",
    f"{LAYER}d_model={D}",
    f"{LAYER}dim_feedforward={D}",
    f"{LAYER}self_attention.embedding_dim={D}",
    f"{LAYER}self_attention.feat_sizes=[{SIDE},{SIDE}]",
    f"{LAYER}cross_attention.embedding_dim={D}",
    f"{LAYER}cross_attention.feat_sizes=[{SIDE},{SIDE}]",
    f"++model.memory_encoder.in_dim={D}",
    f"++model.memory_encoder.mask_downsampler.embed_dim={D}",
    f"++model.memory_encoder.fuser.layer.dim={D}",
)


def narrow_heads() -> None:
    """Let Meta's code make prompt heads of the miniature's sizes, which it has as constants."""
    of = predictor.config()["mask_decoder_config"]
    sizes = {"mlp_dim": of["mlp_dim"], "num_heads": of["num_attention_heads"]}
    sam2_base.TwoWayTransformer = resized(sam2_base.TwoWayTransformer, **sizes)
    sam2_base.MaskDecoder = resized(sam2_base.MaskDecoder, iou_head_hidden_dim=of["iou_head_hidden_dim"])


def main() -> None:
    """Write meta.npz: `<case>/masks` [frames, objects, h, w], every second row and column of the logits, float32.

    The case `corrected` is that of which `tracked_clip` corrects a frame.
    """
    narrow_heads()
    model = build(predictor.tensors(), *OVERRIDES)
    frames = torch.from_numpy(np.concatenate(predictor.pixels()))
    metas.load_video_frames = lambda **_: (frames, 120, 160)
    made = {}
    for case, prompts in predictor.PROMPTS.items():
        made[f"{case}/masks"] = followed(model, prompts, mask=predictor.square())[..., ::2, ::2]
    found = followed(model, predictor.PROMPTS[CORRECTED], CORRECTION)
    made["corrected/masks"] = found[..., ::2, ::2]
    np.savez_compressed(Path(__file__).with_name("meta.npz"), **made)


def build(tensors, *overrides: str):
    """Return Meta's predictor of the size tiny, or of others, with our weights, component -> name -> tensor."""
    name = "configs/sam2.1/sam2.1_hiera_t.yaml"
    model = build_sam2_video_predictor(name, None, device="cpu", hydra_overrides_extra=[*UNFILLED, *overrides])
    fill(model, predictor.CODE, {name: tensor for own in tensors.values() for name, tensor in own.items()})
    attend = model.memory_attention.forward
    # Kept in bfloat16, they are read as float32 where a pointer stands beside them; without one they must be, too.
    model.memory_attention.forward = lambda memory, **given: attend(memory=memory.float(), **given)
    return model


def followed(model, prompts, corrected=(), mask=None) -> np.ndarray:
    """Return mask logits [frames, objects, h, w] of a clip.

    corrected: prompts on a frame, which are added when the clip was followed up to it
    mask:      of prompts that have one, [height, width] bool
    """
    state = model.init_state("the clip")
    ask(model, state, prompts, mask)
    until = corrected[0].frame if corrected else None
    deque(model.propagate_in_video(state, max_frame_num_to_track=until), maxlen=0)
    if corrected:
        ask(model, state, corrected, mask)
        # From the corrected frame itself on, it would be looked at anew without the correction.
        deque(model.propagate_in_video(state, start_frame_idx=until + 1), maxlen=0)
    kept = state["output_dict_per_obj"].values()
    outputs = [own["cond_frame_outputs"] | own["non_cond_frame_outputs"] for own in kept]
    frames = sorted(outputs[0])
    return np.stack([[own[frame]["pred_masks"][0, 0].float().numpy() for own in outputs] for frame in frames])


def ask(model, state, prompts, mask) -> None:
    """Add prompts to a clip. mask: of those that have one, [height, width] bool."""
    seen = set()
    for prompt in prompts:
        at = {"frame_idx": prompt.frame, "obj_id": prompt.object}
        if prompt.mask:
            model.add_new_mask(state, **at, mask=mask)
            continue
        box = next(((b.x, b.y, b.x + b.w, b.y + b.h) for b in prompt.boxes), None)
        points = [(point.x, point.y) for point in prompt.points]
        model.add_new_points_or_box(
            state,
            **at,
            points=np.array(points, np.float32).reshape(-1, 2),
            labels=np.array([point.label for point in prompt.points], np.int32),
            box=None if box is None else np.array(box, np.float32),
            clear_old_points=(prompt.frame, prompt.object) not in seen,
        )
        seen.add((prompt.frame, prompt.object))


if __name__ == "__main__":
    main()
