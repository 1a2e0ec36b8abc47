"""Follows objects through a clip with the networks of a predictor of SAM 2's kind. No torch.

Equal to Meta's SAM2VideoPredictor when all prompts are added before the clip is followed; holes are not filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from sam3_build.errors import BuildError
from sam3_build.pipeline.loop import LoopNetwork
from sam3_build.pipeline.memory_bank import Memory, MemoryBank, Recalled, alike
from sam3_build.pipeline.tracked_frame import Frame, Prompt, prompts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Frames

    Array = NDArray[np.generic]
    Floats = NDArray[np.float32]

# The logits of an object before it is prompted, as the networks have them of one that is hidden.
ABSENT = -1024.0

# Of an object's memories, how many are read as masks, and how many as pointers.
MASKS, POINTERS = 7, 16

# Of frames with prompts, so many are read and kept: profiles of engines end somewhere. Meta's code for SAM 2 reads all.
PROMPTED = 4


@dataclass
class Followed:
    """What is returned of a clip, an entry for each frame and object."""

    ids: Sequence[int]
    masks: Floats
    visible: Floats
    scores: Floats

    @classmethod
    def empty(cls, ids: Sequence[int], frames: int, side: int) -> Followed:
        """Return that of objects that are nowhere. side: of the masks."""
        import numpy as np

        masks = np.full((frames, len(ids), side, side), ABSENT, np.float32)
        return cls(ids, masks, np.full(masks.shape[:2], ABSENT, np.float32), np.zeros(masks.shape[:2], np.float32))

    def put(self, frame: int, which: int, mask: Array, visible: Array, score: Array) -> None:
        """Note an object in a frame: mask logits [side, side], or [1, side, side], its own logit and score."""
        at = frame, self.ids.index(which)
        self.masks[at], self.visible[at], self.scores[at] = mask, visible.item(), score.item()

    def arrays(self) -> Arrays:
        """Return ids [objects], masks [frames, objects, side, side], visible and scores [frames, objects]."""
        import numpy as np

        ids = np.array(self.ids, np.int64)
        return {"ids": ids, "masks": self.masks, "visible": self.visible, "scores": self.scores}


@dataclass
class Tracker:
    """Objects that are followed frame by frame, and what is remembered of each, by what they are called.

    frames: how many the clip has; 0 of a stream, which counts as long
    """

    networks: Mapping[str, LoopNetwork]
    frames: int = 0
    banks: dict[int, MemoryBank] = field(default_factory=dict)

    FRAME: ClassVar[type[Frame]] = Frame
    PROMPTED: ClassVar[int] = PROMPTED
    # Of so many frames with prompts, also where their memories are not read, pointers are; 0 for those that are.
    ALL_POINTERS: ClassVar[int] = 0

    @property
    def nbytes(self) -> int:
        """How many bytes are remembered."""
        return sum(bank.nbytes for bank in self.banks.values())

    def prompt(
        self,
        position: int,
        encoded: Arrays,
        prompts: Sequence[Prompt],
        found: Mapping[int, Array] = MappingProxyType({}),
    ) -> dict[int, Arrays]:
        """Return object -> the answer to its prompts on a frame, which `remember` keeps.

        encoded: what the vision encoder gave of the frame
        found:   object -> mask logits that were found there without these prompts, which correct them. The other
                 objects are looked at without memories
        """
        frame = self.FRAME(self.networks, encoded)
        known = {which: logits for which, logits in found.items() if which in self.banks}
        features: dict[int, Array] = {}
        for group, arrays in alike({which: self.recalled(which, position) for which in known}):
            features |= dict(zip(group, frame.conditioned(arrays), strict=True))
        answers = frame.answers(prompts, features, known)
        for which, memory in frame.memories(answers, binarize=True).items():
            self.remember(which, position, memory)
        return answers

    def remember(self, which: int, position: int, memory: Memory) -> None:
        """Keep what prompts gave of an object: it fades on a frame where the object was followed before, else not."""
        bank = self.banks.setdefault(which, MemoryBank())
        if position in bank.tracked:
            bank.track(position, memory, POINTERS)
        else:
            bank.prompt(position, memory)

    def ask(
        self, position: int, frame: Arrays, given: Arrays, found: Mapping[int, Array] = MappingProxyType({})
    ) -> dict[int, Arrays]:
        """Return what `prompt` does. given: as `prompts_of` takes them, all on this frame."""
        return self.prompt(position, frame, prompts_of(given), found)

    def follow(self, position: int, encoded: Arrays) -> dict[int, Arrays]:
        """Return object -> the answer from what is remembered, of all objects without a prompt on this frame."""
        frame = self.FRAME(self.networks, encoded)
        answers: dict[int, Arrays] = {}
        waiting = [which for which, bank in self.banks.items() if position not in bank.prompted]
        for group, arrays in alike({which: self.recalled(which, position) for which in waiting}):
            answers |= frame.tracked(group, arrays)
        for which, memory in frame.memories(answers, binarize=self.binarizes(position)).items():
            self.banks[which].track(position, memory, POINTERS)
        self.fade(position)
        return answers

    def fade(self, position: int) -> None:
        """Forget the frames up to this one that no later one reads."""
        for bank in self.banks.values():
            bank.forget(position, max(self.PROMPTED, self.ALL_POINTERS), MASKS)

    def binarizes(self, position: int) -> bool:
        """Say whether masks without a prompt are binarized before they are remembered: not here."""
        return False

    def forget(self, which: int) -> None:
        """Follow an object no longer."""
        self.banks.pop(which, None)

    def recalled(self, which: int, position: int) -> Recalled:
        """Return what is read of an object for a frame."""
        longest = min(self.frames or POINTERS, POINTERS)
        return self.banks[which].recall(position, MASKS, longest, self.PROMPTED, self.ALL_POINTERS)


def track(networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames, kind: type[Tracker] = Tracker) -> Arrays:
    """Return what `Followed.arrays` gives of a clip.

    Frames with prompts come first, each without memories, and are memories of all others from the first of them on,
    also of those before them.

    given: see `prompts_of`; kind: what follows them
    """
    prompts = prompts_of(given)
    if not prompts:
        raise BuildError("a clip is followed from a prompt on one of its frames, and this one has none")
    ids = list(dict.fromkeys(prompt.object for prompt in prompts))
    prompted = sorted({prompt.frame for prompt in prompts})
    followed = Followed.empty(ids, len(frames), frames[prompted[0]]["image_embeddings.0"].shape[-1])
    tracker = kind(networks, len(frames))
    for position in prompted:
        own = [prompt for prompt in prompts if prompt.frame == position]
        _put(followed, position, tracker.prompt(position, frames[position], own))
    for position in range(prompted[0], len(frames)):
        _put(followed, position, tracker.follow(position, frames[position]))
    return followed.arrays()


def _put(followed: Followed, position: int, answers: Mapping[int, Arrays]) -> None:
    for which, answer in answers.items():
        followed.put(position, which, answer["pred_masks"], answer["object_score_logits"], answer["iou_scores"])
