"""What a tracker of SAM 2's kind remembers of an object, and which of it is read for a frame. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Memory:
    """A frame as it is remembered: features [cells, channels] and the object's pointer [hidden], float32."""

    features: Array
    pointer: Array


@dataclass(frozen=True)
class Recalled:
    """What is read of an object for one frame.

    offsets: of each memory, 0 of a frame with a prompt, else how many frames ago it was
    times:   of each pointer, its distance in frames by the largest that counts
    """

    memories: Sequence[Memory]
    offsets: Sequence[int]
    pointers: Sequence[Array]
    times: Sequence[float]


@dataclass
class MemoryBank:
    """The memories of one object by frame: `prompted` ones do not fade, wherever they are in the clip.

    Source: `_prepare_memory_conditioned_features` of facebookresearch/sam2, every frame a memory (stride 1).
    """

    prompted: dict[int, Memory] = field(default_factory=dict)
    tracked: dict[int, Memory] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """How many bytes its arrays have."""
        kept = (*self.prompted.values(), *self.tracked.values())
        return sum(memory.features.nbytes + memory.pointer.nbytes for memory in kept)

    def prompt(self, frame: int, memory: Memory) -> None:
        """Remember a frame with a prompt, in the place of what it was without."""
        self.tracked.pop(frame, None)
        self.prompted[frame] = memory

    def track(self, frame: int, memory: Memory, longest: int) -> None:
        """Remember a frame without a prompt, and forget those that are `longest` frames ago or more."""
        self.tracked[frame] = memory
        self.tracked = {at: kept for at, kept in self.tracked.items() if frame - at < longest}

    def recall(self, frame: int, masks: int, pointers: int, prompted: int, all_pointers: int = 0) -> Recalled:
        """Return what is read for a frame.

        masks:    how many memories are read, one with a prompt and those just before the frame
        pointers: how many frames back pointers are read, and what their distances are divided by, but for 1
        prompted: how many frames with prompts are read at most (see `nearest`); the frame itself is none of them. Those
                  that are not read fade like frames without prompts
        all_pointers: of so many frames with prompts up to this one, the last ones, pointers are read; 0 for the
                  `prompted` ones
        Pointers of prompts on later frames are not read, though their memories are.
        """
        chosen = {at: self.prompted[at] for at in self.nearest(frame, prompted)}
        faded = {at: memory for at, memory in self.prompted.items() if at not in chosen} | self.tracked
        before = [(ago, faded[frame - ago]) for ago in range(masks - 1, 0, -1) if frame - ago in faded]
        found = [(0, memory) for memory in chosen.values()] + before
        pointing = sorted(self.prompted)[::-1] if all_pointers else list(chosen)
        own = [at for at in pointing if at <= frame][: all_pointers or None]
        distant = [(frame - at, self.prompted[at].pointer) for at in own]
        distant += [(d, self.tracked[frame - d].pointer) for d in range(1, pointers) if frame - d in self.tracked]
        return Recalled(
            memories=[memory for _, memory in found],
            offsets=[ago for ago, _ in found],
            pointers=[pointer for _, pointer in distant],
            times=[distance / max(1, pointers - 1) for distance, _ in distant],
        )

    def nearest(self, frame: int, count: int) -> list[int]:
        """Return the prompted frames that are read for a frame, in the order in which they were prompted.

        The last before it, the first after it, then the nearest, as `select_closest_cond_frames` of
        facebookresearch/sam2 chooses.
        """
        others = [at for at in self.prompted if at != frame]
        before, after = [at for at in others if at < frame], [at for at in others if at > frame]
        first = [*([max(before)] if before else []), *([min(after)] if after else [])]
        rest = sorted((at for at in others if at not in first), key=lambda at: abs(at - frame))
        chosen = {*[*first, *rest][:count]}
        return [at for at in others if at in chosen]

    def forget(self, frame: int, count: int, masks: int) -> None:
        """Forget prompted frames before `frame` that none after it reads: `count` later ones are nearer to all.

        masks: that of `recall`; what fades is read so long
        """
        passed = sorted(at for at in self.prompted if at < frame)
        for at in passed[: max(0, len(passed) - count)]:
            if frame - at >= masks - 1:
                del self.prompted[at]


def alike(recalled: dict[int, Recalled]) -> Iterator[tuple[list[int], dict[str, Array]]]:
    """Yield objects of which equally much is read, and that as arrays, a row for each.

    memory_features [objects, memories, cells, channels] and pointer_times [objects, pointers] float32, memory_offsets
    [objects, memories] int64, object_pointers [objects, pointers, hidden]
    """
    import numpy as np

    groups: dict[tuple[int, int], list[int]] = {}
    for which, own in recalled.items():
        groups.setdefault((len(own.offsets), len(own.times)), []).append(which)
    for (_, count), group in groups.items():
        rows = [recalled[which] for which in group]
        hidden = rows[0].memories[0].pointer.shape
        pointers = [pointer for row in rows for pointer in row.pointers]
        yield (
            group,
            {
                "memory_features": np.stack([[memory.features for memory in row.memories] for row in rows]),
                "memory_offsets": np.array([row.offsets for row in rows], np.int64),
                "object_pointers": np.array(pointers, np.float32).reshape(len(rows), count, *hidden),
                "pointer_times": np.array([row.times for row in rows], np.float32).reshape(len(rows), count),
            },
        )


def bfloat16(values: Array) -> Floats:
    """Return float32 values rounded to bfloat16's precision, ties to even: so Meta's code keeps memories."""
    import numpy as np

    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)
