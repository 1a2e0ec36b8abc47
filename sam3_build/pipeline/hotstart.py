"""Counts in how many frames an object was matched; says which objects are removed or hidden. Standard library only.

Source: `_process_hotstart` of transformers' Sam3VideoModel (5.23), which follows Meta's predictor. Frames are numbered
in the order in which they are run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sam3_build.pipeline.association import Matches
from sam3_build.pipeline.word_settings import WordSettings


@dataclass
class Hotstart:
    """What is counted of each object, by its id.

    removes:   whether objects are removed and hidden at all: of a stream, whose next frames nobody knows, none is
    first:     the frame of its detection
    unmatched: frames without a match
    twice:     (older id, id) -> frames in which both are one detection
    alive:     the count of `init_trk_keep_alive` and its like
    removed:   all ids that were removed
    """

    settings: WordSettings
    removes: bool = True
    first: dict[int, int] = field(default_factory=dict)
    unmatched: Counter[int] = field(default_factory=Counter)
    twice: Counter[tuple[int, int]] = field(default_factory=Counter)
    alive: dict[int, int] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)

    def update(self, position: int, matches: Matches, new: Sequence[int]) -> tuple[set[int], set[int]]:
        """Count a frame; return the ids that are removed by it, and those that are hidden in it.

        new: the ids of `matches.new`
        """
        for which in new:
            self.first[which] = position
            self.alive[which] = self.settings.init_trk_keep_alive
        self._count(matches)
        if not self.removes:
            return set(), set()
        gone = self._unmatched(position)
        hidden = self._faded(gone)
        gone |= self._duplicates(position, gone)
        self.removed |= gone
        return gone, hidden

    def _count(self, matches: Matches) -> None:
        settings = self.settings
        for which in {which for ids in matches.matched.values() for which in ids}:
            self.alive[which] = min(settings.max_trk_keep_alive, self.alive[which] + 1)
        fading = list(matches.unmatched)
        self.unmatched.update(fading)
        if settings.decrease_trk_keep_alive_for_empty_masklets:
            fading += matches.empty
        for which in fading:
            self.alive[which] = max(settings.min_trk_keep_alive, self.alive[which] - 1)
        for ids in matches.matched.values():
            oldest = min(ids, key=lambda which: self.first[which], default=None)
            self.twice.update((oldest, which) for which in ids if oldest is not None and which != oldest)

    def _is_young(self, which: int, position: int) -> bool:
        return self.first[which] > position - self.settings.hotstart_delay

    def _unmatched(self, position: int) -> set[int]:
        """Return what is removed because no detection was it often enough."""
        limit = self.settings.hotstart_unmatch_thresh
        return {
            which
            for which, frames in self.unmatched.items()
            if frames >= limit and which not in self.removed and self._is_young(which, position)
        }

    def _faded(self, gone: set[int]) -> set[int]:
        """Return what is hidden because no detection was it for long."""
        if self.settings.suppress_unmatched_only_within_hotstart:
            return set()
        return {which for which in self.unmatched if self.alive[which] <= 0} - self.removed - gone

    def _duplicates(self, position: int, gone: set[int]) -> set[int]:
        """Return what is removed because it is an older object."""
        limit = self.settings.hotstart_dup_thresh
        return {
            which
            for (_, which), frames in self.twice.items()
            if frames >= limit and which not in self.removed | gone and self._is_young(which, position)
        }
