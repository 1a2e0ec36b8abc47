"""Takes a seed and a step, returns that step's pictures, questions and answers as arrays. No weights.

Every picture is encoded once and asked several questions, because encoding it is what costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3_build.pipeline.concept_networks import IGNORED_LABEL
from training.questions import MOST_BOXES, Question, ask_boxes, ask_words
from training.scenes import COLOURS, MOST_SHAPES, SHAPES, SIDE, Scene, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

# Masks are learnt at half of the picture's resolution.
MASK_SIDE = SIDE // 2

# Cells of the coarsest level: one per patch.
CELLS = SIDE // 14

# Colours are learnt in minutes, shapes in hours: training asks for shapes alone more often than the evaluation does.
HARDER = ("both", "both", "colour", "shape", "shape")

# How many of the questions by words are fed as `reference: hf` does, so that both references mean the same here.
PLAIN = 0.3

# The longest text is "the red circle" with <bos> and <eos>. Padding has no influence, so none is fed.
TEXT_LENGTH = 5


@dataclass(frozen=True)
class Batch:
    """Pictures p, questions q, shapes s (padded to MOST_SHAPES with weight 0) and texts t, each text once."""

    images: Floats  # [p, 3, side, side], -1 to 1
    picture: Integers  # [q], which picture is asked
    text: Integers  # [q], which text
    input_ids: Integers  # [t, TEXT_LENGTH]
    attention_mask: Integers  # [t, TEXT_LENGTH]
    boxes: Floats  # [q, MOST_BOXES, 4], cxcywh, relative
    labels: Integers  # [q, MOST_BOXES]
    geometry: NDArray[np.bool_]  # [q], whether the geometry encoder's tokens count
    wanted_boxes: Floats  # [q, s, 4], cxcywh, relative
    wanted: Integers  # [q, s], index of the shape in its picture, or -1
    masks: Floats  # [p, s, MASK_SIDE, MASK_SIDE], how much of each cell is covered


@dataclass(frozen=True)
class Glances:
    """Pictures p about which nothing is asked, and what lies in them: shapes s, padded to MOST_SHAPES."""

    images: Floats  # [p, 3, side, side], -1 to 1
    count: Integers  # [p], how many shapes
    kinds: Integers  # [p, s, 2], indices of colour and shape, or -1
    boxes: Floats  # [p, s, 4], cxcywh, relative
    masks: Floats  # [p, s, CELLS, CELLS], how much of each cell is covered


class Words:
    """The tokenizer, each text looked up once."""

    def __init__(self, tokenizer: Path) -> None:
        """Read the tokenizer's file."""
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._pad = self._tokenizer.token_to_id("<eos>")
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the token ids of `text`, <bos> and <eos> included, without padding."""
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text).ids
        return self._known[text]

    def padded(self, texts: Sequence[str]) -> tuple[Integers, Integers]:
        """Return (ids, attention mask), both [texts, TEXT_LENGTH]."""
        ids = np.full((len(texts), TEXT_LENGTH), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            token_ids = self.ids(text)
            ids[row, : len(token_ids)], mask[row, : len(token_ids)] = token_ids, 1
        return ids, mask


def make(seed: int, step: int, pictures: int, questions: int, words: Words, boxed: int = 1) -> Batch:
    """Return the batch of `step`: `pictures` new scenes, each asked `questions` times, `boxed` of these by boxes."""
    scenes = [draw(seed, step * pictures + i) for i in range(pictures)]
    rng = np.random.default_rng([seed, step, 1])
    questions_of = [
        (p, ask_boxes(scene, rng) if k >= questions - boxed else _ask_words(scene, rng))
        for p, scene in enumerate(scenes)
        for k in range(questions)
    ]
    return collate(scenes, questions_of, words)


def _ask_words(scene: Scene, rng: np.random.Generator) -> Question:
    return replace(ask_words(scene, rng, HARDER, articles=True), plain=bool(rng.random() < PLAIN))


def glance(seed: int, step: int, pictures: int) -> Glances:
    """Return the pictures that are only looked at in `step`; take another seed than for those that are asked about."""
    scenes = [draw(seed, step * pictures + i) for i in range(pictures)]
    boxes = np.zeros((pictures, MOST_SHAPES, 4), np.float32)
    for row, scene in enumerate(scenes):
        for i, shape in enumerate(scene.shapes):
            boxes[row, i] = relative(shape.box)
    return Glances(
        images=np.stack([pixels(scene) for scene in scenes]),
        count=np.array([len(scene.shapes) for scene in scenes], np.int64),
        kinds=np.stack([_kinds(scene) for scene in scenes]),
        boxes=boxes,
        masks=np.stack([_coverage(scene, CELLS) for scene in scenes]),
    )


def collate(scenes: Sequence[Scene], questions: Sequence[tuple[int, Question]], words: Words) -> Batch:
    """Return scenes and the questions about them as one batch."""
    texts = sorted({question.text for _, question in questions})
    ids, mask = words.padded(texts)
    rows = len(questions)
    boxes = np.zeros((rows, MOST_BOXES, 4), np.float32)
    labels = np.full((rows, MOST_BOXES), IGNORED_LABEL, np.int64)
    wanted = np.full((rows, MOST_SHAPES), -1, np.int64)
    wanted_boxes = np.zeros((rows, MOST_SHAPES, 4), np.float32)
    for row, (p, question) in enumerate(questions):
        for i, (label, corners) in enumerate(question.boxes):
            boxes[row, i], labels[row, i] = relative(corners), label
        for i, index in enumerate(question.wanted):
            wanted[row, i], wanted_boxes[row, i] = index, relative(scenes[p].shapes[index].box)
    return Batch(
        images=np.stack([pixels(scene) for scene in scenes]),
        picture=np.array([p for p, _ in questions], np.int64),
        text=np.array([texts.index(question.text) for _, question in questions], np.int64),
        input_ids=ids,
        attention_mask=mask,
        boxes=boxes,
        labels=labels,
        geometry=np.array([not question.plain for _, question in questions]),
        wanted_boxes=wanted_boxes,
        wanted=wanted,
        masks=np.stack([_coverage(scene, MASK_SIDE) for scene in scenes]),
    )


def pixels(scene: Scene) -> Floats:
    """Return [3, side, side], -1 to 1: what sam3_build's preprocessing makes of a picture of the network's size."""
    return scene.picture.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def relative(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """Return xyxy in pixels as centre, width and height relative to the picture."""
    left, top, right, bottom = corners
    return (left + right) / 2 / SIDE, (top + bottom) / 2 / SIDE, (right - left) / SIDE, (bottom - top) / SIDE


def _kinds(scene: Scene) -> Integers:
    kinds = np.full((MOST_SHAPES, 2), -1, np.int64)
    for i, shape in enumerate(scene.shapes):
        kinds[i] = list(COLOURS).index(shape.colour), SHAPES.index(shape.shape)
    return kinds


def _coverage(scene: Scene, side: int) -> Floats:
    cells = np.zeros((MOST_SHAPES, side, side), np.float32)
    for i, shape in enumerate(scene.shapes):
        cells[i] = shape.mask.reshape(side, SIDE // side, side, SIDE // side).mean(axis=(1, 3))
    return cells
