"""Follows objects through clips as transformers' Sam3TrackerVideoModel does: what it does unlike Meta's SAM 2.

Clicks on an object are asked at once and without the mask that earlier ones gave, or that was found when the frame was
followed. Where a call has a prompt, all masks are binarized that it remembers, and objects without one are looked at
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from sam3_build.pipeline import tracking, word_tracking
from sam3_build.pipeline.loop import LoopNetwork
from sam3_build.pipeline.memory_bank import alike
from sam3_build.pipeline.tracked_frame import Frame, Prompt
from sam3_build.pipeline.tracking import PROMPTED, Tracker
from sam3_build.pipeline.word_tracking import WordTracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Frames

    Array = NDArray[np.generic]


class Sam3Frame(Frame):
    """A frame, and what SAM 3's tracker makes of a mask that is given."""

    BEST_OF_MASK: ClassVar[bool] = True
    WHOLE_MASK: ClassVar[bool] = True


@dataclass
class Sam3Tracker(Tracker):
    """Objects that are followed by SAM 3's tracker.

    asked: the frame of the last call, where that was a prompt
    """

    asked: int | None = None

    FRAME: ClassVar[type[Frame]] = Sam3Frame
    ALL_POINTERS: ClassVar[int] = PROMPTED

    def prompt(
        self,
        position: int,
        encoded: Arrays,
        prompts: Sequence[Prompt],
        found: Mapping[int, Array] = MappingProxyType({}),
    ) -> dict[int, Arrays]:
        """Return object -> the answer to its prompts on a frame; also of all that were followed in it.

        found: is not read
        """
        frame = self.FRAME(self.networks, encoded)
        followed = [which for which, bank in self.banks.items() if position in bank.tracked]
        features: dict[int, Array] = {}
        for group, arrays in alike({which: self.recalled(which, position) for which in followed}):
            features |= dict(zip(group, frame.conditioned(arrays), strict=True))
        joined = _joined(prompts)
        answers = frame.answers(joined, features, {})
        for group, arrays in alike({w: self.recalled(w, position) for w in followed if w not in answers}):
            answers |= frame.tracked(group, arrays)
        for which, memory in frame.memories(answers, binarize=True).items():
            self.remember(which, position, memory)
        self.asked = position
        return answers

    def binarizes(self, position: int) -> bool:
        """Say whether masks without a prompt are binarized: those on a frame that was just prompted."""
        just, self.asked = self.asked == position, None
        return just


def _joined(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return one prompt for each object: a mask, or all its clicks."""
    import numpy as np

    joined: dict[int, Prompt] = {}
    for prompt in prompts:
        before = joined.get(prompt.object)
        if before is not None and before.mask is None and prompt.mask is None:
            points = np.concatenate([before.points, prompt.points])
            prompt = replace(prompt, points=points, labels=np.concatenate([before.labels, prompt.labels]))
        joined[prompt.object] = prompt
    return list(joined.values())


def track(networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames) -> Arrays:
    """Return what `tracking.track` returns."""
    return tracking.track(networks, given, frames, Sam3Tracker)


class Sam3WordTracker(WordTracker):
    """Objects that texts find, followed by SAM 3's tracker."""

    TRACKER: ClassVar[type[Tracker]] = Sam3Tracker


def track_words(networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames) -> Arrays:
    """Return what `word_tracking.track_words` returns."""
    return word_tracking.track_words(networks, given, frames, Sam3WordTracker)


# Loop -> what runs it frame by frame: of objects that are prompted, and of those that texts find.
TRACKERS = {"track": Sam3Tracker}
FINDERS = {"track_words": Sam3WordTracker}
