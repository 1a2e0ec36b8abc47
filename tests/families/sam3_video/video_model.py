"""SAM 3's video model in miniature, weights of seed 0: our networks, and transformers' session of the same tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from tracked_clip import Predictor, square

from sam3_build.families.sam3_video.modules import modeling, video_config
from sam3_build.pipeline.interactive import clicks
from sam3_build.torch_modules import sam3

OWN = Predictor("sam3_video", "hf")
SIZE = (120, 160)

# Of a memory attention: the frame looked at and how many there are, frames with prompts, and others that are read.
NOW, FRAMES, PROMPTED, BEFORE = 5, 8, (0, 2), (3, 4)


def inputs(dims):
    """Return call -> the inputs of a network, by our names, of two objects; drawn, but for what is marked."""
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.standard_normal(shape, np.float32)

    grid, width, side = dims["grid"], dims["hidden_size"], dims["image_size"]
    finer = {
        "image_embeddings.0": drawn(1, width // 8, 4 * grid, 4 * grid),
        "image_embeddings.1": drawn(1, width // 4, 2 * grid, 2 * grid),
    }
    remembered = len(PROMPTED) + len(BEFORE)
    times = [NOW - frame for frame in (*PROMPTED, *BEFORE)]
    logits = 4 * drawn(2, 16 * grid, 16 * grid)

    def asked(points, *, several, mask=False):
        return {
            **finer,
            "conditioned_features": drawn(2, width, grid, grid),
            "input_points": rng.uniform(0, side, (2, max(1, points), 2)).astype(np.float32),
            "input_labels": rng.integers(0, 4, (2, points)) if points else np.full((2, 1), -1),
            "input_masks": 4 * drawn(2, 4 * grid, 4 * grid),
            "has_masks": np.full(2, mask),
            "multimask": np.full(2, several),
        }

    def masked(share):
        return {
            "vision_features": drawn(1, width, grid, grid),
            "mask_for_memory": share.astype(np.float32) * 20 - 10,
            "object_score_logits": np.array([[2], [-1]], np.float32),
        }

    return {
        "vision_encoder": {"pixel_values": OWN.pixels()[0]},
        "mask_decoder.point": asked(1, several=True),
        "mask_decoder.points": asked(4, several=False),
        "mask_decoder.refined": asked(2, several=False, mask=True),
        "mask_decoder.followed": asked(0, several=True),
        "memory_attention": {
            "vision_features": drawn(1, width, grid, grid),
            "memory_features": drawn(2, remembered, grid * grid, dims["memory_size"]),
            "memory_offsets": np.array([[0] * len(PROMPTED) + [NOW - frame for frame in BEFORE]] * 2),
            "object_pointers": drawn(2, remembered, width),
            "pointer_times": np.array([times] * 2, np.float32) / (FRAMES - 1),
        },
        "memory_encoder.binarized": masked(logits > 0),
        "memory_encoder.squashed": masked(1 / (1 + np.exp(-logits))),
    }


def sampled(output):
    """Return some hundred values of an output, and how large the largest of all is, last."""
    values = output.reshape(-1)
    # A step that shares no factor with the sizes of maps walks through all rows and columns.
    return np.append(values[:: max(1, len(values) // 600) | 1], np.abs(values).max())


def state():
    """Return all tensors of the components, by our names but for labels of points, which transformers has as one."""
    held = {name: tensor for tensors in OWN.tensors().values() for name, tensor in tensors.items()}
    labels = [held.pop(f"prompt_encoder.point_embed.{label}.weight") for label in range(4)]
    return {**held, "prompt_encoder.point_embed.weight": torch.cat(labels)}


def transformers_model():
    """Return Sam3TrackerVideoModel; what no network of ours holds has random numbers, which must not matter."""
    config = video_config(OWN.config())
    torch.manual_seed(1)
    model = modeling().Sam3TrackerVideoModel(config.tracker_config, remove_vision_encoder=True)
    model.vision_encoder = sam3.modeling().Sam3VisionModel(config.detector_config.vision_config)
    held = {key: tensor for key, tensor in state().items() if not key.startswith("detector.")}
    others = {key: torch.randn(tensor.shape) for key, tensor in model.state_dict().items() if key not in held}
    model.load_state_dict({**held, **others}, strict=True)
    return model.eval()


class Session:
    """transformers' session of the drawn clip. Without `video` it is a stream, which frames are added to."""

    def __init__(self, model, video=True):
        self.model = model
        self.pixels = torch.from_numpy(np.concatenate(OWN.pixels()))
        self.state = modeling().Sam3TrackerVideoInferenceSession(
            self.pixels if video else None, video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32
        )

    def add(self, frame, prompts):
        """Add prompts of one frame, those of one object together; nothing is run."""
        side = self.pixels.shape[-1]
        scale = torch.tensor([side / SIZE[1], side / SIZE[0]])
        for which in dict.fromkeys(prompt.object for prompt in prompts):
            index, own = self.state.obj_id_to_idx(which), [p for p in prompts if p.object == which]
            if own[-1].mask:
                share = Image.fromarray(square().astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
                self.state.add_mask_inputs(index, frame, torch.from_numpy(np.asarray(share) >= 0.5)[None, None])
            else:
                asked = torch.tensor([click for prompt in own for click in clicks(prompt)])
                inputs = {"point_coords": asked[:, :2] * scale, "point_labels": asked[:, 2].int()}
                self.state.add_point_inputs(index, frame, {name: own[None, None] for name, own in inputs.items()})
            new = self.state.obj_with_new_inputs
            self.state.obj_with_new_inputs = [*new, *([] if which in new else [which])]

    def run(self, frame, **options):
        """Return mask logits [objects, side, side] and whether objects are visible [objects], logits, of one frame."""
        if self.state.processed_frames is None or frame not in self.state.processed_frames:
            options["frame"] = self.pixels[frame]
        else:
            options["frame_idx"] = frame
        return _arrays(self.model(self.state, **options))

    def prompt(self, prompts):
        """Run each frame that has prompts, with all of them."""
        for frame in sorted({prompt.frame for prompt in prompts}):
            self.add(frame, [prompt for prompt in prompts if prompt.frame == frame])
            self.run(frame)

    def follow(self, **options):
        """Return frame -> what `run` gives, of the whole clip."""
        found = self.model.propagate_in_video_iterator(self.state, **options)
        return {output.frame_idx: _arrays(output) for output in found}


def _arrays(output):
    return output.pred_masks[:, 0].numpy(), output.object_score_logits.flatten().numpy()
