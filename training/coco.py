"""Writes a folder of scenes: pictures as PNG, annotations.json as COCO has it, with masks and questions, and
scenes.yaml, a manifest whose samples are these pictures, one question about each.

    python -m training.coco OUT --scenes 500

By default these are the held-out scenes. To calibrate on scenes of another seed, or to verify on many:

    python -m training.coco OUT --scenes 32 --seed 9
    doit manifest=OUT/scenes.yaml verify
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from sam3_build.commands.output import outlive_readers
from sam3_build.spec import Json
from training.evaluate import KINDS, SCENES
from training.questions import TEXT_OF_BOXES
from training.scenes import COLOURS, HELD_OUT, SHAPES, SIDE, Scene, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words fed in two ways are one question.
ASKED = [kind for kind in KINDS if kind != "plain"]
DEFAULT = Path(__file__).parents[1] / "manifests" / "sam3_mini.yaml"
CATEGORIES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def main() -> None:
    """Write the scenes that the command line asks for."""
    outlive_readers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--seed", type=int, default=HELD_OUT)
    options = parser.parse_args()
    write(options.folder, options.seed, range(options.scenes))
    sys.stdout.write(f"{options.folder}: {options.scenes} scenes\n")


def write(folder: Path, seed: int, numbers: Iterable[int]) -> None:
    """Write images/<number>.png, annotations.json and scenes.yaml into `folder`."""
    from PIL import Image

    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Json]] = []
    annotations: list[Json] = []
    questions: list[dict[str, Json]] = []
    for number in numbers:
        scene = draw(seed, number)
        name = f"{number:06}.png"
        Image.fromarray(scene.picture).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        first = len(annotations) + 1
        annotations += [_annotation(first + i, number, scene, i) for i in range(len(scene.shapes))]
        questions += [_question(kind, seed, number, scene, first) for kind in ASKED]
    document: dict[str, Json] = {
        "info": {"description": f"drawn scenes, seed {seed}; questions: what the evaluation asks, and its answers"},
        "images": list[Json](images),
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CATEGORIES)],
        "questions": list[Json](questions),
    }
    (folder / "annotations.json").write_text(json.dumps(document) + "\n")
    (folder / "scenes.yaml").write_text("\n".join(_manifest(folder, images, questions)) + "\n")


def _manifest(folder: Path, images: Sequence[dict[str, Json]], questions: Sequence[dict[str, Json]]) -> Iterator[str]:
    """Yield the lines of a manifest that asks one question about each picture, of every kind in turn."""
    yield f"# The miniature, on {len(images)} drawn scenes."
    yield f"extends: {os.path.relpath(DEFAULT, folder.resolve())}"
    yield "samples:"
    for i, image in enumerate(images):
        question = questions[i * len(ASKED) + i % len(ASKED)]
        text = "" if question["text"] == TEXT_OF_BOXES else f", text: {question['text']}"
        boxes = ";".join(_as_prompt(box) for box in cast("list[dict[str, Json]]", question["boxes"]))
        yield f"  - {{image: images/{image['file_name']}{text}{boxes and f', boxes: {json.dumps(boxes)}'}}}"


def _as_prompt(box: dict[str, Json]) -> str:
    """Return a box as manifests have it: left, top, width, height."""
    left, top, right, bottom = (int(edge) for edge in cast("list[float]", box["xyxy"]))
    return f"{'pos' if box['label'] else 'neg'}:{left},{top},{right - left},{bottom - top}"


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return how many pixels are outside, inside, outside ... in turn, column by column: COCO's uncompressed RLE."""
    lengths = [(bool(value), len(list(run))) for value, run in groupby(mask.T.ravel().tolist())]
    return [0] * lengths[0][0] + [length for _, length in lengths]


def _annotation(number: int, image: int, scene: Scene, index: int) -> dict[str, Json]:
    shape = scene.shapes[index]
    left, top, right, bottom = shape.box
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORIES.index(f"{shape.colour} {shape.shape}") + 1,
        "iscrowd": 0,
        "area": int(np.count_nonzero(shape.mask)),
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": {"size": [SIDE, SIDE], "counts": list[Json](run_lengths(shape.mask))},
    }


def _question(kind: str, seed: int, number: int, scene: Scene, first: int) -> dict[str, Json]:
    question = KINDS[kind](scene, np.random.default_rng([seed, number, 1]))
    return {
        "kind": kind,
        "image_id": number,
        "text": question.text,
        "boxes": [{"label": label, "xyxy": list[Json](corners)} for label, corners in question.boxes],
        "annotation_ids": [first + index for index in question.wanted],
    }


if __name__ == "__main__":
    main()
