"""transformers' EdgeTamVideoModel with the miniature's weights, our trunk in the place of timm's; and its session."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tracked_clip import Predictor, square

from sam3_build.families.edgetam import repvit
from sam3_build.families.edgetam.config import trunk_of
from sam3_build.pipeline.interactive import clicks

OWN = Predictor("edgetam")
modeling = OWN.code.modules.modeling


class Trunk(nn.Module):
    """What transformers takes from timm."""

    def __init__(self):
        super().__init__()
        self.timm_model = repvit.trunk(*trunk_of(OWN.config()))

    def forward(self, pixel_values, **given):
        """Return its maps as transformers' wrapper of timm does."""
        return SimpleNamespace(last_hidden_state=self.timm_model(pixel_values), hidden_states=None)


def model(monkeypatch):
    """Return the model, every module of transformers' but the trunk."""
    monkeypatch.setattr(modeling("edgetam"), "AutoModel", SimpleNamespace(from_config=lambda config: Trunk()))
    made = modeling().EdgeTamVideoModel(OWN.code.modules.edgetam_config(OWN.config())).eval()
    missing, unexpected = made.load_state_dict(weights(), strict=False)
    assert not unexpected
    assert {name for name in missing if "num_batches_tracked" not in name} == {"no_memory_positional_encoding"}
    return made


def weights():
    """Return the miniature's weights by transformers' names."""
    own = {name: tensor for tensors in OWN.tensors().values() for name, tensor in tensors.items()}
    labels = [name for name in own if ".point_embed." in name]
    return own | {"prompt_encoder.point_embed.weight": torch.cat([own.pop(name) for name in labels])}


def maps_of(model, pixels):
    """Return the three maps of a frame, the finest first, as [1, channels, side, side]."""
    found = model.get_image_features(torch.from_numpy(pixels), return_dict=True).fpn_hidden_states
    sizes = model.backbone_feature_sizes
    return [cells.permute(1, 2, 0).reshape(1, -1, *size) for cells, size in zip(found, sizes, strict=True)]


def answer_masks_as_meta(model):
    """Let a mask prompt give what it gives in Meta's code.

    transformers takes the pointer of the best of three masks, and remembers the mask as it was given.
    """
    decode, of_mask = model._single_frame_forward, model._use_mask_as_output
    model._single_frame_forward = lambda **given: decode(**{"multimask_output": False, **given})

    def use(*given):
        output = of_mask(*given)
        side = output.high_res_masks.shape[-2:]
        output.high_res_masks = functional.interpolate(output.pred_masks, size=side, mode="bilinear")
        return output

    model._use_mask_as_output = use


def follow(model, prompts):
    """Return frame -> mask logits [objects, h, w] of the drawn clip."""
    frames = torch.from_numpy(np.concatenate(OWN.pixels()))
    session = modeling().EdgeTamVideoInferenceSession(frames, 120, 160, dtype=torch.float32)
    side = OWN.config()["image_size"]
    scale = torch.tensor([side / 160, side / 120])
    before = {}
    with torch.no_grad():
        for prompt in prompts:
            index, at = session.obj_id_to_idx(prompt.object), (prompt.object, prompt.frame)
            session.obj_with_new_inputs = [prompt.object]
            if prompt.mask:
                image = torch.from_numpy(square().astype(np.float32))[None, None]
                squashed = functional.interpolate(image, (side, side), mode="bilinear", antialias=True) >= 0.5
                session.add_mask_inputs(index, prompt.frame, squashed.float())
                model(session, frame_idx=prompt.frame)
                continue
            points = torch.tensor(clicks(prompt))
            asked, logits = before.get(at, (points[:0], None))
            points = torch.cat([asked, points])
            inputs = {
                "point_coords": (points[:, :2] * scale)[None, None],
                "point_labels": points[:, 2].int()[None, None],
            }
            if logits is None:
                session.add_point_inputs(index, prompt.frame, inputs)
                model(session, frame_idx=prompt.frame)
                output = session.output_dict_per_obj[index]["cond_frame_outputs"][prompt.frame]
            else:
                # Its own session feeds no earlier mask to a click that corrects it, as Meta's predictor does.
                session.obj_with_new_inputs = []
                output = model._run_single_frame_inference(
                    session, prompt.frame, index, 1, True, inputs, None, False, True, logits.clamp(-32, 32)
                )
                session.store_output(index, prompt.frame, output_value=output, is_conditioning_frame=True)
            before[at] = points, output["pred_masks"]
        return {
            output.frame_idx: output.pred_masks.flatten(0, 1).numpy()
            for output in model.propagate_in_video_iterator(session)
        }
