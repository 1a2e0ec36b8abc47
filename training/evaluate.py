"""Measures how well a model, in PyTorch or as built files, answers questions about held-out scenes.

    python -m training.evaluate FOLDER [--write]

runs, in PyTorch, the very networks that get exported, on the held-out scenes; `--write` puts the numbers beside the
weights, as numbers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3_build.commands.output import outlive_readers
from sam3_build.families.sam3_image.results import find
from sam3_build.spec import Json
from training.batches import Batch, Words, collate
from training.metrics import Tally
from training.questions import Question, ask_both, ask_box, ask_negative, ask_plainly, ask_words
from training.scenes import HELD_OUT, SIDE, Scene, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[np.generic]

SCENES = 500
# So many of them are evaluated in a test.
FEW = 40
AT_ONCE = 25
THRESHOLD = 0.5

Ask = Callable[[Scene, np.random.Generator], Question]
KINDS: Mapping[str, Ask] = {
    "text": ask_words,
    "plain": ask_plainly,
    "box": ask_box,
    "both": ask_both,
    "negative": ask_negative,
}

# What the committed weights must reach.
GOALS = {"text": {"iou": 0.80, "count": 0.80, "presence": 0.95}, "box": {"iou": 0.80}}

# A component's arrays in, its outputs out, both by name; and a batch in, the decoder's outputs for every question out.
Network = Callable[[Mapping[str, "Array"]], Mapping[str, "Array"]]
Answer = Callable[[Batch], Mapping[str, "Array"]]


def evaluate(
    answer: Answer, tokenizer: Path, scenes: int = SCENES, seed: int = HELD_OUT
) -> dict[str, dict[str, float]]:
    """Return kind of question -> metric -> value, one of each about each of the first scenes of `seed`."""
    words, tallies = Words(tokenizer), {kind: Tally() for kind in KINDS}
    for start in range(0, scenes, AT_ONCE):
        drawn = [draw(seed, number) for number in range(start, min(start + AT_ONCE, scenes))]
        for kind, ask in KINDS.items():
            questions = [ask(scene, np.random.default_rng([seed, start + i, 1])) for i, scene in enumerate(drawn)]
            outputs = answer(collate(drawn, list(enumerate(questions)), words))
            for row, question in enumerate(questions):
                instances = find({name: array[row] for name, array in outputs.items()}, (SIDE, SIDE), THRESHOLD)
                wanted = [drawn[row].shapes[i].mask for i in question.wanted]
                tallies[kind].add(list(instances.masks), wanted, present=(instances.presence or 0) > THRESHOLD)
    return {kind: tally.numbers() for kind, tally in tallies.items()}


def chained(networks: Mapping[str, Network]) -> Answer:
    """Return what answers by running the four networks, each on what the one before it computed."""

    def answer(batch: Batch) -> Mapping[str, Array]:
        levels = networks["vision_encoder"]({"images": batch.images})
        coarse = {name: levels[name][batch.picture] for name in ("fpn_feat_2", "fpn_pos_2")}
        words = networks["text_encoder"]({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask})
        shapes = networks["geometry_encoder"](
            {"input_boxes": batch.boxes, "input_boxes_labels": batch.labels, **coarse}
        )
        counts = np.logical_and(shapes["geometry_mask"], batch.geometry[:, None])
        prompt = {
            "prompt_features": np.concatenate([words["text_features"][batch.text], shapes["geometry_features"]], 1),
            "prompt_mask": np.concatenate([words["text_mask"][batch.text], counts], 1),
        }
        fine = {name: levels[name][batch.picture] for name in ("fpn_feat_0", "fpn_feat_1")}
        return networks["decoder"]({**fine, **coarse, **prompt})

    return answer


def pytorch(tensors: Mapping[str, Tensor], config: Mapping[str, Json]) -> Answer:
    """Return what answers in PyTorch; `tensors` are those of a Sam3Model by their checkpoint keys."""
    import torch

    from sam3_build.families.sam3_image import modules
    from sam3_build.families.sam3_image.family import FAMILY
    from sam3_build.torch_modules.assemble import assemble

    def network(name: str, outputs: Sequence[str]) -> Network:
        keys = modules.skeleton(name, config).state_dict()
        module = assemble(modules, name, config, {key: tensors[key].float() for key in keys})

        @torch.inference_mode()
        def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
            computed = module(**{key: torch.from_numpy(array) for key, array in arrays.items()})
            return {output: tensor.numpy() for output, tensor in zip(outputs, computed, strict=True)}

        return run

    return chained({c.name: network(c.name, [output.name for output in c.outputs]) for c in FAMILY.components})


def table(numbers: Mapping[str, Mapping[str, float]]) -> str:
    """Return the numbers as lines of text."""
    lines = ["question  mean IoU  exact count  presence"]
    for kind, row in numbers.items():
        lines.append(f"{kind:8}  {row['iou']:8.3f}  {row['count']:11.3f}  {row['presence']:8.3f}")
    return "\n".join(lines)


def load(folder: Path) -> Answer:
    """Return what answers with the weights of a folder: model.safetensors and config.json."""
    from safetensors.torch import load_file

    return pytorch(load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text()))


def main() -> None:
    """Evaluate a folder with model.safetensors, config.json and tokenizer.json."""
    outlive_readers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--seed", type=int, default=HELD_OUT)
    parser.add_argument("--write", action="store_true", help="write numbers.json into the folder")
    options = parser.parse_args()
    answer, tokenizer = load(options.folder), options.folder / "tokenizer.json"
    numbers = evaluate(answer, tokenizer, options.scenes, options.seed)
    sys.stdout.write(table(numbers) + "\n")
    if options.write:
        few = evaluate(answer, tokenizer, FEW, options.seed)
        document = {"seed": options.seed, str(FEW): few, str(options.scenes): numbers}
        (options.folder / "numbers.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
