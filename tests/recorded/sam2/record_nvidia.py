"""Records what NVIDIA's networks for DeepStream's MaskTracker compute, in PyTorch: nvidia.npz.

1. Clone NVIDIA-AI-IOT/deepstream_tools (94b243a) and change into its folder sam2-onnx-tensorrt.
2. Install hydra-core, omegaconf, iopath and torchvision beside this project.
3. PYTHONPATH=<this project>:<this project>/tests/recorded:. python <this file>
"""

from __future__ import annotations

import numpy as np
import torch
from meta_code import fill
from narrow import HERE, HIDDEN, OVERRIDES, inputs, sampled, tensors
from sam2.build_sam import build_sam2
from src.Module import ImageEncoder, MaskDecoder, MemAttention, MemEncoder

from sam3_build import registry

NETWORKS = {
    "image_encoder": (
        ImageEncoder,
        ("pix_feat", "high_res_feat0", "high_res_feat1", "vision_feats", "vision_pos_embed"),
    ),
    "mask_decoder": (MaskDecoder, ("obj_ptr", "mask_for_mem", "pred_mask", "iou", "occ_logit")),
    "memory_attention": (MemAttention, ("image_embed",)),
    "memory_encoder": (MemEncoder, ("maskmem_features", "maskmem_pos_enc", "temporal_code")),
}


def main() -> None:
    """Write nvidia.npz: `<call>/<output>`, as `narrow.sampled` gives it; `hidden` are calls on hidden objects."""
    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu", hydra_overrides_extra=list(OVERRIDES))
    own = tensors("deepstream")
    made: dict[str, np.ndarray] = {}
    for suffix, bias in (("", own[HIDDEN]), (".hidden", own[HIDDEN] - 6)):
        fill(model, registry.family_code("sam2"), {**own, HIDDEN: bias})
        for call, arrays in inputs().items():
            name = call.partition(".")[0]
            if suffix and name != "mask_decoder":
                continue
            kind, outputs = NETWORKS[name]
            with torch.no_grad():
                # Copies: one of the networks writes into its input.
                found = kind(model)(**{key: torch.from_numpy(array.copy()) for key, array in arrays.items()})
            for output, tensor in zip(outputs, found if isinstance(found, tuple) else (found,), strict=True):
                made[f"{call}{suffix}/{output}"] = sampled(tensor.detach().numpy())
    np.savez_compressed(HERE / "nvidia.npz", **made)


if __name__ == "__main__":
    main()
