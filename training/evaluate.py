"""Weights and held-out scenes in, how well they answer out: runs the very networks that get exported, in PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3_build.spec import Json
from training.batches import Batch, Words, collate
from training.metrics import Tally
from training.questions import Question, ask_box, ask_words
from training.scenes import SIDE, Scene, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Training takes other seeds (see train.py); nothing that is trained on has been drawn from this one.
HELD_OUT = 500_000
SCENES = 500
AT_ONCE = 25
THRESHOLD = 0.5

Ask = Callable[[Scene, np.random.Generator], Question]
KINDS: Mapping[str, Ask] = {"text": ask_words, "box": ask_box}


def evaluate(
    tensors: Mapping[str, Tensor], config: Mapping[str, Json], tokenizer: Path, scenes: int = SCENES
) -> dict[str, dict[str, float]]:
    """Return kind of question -> metric -> value, over the first so many held-out scenes, one of each kind per scene.

    `tensors` are those of a Sam3Model by their checkpoint keys.
    """
    answer = answerer(tensors, config)
    words, tallies = Words(tokenizer), {kind: Tally() for kind in KINDS}
    for start in range(0, scenes, AT_ONCE):
        drawn = [draw(HELD_OUT, number) for number in range(start, min(start + AT_ONCE, scenes))]
        for kind, ask in KINDS.items():
            asked = [ask(scene, np.random.default_rng([HELD_OUT, start + i, 1])) for i, scene in enumerate(drawn)]
            found, present = answer(collate(drawn, list(enumerate(asked)), words))
            for row, question in enumerate(asked):
                wanted = [drawn[row].shapes[i].mask for i in question.wanted]
                tallies[kind].add(found[row], wanted, present=present[row])
    return {kind: tally.numbers() for kind, tally in tallies.items()}


def answerer(
    tensors: Mapping[str, Tensor], config: Mapping[str, Json]
) -> Callable[[Batch], tuple[list[list[NDArray[np.bool_]]], Sequence[bool]]]:
    """Return a function of a batch that returns the masks found per question, and whether the thing is there."""
    import torch
    from torch.nn.functional import interpolate

    from sam3_build.families.sam3_image.forward import assemble, skeleton

    def network(name: str) -> Callable[..., tuple[Tensor, ...]]:
        keys = skeleton(name, config).state_dict()
        return assemble(name, config, {key: tensors[key].float() for key in keys})

    vision, text, geometry, decoder = map(network, ("vision_encoder", "text_encoder", "geometry_encoder", "decoder"))

    @torch.inference_mode()
    def answer(batch: Batch) -> tuple[list[list[NDArray[np.bool_]]], Sequence[bool]]:
        picture, row = torch.from_numpy(batch.picture), torch.from_numpy(batch.text)
        levels = [level[picture] for level in vision(torch.from_numpy(batch.images))]
        words, valid = text(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask))
        shapes, there = geometry(torch.from_numpy(batch.boxes), torch.from_numpy(batch.labels), *levels[2:])
        prompt, mask = torch.cat([words[row], shapes], 1), torch.cat([valid[row], there], 1)
        masks, _, logits, presence = decoder(*levels, prompt, mask)
        scores = logits.sigmoid() * presence.sigmoid()
        found = []
        for some, score in zip(masks, scores, strict=True):
            kept = some[score > THRESHOLD]
            if len(kept):
                kept = interpolate(kept[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
            found.append(list((kept > 0).numpy()))
        return found, (presence[:, 0] > 0).tolist()

    return answer


def table(numbers: Mapping[str, Mapping[str, float]]) -> str:
    """Return the numbers as lines of text."""
    lines = ["question  mean IoU  exact count  presence"]
    for kind, row in numbers.items():
        lines.append(f"{kind:8}  {row['iou']:8.3f}  {row['count']:11.3f}  {row['presence']:8.3f}")
    return "\n".join(lines)


def main() -> None:
    """Evaluate a folder with model.safetensors, config.json and tokenizer.json."""
    from safetensors.torch import load_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=SCENES)
    options = parser.parse_args()
    config = json.loads((options.folder / "config.json").read_text())
    tensors = load_file(options.folder / "model.safetensors")
    sys.stdout.write(table(evaluate(tensors, config, options.folder / "tokenizer.json", options.scenes)) + "\n")


if __name__ == "__main__":
    main()
