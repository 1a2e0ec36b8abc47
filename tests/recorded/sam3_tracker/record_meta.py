"""Records what Meta's SAM3InteractiveImagePredictor gives of a drawn picture, with the miniature's random weights.

See `record_sam3` for what it needs. Then, with <recorded> for the folder above this one:
PYTHONPATH=<this project>:<this project>/tests:<this project>/tests/families/sam3_tracker:<recorded>:<the clone> \
  python <this file>

It writes meta.npz: `map/<level>`, what the vision encoder gives; and, of each case, `<case>/masks` [masks, h, w]
logits, `<case>/iou_scores` [masks] and `<case>/visible` [1], a logit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from record_sam3 import tracker
from tracker_model import CODE, CONFIG, PICTURE, PROMPTS, picture_arrays, tensors


def main() -> None:
    """Write meta.npz."""
    own = {**tensors("vision_encoder_as_meta"), **tensors("previous_mask")}
    model = tracker(CODE, own, CONFIG["vision_config"], CONFIG["mask_decoder_config"], {})
    from sam3.model.sam1_task_predictor import SAM3InteractiveImagePredictor
    from sam3.model.utils.sam1_utils import SAM2Transforms

    # Resized by PIL and not by PyTorch: what is recorded is what networks compute.
    SAM2Transforms.__call__ = lambda self, picture: torch.from_numpy(picture_arrays()["pixel_values"][0])
    predictor = SAM3InteractiveImagePredictor(model)
    predictor._bb_feat_sizes = CONFIG["vision_config"]["backbone_feature_sizes"]
    predictor.set_image(PICTURE)
    maps = [*predictor._features["high_res_feats"], predictor._features["image_embed"]]
    made = {f"map/{level}": features[0].numpy() for level, features in enumerate(maps)}
    decoded = []
    model.sam_mask_decoder.register_forward_hook(lambda module, inputs, outputs: decoded.append(outputs))
    for case, prompts in PROMPTS.items():
        points = [(point.x, point.y) for point in prompts.points]
        box = next(((b.x, b.y, b.x + b.w, b.y + b.h) for b in prompts.boxes), None)
        predictor.predict(
            point_coords=np.array(points, np.float32) if points else None,
            point_labels=np.array([point.label for point in prompts.points], np.int32) if points else None,
            box=None if box is None else np.array(box, np.float32),
            mask_input=None if prompts.mask is None else predictor_mask(made[f"{prompts.mask}/masks"]),
        )
        masks, scores, _, visible = (tensor[0].numpy() for tensor in decoded.pop())
        made |= {f"{case}/masks": masks, f"{case}/iou_scores": scores, f"{case}/visible": visible}
    np.savez_compressed(Path(__file__).with_name("meta.npz"), **made)


def predictor_mask(masks: np.ndarray) -> np.ndarray:
    """Return the first mask as the predictor takes it again, [1, h, w]."""
    return np.clip(masks[:1], -32, 32)


if __name__ == "__main__":
    main()
