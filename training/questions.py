"""Takes a scene, returns a question about it: text, boxes, and which shapes are the answer. No torch.

What a box means: a positive box around a shape asks for everything of the same kind, colour and shape, two of them for
both kinds; a negative one takes everything of its shape's kind out of the answer. With words, a positive box only shows
one of the things that they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from training.scenes import COLOURS, SHAPES, Scene, Shape

if TYPE_CHECKING:
    import numpy as np

# What the family reads when boxes come without words; see sam3_build/pipeline/concept_prompts.py.
TEXT_OF_BOXES = "visual"

# Three of four texts name something that is there.
PRESENT = 0.75
MOST_BOXES = 2

# How boxes are asked with: words and a negative one, words and a positive one, two positive ones, one of each, and one.
WAYS = {"negative": 0.3, "both": 0.25, "two": 0.1, "against": 0.1, "one": 0.25}

# Half of the texts name colour and shape.
FORMS = ("both", "both", "colour", "shape")

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """A text, boxes as (label 1 or 0, xyxy in pixels), and the indices of the scene's shapes that it asks for.

    plain: fed without the geometry encoder's CLS token, as `reference: hf` feeds words alone
    """

    text: str
    boxes: tuple[tuple[int, Corners], ...]
    wanted: tuple[int, ...]
    plain: bool = False


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


def ask_plainly(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by words alone, fed as `reference: hf` feeds them."""
    return replace(ask_words(scene, rng), plain=True)


def ask_box(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by one positive box, exactly around one of the shapes."""
    index = int(rng.integers(len(scene.shapes)))
    return Question(TEXT_OF_BOXES, ((1, _corners(scene.shapes[index])),), _alike(scene, scene.shapes[index].kind))


def ask_negative(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by words, and one negative box exactly around one of the shapes.

    Mostly by a word that means several kinds, of which the box takes one away. Else it mostly lies on something that
    was not asked for: were the answer often empty, a negative box would come to mean that nothing is there.
    """
    kinds = {shape.kind for shape in scene.shapes}
    words = [word for kind in kinds for word in kind]
    several = sorted({word for word in words if sum(word in kind for kind in kinds) > 1})
    if several and rng.random() < 0.7:
        text = several[int(rng.integers(len(several)))]
        wanted = tuple(i for i, shape in enumerate(scene.shapes) if text in shape.kind)
        return _without(scene, Question(text, (), wanted), list(wanted), rng)
    question = ask_words(scene, rng)
    others = [i for i in range(len(scene.shapes)) if i not in question.wanted]
    takes = not others or (question.wanted and rng.random() < 0.15)
    return _without(scene, question, list(question.wanted) if takes else others, rng)


def ask_both(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by words, and one positive box exactly around one of the things that they name: all of these are wanted."""
    form = str(rng.choice(FORMS))
    shape = scene.shapes[int(rng.integers(len(scene.shapes)))]
    text = _words(shape, form)
    wanted = tuple(i for i, other in enumerate(scene.shapes) if _words(other, form) == text)
    return Question(text, ((1, _corners(shape)),), wanted)


def ask_boxes(scene: Scene, rng: np.random.Generator) -> Question:
    """Ask by boxes as people draw them, a little off, alone and with words."""
    way = str(rng.choice(list(WAYS), p=list(WAYS.values())))
    question = ask_box(scene, rng)
    others = [i for i in range(len(scene.shapes)) if i not in question.wanted]
    if way == "negative":
        question = ask_negative(scene, rng)
    elif way == "both":
        question = ask_both(scene, rng)
    elif way == "two":
        second = ask_box(scene, rng)
        wanted = tuple(sorted({*question.wanted, *second.wanted}))
        question = Question(TEXT_OF_BOXES, (*question.boxes, *second.boxes), wanted)
    elif way == "against" and others:
        question = _without(scene, question, others, rng)
    return replace(question, boxes=tuple(_shaken(box, rng) for box in question.boxes))


def _without(scene: Scene, question: Question, candidates: list[int], rng: np.random.Generator) -> Question:
    """Add a negative box on one of the shapes `candidates`; what is of its kind is wanted no more."""
    shape = scene.shapes[candidates[int(rng.integers(len(candidates)))]]
    wanted = tuple(i for i in question.wanted if scene.shapes[i].kind != shape.kind)
    return Question(question.text, (*question.boxes, (0, _corners(shape))), wanted)


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
