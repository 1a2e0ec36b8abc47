"""Records what Meta's own code of EdgeTAM gives at the miniature's random weights, and the names of its tensors.

1. Clone facebookresearch/EdgeTAM (9cc44bf).
2. In an environment with this project: pip install --no-deps timm==1.0.31 torchvision==0.29.1 iopath portalocker
   hydra-core omegaconf antlr4-python3-runtime==4.9.3. No compiled operator of torchvision is used.
3. PYTHONPATH=<this project>:<this project>/tests:<this project>/tests/recorded python <this file> <the clone>

It writes `official_names.json`, name -> shape of all tensors of edgetam.pt, and `meta.npz`: `trunk/<stage>`, what
timm's trunk gives of the clip's first frame, every 4th channel, and `<case>/<object>`, mask logits [frames, h, w] of
the drawn clip, every second row and column, float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from meta_code import fill, resized
from tracked_clip import PROMPTS, Predictor, square

HERE = Path(__file__).parent
OWN = Predictor("edgetam")

# The miniature's sizes (manifests/edgetam_mini.json) as Meta's configs say them.
D, SIDE, LATENTS = 128, 8, 4
LAYER = "++model.memory_attention.layer."
OVERRIDES = (
    "++model.image_size=128",
    "++model.fill_hole_area=0",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    f"++model.image_encoder.neck.d_model={D}",
    f"++model.image_encoder.neck.position_encoding.num_pos_feats={D}",
    f"++model.memory_attention.d_model={D}",
    f"{LAYER}d_model={D}",
    f"{LAYER}dim_feedforward={D}",
    f"{LAYER}self_attention.embedding_dim={D}",
    f"{LAYER}self_attention.feat_sizes=[{SIDE},{SIDE}]",
    f"{LAYER}cross_attention.embedding_dim={D}",
    f"{LAYER}cross_attention.q_sizes=[{SIDE},{SIDE}]",
    f"{LAYER}cross_attention.k_sizes=[{LATENTS},{LATENTS}]",
    f"++model.memory_encoder.in_dim={D}",
    f"++model.memory_encoder.mask_downsampler.embed_dim={D}",
    f"++model.memory_encoder.fuser.layer.dim={D}",
    f"++model.spatial_perceiver.num_latents={LATENTS**2}",
    f"++model.spatial_perceiver.num_latents_2d={LATENTS**2}",
)


def build(overrides=(), **trunk):
    """Return Meta's predictor without weights. trunk: other sizes of timm's."""
    import sam2.modeling.backbones.timm as backbone
    from sam2.build_sam import build_sam2_video_predictor
    from timm.models import create_model

    backbone.create_model = lambda name, pretrained, **given: create_model(name, pretrained=False, **given, **trunk)
    return build_sam2_video_predictor("configs/edgetam.yaml", None, device="cpu", hydra_overrides_extra=list(overrides))


def narrow_heads() -> None:
    """Let Meta's code make prompt heads of the miniature's sizes, which it has as constants."""
    from sam2.modeling import sam2_base

    of = OWN.config()["mask_decoder_config"]
    sizes = {"mlp_dim": of["mlp_dim"], "num_heads": of["num_attention_heads"]}
    sam2_base.TwoWayTransformer = resized(sam2_base.TwoWayTransformer, **sizes)
    sam2_base.MaskDecoder = resized(sam2_base.MaskDecoder, iou_head_hidden_dim=of["iou_head_hidden_dim"])


def followed(model, prompts, start) -> np.ndarray:
    """Return mask logits of a clip in which one object is prompted: Meta's predictor follows several as one batch."""
    state = model.init_state("the drawn clip")
    seen = set()
    for prompt in prompts:
        at = {"frame_idx": prompt.frame, "obj_id": prompt.object}
        if prompt.mask:
            model.add_new_mask(state, **at, mask=square())
            continue
        box = next(((b.x, b.y, b.x + b.w, b.y + b.h) for b in prompt.boxes), None)
        points = [(point.x, point.y) for point in prompt.points]
        model.add_new_points_or_box(
            state,
            **at,
            points=np.array(points, np.float32).reshape(-1, 2),
            labels=np.array([point.label for point in prompt.points], np.int32),
            box=None if box is None else np.array(box, np.float32),
            clear_old_points=prompt.frame not in seen,
        )
        seen.add(prompt.frame)
    outputs, masks = state["output_dict"], {}
    for frame, _, _ in model.propagate_in_video(state, start_frame_idx=start):
        found = outputs["cond_frame_outputs"].get(frame) or outputs["non_cond_frame_outputs"][frame]
        masks[frame] = found["pred_masks"][0, 0].float().numpy()
    return np.stack([masks[frame] for frame in sorted(masks)])


def main() -> None:
    """Write both files."""
    sys.path.insert(0, sys.argv[1])
    import sam2.sam2_video_predictor as metas

    shapes = {key: list(tensor.shape) for key, tensor in build().state_dict().items()}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    (HERE / "official_names.json").write_text(f"{{\n{lines}\n}}\n")
    widths, depths = OWN.code.modules.trunk_of(OWN.config())
    narrow_heads()
    model = build(OVERRIDES, embed_dim=widths, depth=depths)
    own = {name: tensor for tensors in OWN.tensors().values() for name, tensor in tensors.items()}
    fill(model, OWN.code, own)
    attend = model.memory_attention.forward
    # Kept in bfloat16, they are read as float32 where a pointer stands beside them; without one they must be, too.
    model.memory_attention.forward = lambda memory, **given: attend(memory=memory.float(), **given)
    frames = torch.from_numpy(np.concatenate(OWN.pixels()))
    metas.load_video_frames = lambda **_: (frames, 120, 160)
    with torch.no_grad():
        maps = model.image_encoder.trunk.body(frames[:1])
    made = {f"trunk/{stage}": features[0, ::4].numpy() for stage, features in enumerate(maps)}
    for case, prompts in PROMPTS.items():
        for which in sorted({prompt.object for prompt in prompts}):
            asked = [prompt for prompt in prompts if prompt.object == which]
            start = min(prompt.frame for prompt in prompts)
            made[f"{case}/{which}"] = followed(model, asked, start)[..., ::2, ::2]
    np.savez_compressed(HERE / "meta.npz", **made)


if __name__ == "__main__":
    main()
