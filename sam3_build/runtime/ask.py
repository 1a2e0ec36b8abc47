"""What a user asks of a picture: takes texts, boxes, points and a mask, returns prompts of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sam3_build.errors import BuildError
from sam3_build.pipeline import marks
from sam3_build.pipeline.marks import Marks
from sam3_build.pipeline.prompts import KEYS, in_words, taken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Texts = str | Sequence[str]
    Numbers = Sequence[Sequence[float]] | NDArray[np.generic]
    Labels = Sequence[int] | NDArray[np.generic]

Prompt = TypeVar("Prompt")

# What a pipeline gives that answers each prompt by a mask: a file of `results/`.
MASKS = "masks"

# The role of the picture file that holds a mask, in prompts and among the files of a request.
MASK = "mask"


@dataclass(frozen=True)
class Ask:
    """What is asked of one picture. mask: a picture file of the same size; what is not 0 is meant."""

    marks: Marks
    mask: Path | None = None

    @classmethod
    def of(
        cls,
        text: Texts | None = None,
        boxes: Numbers | None = None,
        box_labels: Labels | None = None,
        points: Numbers | None = None,
        point_labels: Labels | None = None,
        mask: str | Path | None = None,
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
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Which of `prompts.KEYS` are given."""
        given = {"text": self.marks.texts, "boxes": self.marks.boxes, "points": self.marks.points, MASK: self.mask}
        return tuple(key for key in KEYS if given[key])

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that its prompts name, by role."""
        return {MASK: self.mask} if self.mask else {}

    def prompts(self, kind: Callable[..., Prompt], result: str | None) -> list[Prompt]:
        """Return a prompt for each text, every one with all else; without a text, one.

        kind, result: of the pipeline. Where each prompt has a mask of its own, several boxes alone mean as many objects
        """
        for i, words in enumerate(self.marks.texts):
            if not words.strip():
                raise BuildError(f"text[{i}] is empty: say what to look for")
        values = {"boxes": self.marks.boxes, "points": self.marks.points, MASK: MASK if self.mask else None}
        given = {key: value for key, value in values.items() if value}
        if result == MASKS and self.keys == ("boxes",):
            return [kind(boxes=(box,)) for box in self.marks.boxes]
        return [kind(text=words, **given) for words in self.marks.texts] or [kind(**given)]


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
