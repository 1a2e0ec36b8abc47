"""Records what the parts of Meta's Sam3TrackerPredictor give of drawn inputs, with the miniature's random weights.

See `record_sam3` for what it needs. Then, with <recorded> for the folder above this one:
PYTHONPATH=<this project>:<this project>/tests:<this project>/tests/families/sam3_video:<recorded>:<the clone> \
  python <this file>

It writes meta.npz, `<call>/<output>`, as `sampled` gives it. Then it follows the drawn clip, and prints for information
how far our loop, which is transformers', is from Meta's: as it is, and with masks scaled and resized in Meta's order,
but for masks that are given. There each object has a session of its own, since in one that several share each has a
memory of every frame on which any is prompted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from record_sam3 import tracker
from tracked_clip import PROMPTS, square
from video_model import BEFORE, FRAMES, NOW, OWN, PROMPTED, SIZE, inputs, sampled

from sam3_build.families.sam3_video.loops import track


def main() -> None:
    """Write meta.npz; print distances of clips."""
    config = OWN.config()
    own = {name: tensor for tensors in OWN.tensors().values() for name, tensor in tensors.items()}
    heads = config["tracker_config"]
    model = tracker(
        OWN.code, own, config["detector_config"]["vision_config"], heads["mask_decoder_config"], memory=heads
    )
    made = {}
    with torch.no_grad():
        for call, arrays in inputs(OWN.code.family.static_dims(config)).items():
            tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
            outputs = CALLS[call.partition(".")[0]](model, tensors)
            made |= {f"{call}/{name}": sampled(tensor.numpy()) for name, tensor in outputs.items()}
    np.savez_compressed(Path(__file__).with_name("meta.npz"), **made)
    attend = model.transformer.encoder.forward
    # Kept in bfloat16, they are read as float32 where a pointer stands beside them; without one they must be, too.
    model.transformer.encoder.forward = lambda prompt, **given: attend(prompt=prompt.float(), **given)
    run = OWN.networks()
    for case, prompts in PROMPTS.items():
        expected = together(model, prompts)
        kinds = {"our order": run}
        if not any(prompt.mask for prompt in prompts):
            kinds["Meta's order"] = in_metas_order(run)
        for order, networks in kinds.items():
            found = ours(networks, prompts)
            pairs = zip(found.reshape(-1, *found.shape[2:]), expected.reshape(-1, *found.shape[2:]), strict=True)
            overlap = [iou(one > 0, other > 0) for one, other in pairs]
            shown = f"IoU {min(overlap):.4f} at worst, {np.mean(overlap):.4f} on average"
            sys.stdout.write(f"{case}, {order}: {shown}, logits {np.abs(found - expected).max():.2g} apart\n")


# ------------------------------------------------------------------ parts


def encoded(model, given):
    found = model.backbone.forward_image(given["pixel_values"])
    maps = {f"fpn_feat_{level}": features for level, features in enumerate(found["backbone_fpn"])}
    positions = {"fpn_pos_2": found["vision_pos_enc"][-1]}
    *finer, features = model.forward_image(given["pixel_values"])["backbone_fpn"]
    without = model._prepare_memory_conditioned_features(
        frame_idx=0,
        is_init_cond_frame=True,
        current_vision_feats=[features.flatten(2).permute(2, 0, 1)],
        current_vision_pos_embeds=None,
        feat_sizes=[features.shape[-2:]],
        output_dict=None,
        num_frames=1,
    )
    embeddings = {f"image_embeddings.{level}": tensor for level, tensor in enumerate((*finer, without))}
    return {**maps, **positions, **embeddings, "vision_features": features}


def decoded(model, given):
    rows = len(given["input_labels"])
    _, _, scores, masks, _, pointer, visible = model._forward_sam_heads(
        backbone_features=given["conditioned_features"],
        point_inputs={"point_coords": given["input_points"], "point_labels": given["input_labels"]},
        mask_inputs=given["input_masks"][:, None] if given["has_masks"].all() else None,
        high_res_features=[given[f"image_embeddings.{level}"].expand(rows, -1, -1, -1) for level in range(2)],
        multimask_output=bool(given["multimask"].all()),
    )
    best = scores.amax(1, keepdim=True)
    return {"pred_masks": masks[:, 0], "iou_scores": best, "object_pointer": pointer, "object_score_logits": visible}


def conditioned(model, given):
    rows, side = len(given["memory_offsets"]), given["vision_features"].shape[-1]
    remembered = given["memory_features"].transpose(2, 3).unflatten(3, (side, side))
    places = model.maskmem_backbone.position_encoding(remembered[:, 0])

    def output(which):
        features, pointer = remembered[:, which], given["object_pointers"][:, which]
        return {"maskmem_features": features, "maskmem_pos_enc": [places], "obj_ptr": pointer}

    features = given["vision_features"].expand(rows, -1, -1, -1)
    positions = model.backbone.vision_backbone.position_encoding(features)
    found = model._prepare_memory_conditioned_features(
        frame_idx=NOW,
        is_init_cond_frame=False,
        current_vision_feats=[features.flatten(2).permute(2, 0, 1)],
        current_vision_pos_embeds=[positions.flatten(2).permute(2, 0, 1)],
        feat_sizes=[(side, side)],
        output_dict={
            "cond_frame_outputs": {frame: output(i) for i, frame in enumerate(PROMPTED)},
            "non_cond_frame_outputs": {frame: output(i + len(PROMPTED)) for i, frame in enumerate(BEFORE)},
        },
        num_frames=FRAMES,
    )
    return {"conditioned_features": found}


def remembered(model, given):
    masks = given["mask_for_memory"][:, None]
    binarized = bool((masks.abs() == 10).all())
    features = given["vision_features"].expand(len(masks), -1, -1, -1)
    found, _ = model._encode_new_memory(
        image=None,
        current_vision_feats=[features.flatten(2).permute(2, 0, 1)],
        feat_sizes=[features.shape[-2:]],
        # Which Meta's code binarizes or squashes, and scales.
        pred_masks_high_res=masks if binarized else torch.logit((masks + 10) / 20),
        object_score_logits=given["object_score_logits"],
        is_mask_from_pts=binarized,
    )
    return {"memory_features": found.flatten(2).transpose(1, 2)}


CALLS = {
    "vision_encoder": encoded,
    "mask_decoder": decoded,
    "memory_attention": conditioned,
    "memory_encoder": remembered,
}

# ------------------------------------------------------------------ clips

CLIP = OWN.pixels()


def together(model, prompts) -> np.ndarray:
    """Return mask logits [frames, objects, h, w], from -10 to 10, which is what those of a mask that is given are."""
    first = min(prompt.frame for prompt in prompts)
    objects = dict.fromkeys(prompt.object for prompt in prompts)
    alone = [followed(model, [prompt for prompt in prompts if prompt.object == which], first) for which in objects]
    return np.clip(np.concatenate(alone, axis=1), -10, 10)


def followed(model, prompts, first) -> np.ndarray:
    """Return mask logits of one object, as Meta has them, from a frame on."""
    state = model.init_state(video_height=SIZE[0], video_width=SIZE[1], num_frames=len(CLIP))
    state["images"], state["storage_device"] = torch.from_numpy(np.concatenate(CLIP)), torch.device("cpu")
    scale, seen = np.array([SIZE[1], SIZE[0]], np.float32), set()
    for prompt in prompts:
        at = {"frame_idx": prompt.frame, "obj_id": prompt.object}
        if prompt.mask:
            model.add_new_mask(state, **at, mask=torch.from_numpy(square()))
            continue
        points = np.array([(point.x, point.y) for point in prompt.points], np.float32).reshape(-1, 2)
        box = next((np.array([[b.x, b.y], [b.x + b.w, b.y + b.h]], np.float32) for b in prompt.boxes), None)
        model.add_new_points_or_box(
            state,
            **at,
            points=points / scale,
            labels=np.array([point.label for point in prompt.points], np.int32),
            box=None if box is None else box / scale,
            clear_old_points=(prompt.frame, prompt.object) not in seen,
        )
        seen.add((prompt.frame, prompt.object))
    found = model.propagate_in_video(state, first, None, reverse=False, tqdm_disable=True, propagate_preflight=True)
    return np.stack([low[:, 0].float().numpy() for _, _, low, _, _ in found])


def ours(run, prompts) -> np.ndarray:
    """Return the same by our loop."""
    with tempfile.TemporaryDirectory() as folder:
        return track(run, OWN.given(prompts, Path(folder)), OWN.encoded(run))["masks"]


def in_metas_order(run):
    """Return networks with which our loop scales masks at the picture's size, and resizes them afterwards."""
    dims = OWN.code.family.static_dims(OWN.config())

    def decode(arrays, kind=""):
        found = run["mask_decoder"](arrays, kind)
        return {**found, "high_res_masks": grown(found["pred_masks"], dims["image_size"])}

    def remember(arrays, kind=""):
        return run["memory_encoder"]({**arrays, "mask_for_memory": grown(arrays["mask_for_memory"], dims["grid_16"])})

    return {**run, "mask_decoder": decode, "memory_encoder": remember}


def grown(masks: np.ndarray, side: int) -> np.ndarray:
    """Return masks [n, h, w] at another size."""
    size = (side, side)
    return torch.nn.functional.interpolate(torch.from_numpy(masks)[:, None], size, mode="bilinear")[:, 0].numpy()


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return that of two masks; 1 of two that are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


if __name__ == "__main__":
    main()
