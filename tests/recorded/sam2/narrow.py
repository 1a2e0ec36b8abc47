"""SAM 2.1 of full size in space and of few channels in its trunk: weights from a seed, and inputs.

What is recorded (`record_*.py`) and what is held against it (tests/families/sam2) share this.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SEED = {"random": {"seed": 0}}

# The same sizes as in narrow.json, as Meta's configs say them, and the head that says whether an object is hidden.
OVERRIDES = (
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.stages=[1,1,2,1]",
    "++model.image_encoder.trunk.global_att_blocks=[3]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "++model.memory_attention.num_layers=2",
)
HIDDEN = "mask_decoder.pred_obj_score_head.proj_out.bias"

# Every so many of an output's values are recorded.
MOST = 200


def config():
    """Return the model config with all defaults."""
    from sam3_build import registry

    return registry.family_code("sam2").modules.complete_config(json.loads((HERE / "narrow.json").read_text()))


def tensors(layout: str | None = None):
    """Return our name -> tensor, of all components of a layout."""
    from sam3_build import registry
    from sam3_build.weights.inventory import inventory
    from sam3_build.weights.load import load

    code, made = registry.family_code("sam2"), config()
    listed = inventory(code, SEED, made, None, layout)
    return {
        key: tensor
        for name, lines in listed.items()
        for key, tensor in load(code, name, SEED, made, None, lines).items()
    }


def drawn(number: int, *shape: int) -> np.ndarray:
    """Return values around 0 with deviation 1, float32."""
    return np.random.default_rng(number).standard_normal(shape, np.float32)


def inputs() -> dict[str, dict[str, np.ndarray]]:
    """Return call -> the inputs of one of NVIDIA's networks, by our names, which are those of its exports."""
    maps = {"high_res_feats_0": drawn(1, 1, 32, 256, 256), "high_res_feats_1": drawn(2, 1, 64, 128, 128)}
    features = drawn(3, 4, 256, 64, 64)
    points = np.array([[[200, 300]], [[900, 100]], [[512, 640]], [[0, 0]]], np.float32)
    pairs = np.array([[[100, 150], [700, 800]], [[400, 300], [600, 500]], [[300, 300], [20, 900]]], np.float32)
    mask = 4 * drawn(5, 2, 1, 64, 64).repeat(16, 2).repeat(16, 3)
    attention = {
        "current_vision_feat": drawn(6, 1, 256, 64, 64),
        "current_vision_pos_embed": drawn(7, 4096, 1, 256),
        "memory_0": drawn(8, 2, 5, 256),
        "memory_1": drawn(9, 2, 2, 64, 64, 64),
        "memory_pos_embed": drawn(10, 2, 2 * 4096 + 20, 64),
        "cond_frame_id_diff": np.array(20, np.float32),
    }
    return {
        "image_encoder": {"image": drawn(0, 1, 3, 1024, 1024)},
        "mask_decoder.points": {
            "point_coords": points,
            "point_labels": np.array([[1], [0], [1], [-1]], np.float32),
            "image_embed": features,
            **maps,
        },
        "mask_decoder.boxes": {
            "point_coords": pairs,
            "point_labels": np.array([[2, 3], [2, 3], [1, 0]], np.float32),
            "image_embed": features[:3],
            **maps,
        },
        "memory_attention": attention,
        "memory_encoder": {
            "mask_for_mem": mask,
            "pix_feat": drawn(11, 1, 256, 64, 64),
            "occ_logit": np.array([[2.0], [-1.0]], np.float32),
        },
    }


def sampled(array: np.ndarray) -> np.ndarray:
    """Return rows [rows, values] of an array, some values of each, and how large the largest of all is, last."""
    rows = array.reshape(len(array) if array.ndim and len(array) < 8 else 1, -1)
    step = max(1, rows.shape[1] // MOST)
    # A step that shares no factor with the sizes of maps walks through all rows and columns.
    picked = rows[:, :: step | 1]
    return np.concatenate([picked, np.abs(rows).max(1, keepdims=True)], 1)
