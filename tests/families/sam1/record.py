"""Runs Meta's own code at random weights and writes what it computes to record.npz, which tests hold ours against.

    git clone https://github.com/facebookresearch/segment-anything && git -C segment-anything checkout dca509f
    pip install torch==2.13.0 torchvision==0.28.0
    PYTHONPATH=segment-anything:tests python tests/families/sam1/record.py

Only whoever records needs these. Written by hand from what `official.py` says; the sizes are small, the code is whole.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib import import_module

import numpy as np
import official
import torch
from drawn import drawn_picture

# No package of this project: imported by name, for tests hold imports to what is declared.
META = import_module("segment_anything")
MODELING, ONNX, RESIZE = (
    import_module(f"segment_anything.{name}") for name in ("modeling", "utils.onnx", "utils.transforms")
)


def model() -> torch.nn.Module:
    """Return Meta's model in small, as `_build_sam` builds it, with our weights."""
    sam = MODELING.Sam(
        image_encoder=MODELING.ImageEncoderViT(
            depth=official.LAYERS,
            embed_dim=official.WIDTH,
            img_size=official.SIDE,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=official.HEADS,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=official.GLOBAL,
            window_size=official.WINDOW,
            out_chans=official.HIDDEN,
        ),
        prompt_encoder=MODELING.PromptEncoder(
            embed_dim=official.HIDDEN,
            image_embedding_size=(official.GRID, official.GRID),
            input_image_size=(official.SIDE, official.SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MODELING.MaskDecoder(
            num_multimask_outputs=3,
            transformer=MODELING.TwoWayTransformer(depth=2, embedding_dim=official.HIDDEN, mlp_dim=64, num_heads=4),
            transformer_dim=official.HIDDEN,
            iou_head_depth=3,
            iou_head_hidden_dim=32,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}
    drawn = {name: torch.from_numpy(array) for name, array in official.weights(shapes).items()}
    sam.load_state_dict(drawn, strict=True)
    return sam


def names(sam: torch.nn.Module) -> np.ndarray:
    """Return the shapes of all tensors by name, as JSON."""
    return np.array(json.dumps({name: list(tensor.shape) for name, tensor in sam.state_dict().items()}))


def main() -> None:
    """Record preprocessing, the image encoder, the decoder in three forms, and masks at the size of pictures."""
    torch.set_num_threads(1)
    sam = model()
    found: dict[str, np.ndarray] = {"names": names(sam)}
    for size in ("vit_b", "vit_l", "vit_h"):
        with torch.device("meta"):
            found[f"names/{size}"] = names(META.sam_model_registry[size]())
    resize = RESIZE.ResizeLongestSide(official.SIDE)
    pictures = []
    for size in official.PICTURES:
        pixels = torch.as_tensor(resize.apply_image(np.asarray(drawn_picture(*size)))).permute(2, 0, 1)[None]
        pictures.append(sam.preprocess(pixels))
        digest = hashlib.sha256(pictures[-1].numpy().tobytes()).hexdigest()
        found[f"pixels/{size[0]}x{size[1]}"] = np.array(digest)
        points = np.array([[3.5, 7.25], [size[1] - 1, size[0] - 1]])
        found[f"points/{size[0]}x{size[1]}"] = resize.apply_coords(points, size)
    with torch.no_grad():
        embeddings = sam.image_encoder(pictures[0])
    found["image_embeddings"] = embeddings.numpy()
    forms = {
        "multi": ONNX.SamOnnxModel(sam, return_single_mask=False),
        "single": ONNX.SamOnnxModel(sam, return_single_mask=True),
        "stability": ONNX.SamOnnxModel(sam, return_single_mask=False, use_stability_score=True),
    }
    for name in official.PROMPTS:
        given = {key: torch.from_numpy(array) for key, array in official.inputs(name).items()}
        for form, network in forms.items():
            for size in official.SIZES:
                asked = torch.tensor(size, dtype=torch.float32)
                masks, scores, low_res = network(image_embeddings=embeddings, **given, orig_im_size=asked)
                if form == "single" and name == "point":
                    found[f"masks/{size[0]}x{size[1]}"] = masks.numpy()
            found[f"{form}/{name}/iou_predictions"] = scores.numpy()
            if form == "multi":
                found[f"{form}/{name}/low_res_masks"] = low_res.numpy()
            elif form == "single":
                all_masks = found[f"multi/{name}/low_res_masks"][0]
                (which,) = [i for i, mask in enumerate(all_masks) if (mask == low_res.numpy()[0, 0]).all()]
                found[f"single/{name}/mask"] = np.array(which)
    np.savez_compressed(official.RECORD, **found)


if __name__ == "__main__":
    main()
