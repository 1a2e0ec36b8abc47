"""Records what Meta's SAM2VideoPredictor gives of the drawn clip, with the miniature's random weights: meta.npz.

1. Clone facebookresearch/sam2 (2b90b9f) and change into it; install hydra-core, omegaconf, iopath and torchvision.
2. PYTHONPATH=<this project>:<this project>/tests/families/sam2:. python <this file>
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import predictor
import sam2.sam2_video_predictor as metas
import torch
from narrow import metas as by_their_names
from sam2.build_sam import build_sam2_video_predictor

# The miniature's sizes (manifests/sam2_mini.json) as Meta's configs say them.
D, SIDE = 128, 8
LAYER = "++model.memory_attention.layer."
OVERRIDES = (
    "++model.image_size=128",
    "++model.fill_hole_area=0",
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


def narrow_heads(model) -> None:
    """Replace the prompt heads, whose sizes Meta's code has as constants, by ones of the miniature's."""
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    of = predictor.config()["mask_decoder_config"]
    transformer = TwoWayTransformer(
        depth=2, embedding_dim=D, mlp_dim=of["mlp_dim"], num_heads=of["num_attention_heads"]
    )
    model.sam_mask_decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=D,
        iou_head_depth=3,
        iou_head_hidden_dim=of["iou_head_hidden_dim"],
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        dynamic_multimask_via_stability=True,
        dynamic_multimask_stability_delta=0.05,
        dynamic_multimask_stability_thresh=0.98,
    ).eval()


def main() -> None:
    """Write meta.npz: `<case>/masks` [frames, objects, h, w], every second row and column of the logits, float32."""
    model = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu", hydra_overrides_extra=list(OVERRIDES)
    )
    narrow_heads(model)
    own = {name: tensor for tensors in predictor.tensors().values() for name, tensor in tensors.items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(by_their_names(own, shapes))
    attend = model.memory_attention.forward
    # Kept in bfloat16, they are read as float32 where a pointer stands beside them; without one they must be, too.
    model.memory_attention.forward = lambda memory, **given: attend(memory=memory.float(), **given)
    frames = torch.from_numpy(np.concatenate(predictor.pixels()))
    metas.load_video_frames = lambda **_: (frames, 120, 160)
    made = {}
    for case, prompts in predictor.PROMPTS.items():
        made[f"{case}/masks"] = followed(model, prompts)[..., ::2, ::2]
    np.savez_compressed(Path(__file__).with_name("meta.npz"), **made)


def followed(model, prompts) -> np.ndarray:
    """Return mask logits of a clip."""
    state = model.init_state("the drawn clip")
    seen = set()
    for prompt in prompts:
        at = {"frame_idx": prompt.frame, "obj_id": prompt.object}
        if prompt.mask:
            model.add_new_mask(state, **at, mask=predictor.square())
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
    masks = {}
    for frame, _, _ in model.propagate_in_video(state):
        outputs = state["output_dict_per_obj"].values()
        found = [o["cond_frame_outputs"].get(frame) or o["non_cond_frame_outputs"][frame] for o in outputs]
        masks[frame] = np.concatenate([one["pred_masks"][:, 0].float().numpy() for one in found])
    return np.stack([masks[frame] for frame in sorted(masks)])


if __name__ == "__main__":
    main()
