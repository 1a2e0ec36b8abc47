"""A scene and a random generator in, a question about it out: words, boxes, and which shapes are the answer. No torch.

What a box means: a positive box around a shape asks for everything of the same kind, colour and shape; a negative one
takes everything of its shape's kind out of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.scenes import COLOURS, SHAPES, Scene, Shape

if TYPE_CHECKING:
    import numpy as np

# What the family reads when boxes come without words; see sam3_build/families/sam3_image/prompts.py.
TEXT_OF_BOXES = "visual"

# Three of four texts name something that is there.
PRESENT = 0.75
MOST_BOXES = 2

# Half of the texts name colour and shape.
FORMS = ("both", "both", "colour", "shape")

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """A text, boxes as (label 1 or 0, xyxy in pixels), and the indices of the scene's shapes that it asks for."""

    text: str
    boxes: tuple[tuple[int, Corners], ...]
    wanted: tuple[int, ...]


def ask_words(
    scene: Scene, rng: np.random.Generator, forms: Sequence[str] = FORMS, *, articles: bool = False
) -> Question:
    """Ask by colour, shape or both, as often as `forms` holds each; one of four names nothing there."""
    form = str(rng.choice(forms))
    there = sorted({_words(shape, form) for shape in scene.shapes})
    absent = sorted(set(_vocabulary(form)) - set(there))
    if rng.random() < PRESENT or not absent:
        words = there[int(rng.integers(len(there)))]
    else:
        # Half of the absent things share a colour or a shape with something that is there.
        alike = [words for words in absent if set(words.split()) & set(" ".join(_names(scene)).split())]
        chosen = alike if alike and rng.random() < 0.5 else absent
        words = chosen[int(rng.integers(len(chosen)))]
    wanted = tuple(i for i, shape in enumerate(scene.shapes) if _words(shape, form) == words)
    if articles and rng.random() < 0.1:
        words = f"{rng.choice(['a', 'the'])} {words}"
    return Question(words, (), wanted)


def ask_box(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by one positive box, exactly around one of the shapes."""
    index = int(rng.integers(len(scene.shapes)))
    return Question(TEXT_OF_BOXES, ((1, _corners(scene.shapes[index])),), _alike(scene, scene.shapes[index].kind))


def ask_boxes(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by boxes as people draw them, a little off: one positive, or with a negative, or words and a negative."""
    way = rng.random()
    if way < 0.6 or len(scene.shapes) == 1:
        question = ask_box(scene, rng)
        return Question(question.text, (_shaken(question.boxes[0], rng),), question.wanted)
    if way < 0.75:
        question = ask_box(scene, rng)
        others = [i for i in range(len(scene.shapes)) if i not in question.wanted] or list(question.wanted)
        return _without(scene, question, others, rng)
    # One word may mean several kinds, of which the negative box takes one away. Where it would take all, it mostly lies
    # on something else: else a negative box comes to mean that nothing is there.
    question = ask_words(scene, rng, ("colour", "shape"))
    everything = range(len(scene.shapes))
    kinds = {scene.shapes[i].kind for i in question.wanted}
    others = [i for i in everything if i not in question.wanted]
    takes = len(kinds) > 1 or (kinds and rng.random() < 0.2)
    return _without(scene, question, list(question.wanted) if takes else others or list(everything), rng)


def _without(scene: Scene, question: Question, candidates: list[int], rng: np.random.Generator) -> Question:
    """Add a negative box on one of the shapes `candidates`; what is of its kind is wanted no more."""
    shape = scene.shapes[candidates[int(rng.integers(len(candidates)))]]
    boxes = tuple(_shaken(box, rng) for box in (*question.boxes, (0, _corners(shape))))
    return Question(question.text, boxes, tuple(i for i in question.wanted if scene.shapes[i].kind != shape.kind))


def _shaken(box: tuple[int, Corners], rng: np.random.Generator) -> tuple[int, Corners]:
    """Move every edge by up to a tenth of the box's size."""
    label, (left, top, right, bottom) = box
    dx, dy = (right - left) * 0.1, (bottom - top) * 0.1
    a, b, c, d = rng.uniform(-1, 1, size=4)
    return label, (left + a * dx, top + b * dy, right + c * dx, bottom + d * dy)


def _corners(shape: Shape) -> Corners:
    left, top, right, bottom = shape.box
    return float(left), float(top), float(right), float(bottom)


def _alike(scene: Scene, kind: tuple[str, str]) -> tuple[int, ...]:
    return tuple(i for i, shape in enumerate(scene.shapes) if shape.kind == kind)


def _words(shape: Shape, form: str) -> str:
    return {"both": f"{shape.colour} {shape.shape}", "colour": shape.colour, "shape": shape.shape}[form]


def _names(scene: Scene) -> list[str]:
    return [_words(shape, "both") for shape in scene.shapes]


def _vocabulary(form: str) -> list[str]:
    both = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return {"both": both, "colour": list(COLOURS), "shape": list(SHAPES)}[form]
