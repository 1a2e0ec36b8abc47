"""What a user asks of a picture: takes texts, boxes, points and a mask, returns prompts of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sam3_build.errors import BuildError
from sam3_build.pipeline import marks
from sam3_build.pipeline.marks import Marks
from sam3_build.pipeline.prompts import KEYS, in_words, taken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.runtime.found import Found

    Texts = str | Sequence[str]
    Numbers = Sequence[Sequence[float]] | NDArray[np.generic]
    Labels = Sequence[int] | NDArray[np.generic]
    Previous = Found | NDArray[np.float32]

Prompt = TypeVar("Prompt")

# What a pipeline gives that answers each prompt by a mask: a file of `results/`.
MASKS = "masks"

# The role of the picture file that holds a mask, in prompts and among the files of a request.
MASK = "mask"


@dataclass(frozen=True)
class Ask:
    """What is asked of one picture.

    mask:     a picture file of the same size; what is not 0 is meant
    previous: [objects, h, w] float32, the logits that the model gave of each object before, in the place of a mask
    """

    marks: Marks
    mask: Path | None = None
    previous: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        text: Texts | None = None,
        boxes: Numbers | None = None,
        box_labels: Labels | None = None,
        points: Numbers | None = None,
        point_labels: Labels | None = None,
        mask: str | Path | None = None,
        previous: Previous | None = None,
    ) -> Ask:
        """Return what these ask for, in pixels; without labels all is meant. BuildError names the one that is wrong."""
        texts = (text,) if isinstance(text, str) else tuple(text or ())
        return cls(
            Marks(
                texts,
                _each("boxes", boxes, "box_labels", box_labels, marks.box),
                _each("points", points, "point_labels", point_labels, marks.point),
            ),
            None if mask is None else Path(mask),
            None if previous is None else _logits(previous, mask),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Which of `prompts.KEYS` are given."""
        mask = self.mask or self.previous is not None
        given = {"text": self.marks.texts, "boxes": self.marks.boxes, "points": self.marks.points, MASK: mask}
        return tuple(key for key in KEYS if given[key])

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that its prompts name, by role."""
        return {MASK: self.mask} if self.mask else {}

    @property
    def objects(self) -> tuple[Ask, ...]:
        """What is asked of each object, where an answer is about one: several boxes alone are as many."""
        marks, several = self.marks, len(self.marks.boxes) > 1
        if marks.texts or marks.points or self.mask or not several:
            return (self,)
        return tuple(replace(self, marks=Marks(boxes=(box,))) for box in marks.boxes)

    def prompts(self, kind: Callable[..., Prompt], result: str | None) -> list[Prompt]:
        """Return a prompt for each text, every one with all else; without a text, one.

        kind, result: of the pipeline. Where each prompt has a mask of its own, there is one for each of `objects`
        """
        for i, words in enumerate(self.marks.texts):
            if not words.strip():
                raise BuildError(f"text[{i}] is empty: say what to look for")
        asked = self.objects if result == MASKS else (self,)
        given = [{k: v for k, v in ask._values().items() if v} for ask in asked]
        if self.previous is not None:
            if len(self.previous) != len(given):
                raise BuildError(
                    f"previous has {len(self.previous)} masks, and {len(given)} objects are asked for: give one of each"
                )
            given = [{**own, MASK: role} for own, role in zip(given, self.logits, strict=True)]
        return [kind(text=words, **own) for words in self.marks.texts for own in given] or [
            kind(**own) for own in given
        ]

    @property
    def logits(self) -> Mapping[str, NDArray[np.float32]]:
        """What stands in `previous`, by the role that prompts have for it."""
        return {} if self.previous is None else {f"previous{i}": own for i, own in enumerate(self.previous)}

    def _values(self) -> dict[str, object]:
        return {"boxes": self.marks.boxes, "points": self.marks.points, MASK: MASK if self.mask else None}


def from_centres(boxes: Numbers) -> list[list[float]]:
    """Return boxes as `segment` takes them, of [n, 4]: x and y of the centre, width and height in pixels."""
    return [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in boxes]


def taking(kinds: Mapping[str, type], ask: Ask) -> str:
    """Return the first pipeline that takes all that is asked. kinds: name -> `Pipeline.prompts`. BuildError if none."""
    takes = {name: taken(kind) for name, kind in kinds.items()}
    able = dict.fromkeys(key for keys in takes.values() for key in keys)
    if not ask.keys:
        raise BuildError(f"nothing is asked for: give {in_words(tuple(able))}")
    found = next((name for name, keys in takes.items() if {*ask.keys} <= {*keys}), None)
    if found is None:
        unknown = [key for key in ask.keys if key not in able]
        what = " or ".join(unknown) if unknown else f"{' and '.join(ask.keys)} together"
        each = "; ".join(f"pipeline {name} takes {', '.join(keys)}" for name, keys in takes.items())
        raise BuildError(f"this model takes no {what}; {each}")
    return found


def _logits(previous: Previous, mask: object) -> NDArray[np.float32]:
    """Return [objects, h, w] of what was found before. BuildError when that has none, or a mask is given beside it."""
    import numpy as np

    if mask is not None:
        raise BuildError("mask and previous are both given: a prompt has one earlier mask")
    logits = previous if isinstance(previous, np.ndarray) else previous.logits
    if logits is None:
        raise BuildError("previous has no logits: give what a model found that takes a mask, at one scale")
    if logits.ndim not in (2, 3) or logits.dtype != np.float32:
        raise BuildError(
            f"previous is {logits.dtype}{list(logits.shape)}: give logits, float32 [objects, height, width]"
        )
    return logits if logits.ndim == 3 else logits[None]


def _each(
    name: str,
    values: Numbers | None,
    labels_name: str,
    labels: Labels | None,
    made: Callable[[Sequence[float], object], Prompt],
) -> tuple[Prompt, ...]:
    listed = [] if values is None else list(values)
    if labels is not None and len(labels) != len(listed):
        raise BuildError(f"there are {len(listed)} {name} and {len(labels)} {labels_name}; give one for each")
    found = []
    for i, value in enumerate(listed):
        try:
            found.append(made([float(number) for number in value], 1 if labels is None else labels[i]))
        except TypeError as error:
            raise BuildError(f"{name} is a list of lists of numbers, and {name}[{i}] is {value!r}") from error
        except ValueError as error:
            raise BuildError(f"{name}[{i}]: {error}") from error
    return tuple(found)
