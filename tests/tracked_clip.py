"""A miniature's predictor in PyTorch, run by its family's own loop on a drawn clip; and prompts to follow on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from miniature import ROOT
from PIL import Image

from sam3_build import registry
from sam3_build.pipeline import tracked_frame
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.predictor_cases import ClipPrompts, ObjectPrompt
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights.inventory import inventory
from sam3_build.weights.load import load

SEED = {"random": {"seed": 0}}
CLIP = sorted((ROOT / "manifests" / "samples" / "clip").glob("*.png"))

# The frames' sizes are those of the drawn clip, 160 x 120.
STAR, CIRCLE, SQUARE = Point(1, 30, 44), Box(1, 82, 20, 34, 34), Point(1, 99, 96)
PROMPTS = {
    "points": [ObjectPrompt(0, 1, (STAR,)), ObjectPrompt(0, 2, (SQUARE, Point(0, 30, 44)))],
    "box": [ObjectPrompt(0, 1, boxes=(CIRCLE,)), ObjectPrompt(0, 2, (STAR,))],
    "several_frames": [
        ObjectPrompt(0, 1, (STAR,)),
        ObjectPrompt(3, 1, (Point(1, 48, 44),)),
        ObjectPrompt(2, 2, (SQUARE,)),
    ],
    "refined": [ObjectPrompt(0, 1, (STAR,)), ObjectPrompt(0, 1, (Point(0, 99, 96),))],
    "mask": [ObjectPrompt(0, 1, mask="square"), ObjectPrompt(0, 2, (STAR,))],
}
# On a frame that was followed, after the prompts of a case.
CORRECTED, CORRECTION = "points", [ObjectPrompt(2, 1, (Point(0, 99, 96),))]


def keep_memories_in_fp32(monkeypatch):
    """Round no memory to bfloat16, neither here nor in transformers: a last bit that differs could grow 2^16 times."""
    import torch

    monkeypatch.setattr(tracked_frame, "bfloat16", lambda values: values.astype(np.float32))
    monkeypatch.setattr(torch, "bfloat16", torch.float32)


def square(size=(120, 160)):
    """Return the mask of the square, [height, width] bool; at another size than the clip's, stretched."""
    mask = np.zeros((120, 160), np.bool_)
    mask[84:108, 74:124] = True
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Predictor:
    """The miniature of a family with the layout `predictor`: with weights of seed 0, or with those of a folder.

    Without a folder `manifests/<family>_mini.json` is its config.
    """

    family: str
    reference: str = "meta"
    folder: Path | None = None

    @property
    def code(self):
        """The family's code."""
        return registry.family_code(self.family)

    def config(self):
        """Return the config with all defaults."""
        return _config(self.family, self.folder)

    def tensors(self, layout="predictor"):
        """Return component -> its tensors."""
        source, file = (SEED, None) if self.folder is None else ({"path": "."}, self.folder / "model.safetensors")
        listed = inventory(self.code, source, self.config(), file, layout)
        return {
            name: load(self.code, self._network(layout, name), source, self.config(), file, lines)
            for name, lines in listed.items()
        }

    def networks(self, layout="predictor", others=None):
        """Return component -> what runs it in PyTorch. others: component -> tensors in the place of those of seed 0."""
        others = others or {}
        models = {
            name: assemble(
                self.code.modules, self._network(layout, name), self.config(), {**own, **others.get(name, {})}
            )
            for name, own in self.tensors(layout).items()
        }

        def runs(name):
            outputs = [tensor.name for tensor in self.code.family.laid_out(layout).component(name).outputs]
            return lambda arrays, kind="": compute(models[name], arrays, outputs)

        return {name: runs(name) for name in models}

    def pixels(self, frames=None):
        """Return frames as the network takes them, [1, 3, side, side] each: of CLIP, or uint8 [height, width, 3]."""
        pictures = map(Image.open, CLIP) if frames is None else map(Image.fromarray, frames)
        prepared = [self.code.prompts.frame_arrays(picture, self.config()) for picture in pictures]
        return [frame["pixel_values"] for frame in prepared]

    def encoded(self, run, layout="predictor", frames=None):
        """Return what the encoder gives of each frame."""
        name, (given,) = next((c.name, c.inputs) for c in self.code.family.laid_out(layout).components)
        return [run[name]({given.name: frame}) for frame in self.pixels(frames)]

    def given(self, prompts, folder: Path, size=(120, 160)):
        """Return prompts as the loop gets them."""
        Image.fromarray(square(size)).save(folder / "square.png")
        files = {"square": folder / "square.png"}
        request = PromptRequest("predictor", "video", self.reference, (), None, files, self.config())
        return self.code.prompts.clip_arrays(request, ClipPrompts(tuple(prompts)), size)

    def corrected(self, run, frames, prompts, correction, folder: Path, size=(120, 160)):
        """Return mask logits [frames, objects, h, w] of a clip in which a frame is corrected when it was followed.

        prompts: on the first frame; frames: as `encoded` gives them
        """
        tracker = self.code.tracker("track")(run, len(frames))
        answers = [tracker.ask(0, frames[0], self.given(prompts, folder, size))]
        for t in range(1, len(frames)):
            found = tracker.follow(t, frames[t])
            if t == correction[0].frame:
                before = {which: answer["pred_masks"] for which, answer in found.items()}
                found |= tracker.ask(t, frames[t], self.given(correction, folder, size), before)
            answers.append(found)
        return np.stack([[found[which]["pred_masks"] for which in sorted(found)] for found in answers])

    def _network(self, layout, name):
        return self.code.family.laid_out(layout).component(name).network(self.reference)


@cache
def _config(family, folder):
    file = ROOT / "manifests" / f"{family}_mini.json" if folder is None else folder / "config.json"
    config = json.loads(file.read_text())
    return registry.family_code(family).modules.complete_config(config)
