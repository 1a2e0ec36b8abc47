"""Loops: what a family's host code gets, and which of its calls are recorded. No torch.

A family's `loops.py` has a function for each loop, called like it:

    def track(networks, given, frames): ...   -> arrays by name, what the pipeline's result is made of

    networks: component -> what runs it, `networks["decoder"]({"x": ...}, kind="click")`; `kind` tells calls that differ
              in what was prompted, so that one of each is recorded
    given:    the arrays of the case's prompts that the loop declares (`Loop.given`) and the case has
    frames:   a sequence of arrays by name (`Loop.frames`), each read when it is asked for

The reference runs it on PyTorch's modules, the chain on what was built, and a user's program on what was published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.errors import BuildError
from sam3_build.params import LoopParams
from sam3_build.pipeline import chain
from sam3_build.pipeline.arrays import unsuitable
from sam3_build.pipeline.cases import ListedCase, write_recorded
from sam3_build.pipeline.tracks import Shown
from sam3_build.spec import TensorSpec

if TYPE_CHECKING:
    from sam3_build.pipeline.chain import Array, Arrays


class LoopNetwork(Protocol):
    """What runs a component inside a loop."""

    def __call__(self, inputs: Arrays, /, kind: str = "") -> Arrays:
        """Return the outputs by name."""


LoopCode = Callable[[Mapping[str, LoopNetwork], "Arrays", "Frames"], "Arrays"]


class Follower(Protocol):
    """A loop frame by frame, for who does not know yet what will be asked: `TRACKERS` of a family's `loops.py`.

    Frames are numbered in the order in which they are run. Answers are object -> pred_masks [side, side] and
    object_score_logits [1], logits, and iou_scores [1].
    """

    @property
    def nbytes(self) -> int:
        """How many bytes are remembered."""

    def ask(self, position: int, frame: Arrays, given: Arrays, found: Mapping[int, Array]) -> Mapping[int, Arrays]:
        """Return the answers to prompts on one frame.

        frame, given: as the loop gets them
        found: object -> logits of the mask that was found on this frame before, where the prompts correct it
        """

    def follow(self, position: int, frame: Arrays) -> Mapping[int, Arrays]:
        """Return the answers of all objects that have no prompt on a frame."""

    def forget(self, which: int) -> None:
        """Follow an object no longer."""


class Finder(Protocol):
    """A loop frame by frame that finds objects itself: `FINDERS` of a family's `loops.py`. Frames come in order."""

    @property
    def nbytes(self) -> int:
        """How many bytes are remembered."""

    @property
    def held_back(self) -> int:
        """So many frames later it is known which objects of a frame are shown."""

    def follow(self, position: int, frame: Arrays) -> Mapping[int, Shown]:
        """Return what is found in a frame, or followed into it."""

    def found(self, frame: Mapping[int, Shown]) -> Arrays:
        """Return what `follow` gave of a frame as the loop returns a clip of it, by what is known now."""


@dataclass(frozen=True)
class Frames:
    """The frames of a case in order, read from the files of `samples` and of the steps before the loop."""

    case: ListedCase
    loop: LoopParams
    folders: Mapping[str, Path]

    def __len__(self) -> int:
        """Return how many there are."""
        return self.case.frames

    def __iter__(self) -> Iterator[Arrays]:
        """Yield each, read when it is due."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, position: int) -> Arrays:
        """Return the arrays of a frame by name. BuildError when it lacks one; IndexError when there is none."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        name = self.case.frame(position)
        arrays = chain.gather(self.loop.frames, self.loop.feeds, chain.in_files(self.folders, name, self.case.owner))
        if arrays is None:
            raise BuildError(f"frame {position} of case {self.case.name!r} lacks one of {', '.join(self.loop.frames)}")
        return arrays


def given(case: ListedCase, loop: LoopParams, folders: Mapping[str, Path]) -> Arrays:
    """Return the arrays of a case that a loop declares; what its prompts do not give is left out."""
    find = chain.in_files(folders, case.name)
    arrays = {name: chain.gather([name], loop.feeds, find) for name in loop.given}
    return {name: found[name] for name, found in arrays.items() if found}


def check(component: str, arrays: Arrays, inputs: Mapping[str, TensorSpec]) -> None:
    """Refuse a call that does not feed exactly what a component takes: the family's host code is wrong."""
    if why := unsuitable(inputs, arrays):
        raise BuildError(f"a loop's call of {component}: {why}")


def returned(loop: LoopParams, arrays: Arrays) -> Arrays:
    """Return what a loop returned; BuildError when it is not what the family declares."""
    if set(arrays) != set(loop.outputs):
        declared, actual = ", ".join(sorted(loop.outputs)), ", ".join(sorted(arrays)) or "nothing"
        raise BuildError(f"loop {loop.name} returns {actual}, and its family declares {declared}")
    return arrays


# ------------------------------------------------------------------ which calls are recorded


@dataclass
class _Call:
    number: int
    inputs: Arrays
    outputs: Arrays

    @property
    def size(self) -> int:
        return sum(array.nbytes for array in self.inputs.values())


@dataclass
class Recorder:
    """Runs a component and remembers, of a case: the first two calls, the last, the largest, one of each kind."""

    component: str
    run: Callable[[Arrays], Arrays]
    count: int = 0
    first: list[_Call] = field(default_factory=list)
    last: _Call | None = None
    largest: _Call | None = None
    kinds: dict[str, _Call] = field(default_factory=dict)

    def __call__(self, inputs: Arrays, /, kind: str = "") -> Arrays:
        """Run the component. What it got is kept as it was: a loop may write into its arrays afterwards."""
        outputs = self.run(inputs)
        call = _Call(self.count, {n: a.copy() for n, a in inputs.items()}, {n: a.copy() for n, a in outputs.items()})
        self.count += 1
        if len(self.first) < 2:
            self.first.append(call)
        self.last = call
        self.largest = call if self.largest is None or call.size > self.largest.size else self.largest
        self.kinds.setdefault(kind, call)
        return outputs

    def write(self, folder: Path, case: str) -> list[str]:
        """Write the calls of `case` as `<case>.<number>.npz`, and forget them; return the files' stems."""
        kept = {call.number: call for call in (*self.first, self.last, self.largest, *self.kinds.values()) if call}
        if kept:
            folder.mkdir(exist_ok=True)
        names = []
        for number, call in sorted(kept.items()):
            names.append(f"{case}.{number:05}")
            write_recorded(folder / f"{names[-1]}.npz", call.inputs, call.outputs)
        self.count, self.first, self.last, self.largest, self.kinds = 0, [], None, None, {}
        return names
