"""Finds what texts mean in every frame of a clip, and follows it: a detector and a tracker together. No torch.

Equal to transformers' Sam3VideoModel (5.23), but for frames in which some objects are removed: there, that model gives
masks of the others the ids of their neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sam3_build.pipeline.association import Detections, Matches, Objects, associate, detections, within_limit
from sam3_build.pipeline.hotstart import Hotstart
from sam3_build.pipeline.loop import LoopNetwork
from sam3_build.pipeline.masks import enlarged
from sam3_build.pipeline.memory_bank import MemoryBank, alike
from sam3_build.pipeline.overlaps import ALWAYS, HIDDEN, NEVER, recently_hidden, without_shrunk
from sam3_build.pipeline.postprocess import mended
from sam3_build.pipeline.tracked_frame import Frame
from sam3_build.pipeline.tracking import POINTERS, Tracker
from sam3_build.pipeline.tracks import Shown
from sam3_build.pipeline.word_settings import WordSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Frames

    Array = NDArray[np.generic]
    Floats = NDArray[np.float32]

# What a detector reads of a frame.
IMAGE = ("fpn_feat_0", "fpn_feat_1", "fpn_feat_2", "fpn_pos_2")

# An object begins as the pixels of its detection whose logits are at least this.
INSIDE = 0.5

# The logit, when an object is remembered, of one that has pixels; of one that has none, the negative.
PRESENT = 10.0


@dataclass
class _Object:
    """An object that was found. text: which one; score: of its detection; hidden: the last frame in which it was."""

    text: int
    score: float
    hidden: int = NEVER


class WordTracker:
    """Objects that texts find, followed frame by frame. Frames come in order, from 0 on."""

    # What follows them.
    TRACKER: ClassVar[type[Tracker]] = Tracker

    def __init__(self, networks: Mapping[str, LoopNetwork], frames: int, given: Arrays) -> None:
        """Begin with nothing. frames: how many the clip has; 0 of a stream; given: as `track_words` gets it."""
        self.settings = WordSettings.of_array(given["word_settings"].astype(float))
        self.hotstart = Hotstart(self.settings, removes=frames > 0)
        self._networks, self._given, self._tracker = networks, given, self.TRACKER(networks, frames)
        self._objects: dict[int, _Object] = {}
        self._next = 0

    @property
    def removed(self) -> Set[int]:
        """All objects that were removed: no frame shows them, as those are held back in which they were seen."""
        return self.hotstart.removed

    @property
    def held_back(self) -> int:
        """So many frames later it is known which objects of a frame are shown; 0 of a stream."""
        return max(0, self.settings.hotstart_delay - 1) if self.hotstart.removes else 0

    @property
    def nbytes(self) -> int:
        """How many bytes are remembered."""
        return self._tracker.nbytes

    def follow(self, position: int, encoded: Arrays) -> dict[int, Shown]:
        """Return object -> what is shown of it, of all that are found in a frame or followed into it."""
        frame, settings = self.TRACKER.FRAME(self._networks, encoded), self.settings
        found = self._detected(encoded)
        answers: dict[int, Arrays] = {}
        for group, arrays in alike({which: self._tracker.recalled(which, position) for which in self._objects}):
            answers |= frame.tracked(group, arrays)
        tracked = self._tracked(answers, found.masks.shape[-1])
        matches = associate(found, tracked, settings)
        chosen = within_limit(matches.new, found.scores, len(answers), settings.max_num_objects)
        new = dict(zip(range(self._next, self._next + len(chosen)), chosen, strict=True))
        self._next += len(new)
        gone, faded = self.hotstart.update(position, matches, list(new))
        afresh = self._afresh(position, matches, answers)
        self._hide_again(position, tracked, gone)
        memorable = self._memorable(tracked, answers, found, afresh)
        if new:  # `_add` remembers the others
            memorable = {which: memorable[which] for which in afresh}
        self._remember(position, frame, memorable, set(afresh), binarize=False)
        for which, detection in new.items():
            self._objects[which] = _Object(int(found.texts[detection]), float(found.scores[detection]))
        if new:
            self._add(position, frame, {which: found.masks[i] for which, i in new.items()}, answers, set(afresh))
        masks = dict(zip(tracked.ids, tracked.masks, strict=True)) | {i: found.masks[d] for i, d in afresh.items()}
        masks |= {which: self._mended(found.masks[detection]) for which, detection in new.items()}
        shown = {
            which: self._shown(which, mask, answers.get(which), which in faded)
            for which, mask in masks.items()
            if which not in gone
        }
        for which in gone:
            self._tracker.forget(which)
            del self._objects[which]
        self._tracker.fade(position)
        return shown

    def found(self, frame: Mapping[int, Shown]) -> Arrays:
        """Return what `follow` gave of a frame as `found` does, by what is known now."""
        return found([frame], self.removed)

    # ------------------------------------------------------------------ what is seen

    def _detected(self, encoded: Arrays) -> Detections:
        """Return what each text finds, one after another: at full size a decoder's masks of one text are 66 MB."""
        import numpy as np

        given, image = self._given, {name: encoded[name] for name in IMAGE}
        boxes = {name: given[name] for name in ("input_boxes", "input_boxes_labels")}
        box = self._networks["geometry_encoder"](boxes | {name: image[name] for name in ("fpn_feat_2", "fpn_pos_2")})
        box_mask = np.logical_and(box["geometry_mask"], given["geometry_counts"])
        parts = []
        for text in range(len(given["text_mask"])):
            features, mask = (given[name][text : text + 1] for name in ("text_features", "text_mask"))
            outputs = self._networks["decoder"](
                {
                    **image,
                    "prompt_features": np.concatenate([features, box["geometry_features"]], axis=1),
                    "prompt_mask": np.concatenate([mask, box_mask], axis=1),
                }
            )
            parts.append(detections(outputs, text, self.settings))
        return Detections.joined(parts, image["fpn_feat_0"].shape[-1])

    def _tracked(self, answers: Mapping[int, Arrays], side: int) -> Objects:
        import numpy as np

        masks = np.zeros((len(answers), side, side), np.float32)
        for mask, answer in zip(masks, answers.values(), strict=True):
            mask[:] = self._mended(answer["pred_masks"])
        return Objects(list(answers), masks, np.array([self._objects[which].text for which in answers], np.int64))

    def _mended(self, mask: Array) -> Floats:
        import numpy as np

        logits = mask.astype(np.float32)
        return mended(logits, self.settings.fill_hole_area) if self.settings.fill_hole_area > 0 else logits

    def _afresh(self, position: int, matches: Matches, answers: Mapping[int, Arrays]) -> Mapping[int, int]:
        """Return object -> its detection, of those that are seen afresh in this frame."""
        every = self.settings.recondition_every_nth_frame
        if not every or position % every:
            return {}
        least = self.settings.high_conf_thresh
        return {
            which: detection
            for which, detection in matches.confirmed.items()
            if answers[which]["object_score_logits"].item() > least
        }

    def _hide_again(self, position: int, tracked: Objects, gone: set[int]) -> None:
        """Take the masks from objects that give way to others, and note which objects have none."""
        import numpy as np

        limit = self.settings.suppress_overlapping_based_on_recent_occlusion_threshold
        if limit <= 0 or not tracked.ids:
            return
        own = [self._objects[which] for which in tracked.ids]
        last = [
            ALWAYS if which in gone and one.hidden == NEVER else one.hidden
            for which, one in zip(tracked.ids, own, strict=True)
        ]
        inside = tracked.masks > 0
        again = recently_hidden(inside, tracked.texts, np.array(last, np.int64), limit)
        tracked.masks[again] = HIDDEN
        for one, is_hidden in zip(own, again | ~inside.any((1, 2)), strict=True):
            one.hidden = position if is_hidden else one.hidden

    def _shown(self, which: int, mask: Floats, answer: Arrays | None, is_hidden: bool) -> Shown:
        import numpy as np

        one = self._objects[which]
        logit = None if answer is None else float(answer["object_score_logits"].item())
        sure = one.score if logit is None else float(1 / (1 + np.exp(-max(logit, -80.0))))
        return Shown(mask, one.text, one.score, sure, is_hidden)

    # ------------------------------------------------------------------ what is remembered

    def _memorable(
        self, tracked: Objects, answers: Mapping[int, Arrays], found: Detections, afresh: Mapping[int, int]
    ) -> dict[int, Arrays]:
        """Return the answers of the tracker with the masks that are remembered, and whether these have pixels."""
        import numpy as np

        masks = tracked.masks.copy()
        if not self.settings.recondition_on_trk_masks:
            for which, detection in afresh.items():
                masks[tracked.ids.index(which)] = found.masks[detection] >= INSIDE
        masks = without_shrunk(masks, tracked.texts)
        return {
            which: {
                **answers[which],
                "high_res_masks": enlarged(mask, answers[which]["high_res_masks"].shape[-2:]),
                "object_score_logits": np.array([PRESENT if (mask > 0).any() else -PRESENT], np.float32),
            }
            for which, mask in zip(tracked.ids, masks, strict=True)
        }

    def _remember(
        self, position: int, frame: Frame, answers: Mapping[int, Arrays], lasting: set[int], *, binarize: bool
    ) -> None:
        """Remember a frame of objects; of `lasting` ones as a frame with a prompt."""
        for which, memory in frame.memories(answers, binarize=binarize).items():
            bank = self._tracker.banks.setdefault(which, MemoryBank())
            if which in lasting:
                bank.prompt(position, memory)
            else:
                bank.track(position, memory, POINTERS)

    def _add(
        self, position: int, frame: Frame, masks: Mapping[int, Floats], answers: Mapping[int, Arrays], afresh: set[int]
    ) -> None:
        """Follow objects that are new. All others are then remembered anew, as the tracker saw them, and binarized."""
        import numpy as np

        size = int(self._given["image_size"])
        inside = {which: (mask >= INSIDE).astype(np.float32) for which, mask in masks.items()}
        new = {which: frame.of_mask(enlarged(mask, (size, size))) for which, mask in inside.items()}
        others = {which: answer for which, answer in answers.items() if which not in afresh}
        self._remember(position, frame, others | new, set(new), binarize=True)


def track_words(
    networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames, kind: type[WordTracker] = WordTracker
) -> Arrays:
    """Return what `found` does, of a clip.

    given: text_features [texts, tokens, hidden] and text_mask [texts, tokens]; input_boxes [1, boxes, 4] and
           input_boxes_labels [1, boxes], which are ignored ones, and geometry_counts, whether what the geometry encoder
           makes of them joins the prompt; word_settings, see `WordSettings.array`; image_size, of the tracker's input
    kind:  what follows them
    """
    tracker = kind(networks, len(frames), given)
    return found([tracker.follow(position, frame) for position, frame in enumerate(frames)], tracker.removed)


def found(frames: Sequence[Mapping[int, Shown]], removed: Collection[int]) -> Arrays:
    """Return the objects in some frames that were not removed, as arrays.

    ids, texts [n] int64; scores [n], of detections; masks [frames, n, side, side], logits; visible [frames, n], above 0
    where the mask is shown; tracker_scores [frames, n]
    """
    import numpy as np

    last = {which: own for seen in frames for which, own in seen.items() if which not in removed}
    side = next(iter(last.values())).mask.shape[-1] if last else 1
    masks = np.full((len(frames), len(last), side, side), HIDDEN, np.float32)
    visible, sure = np.zeros(masks.shape[:2], np.float32), np.zeros(masks.shape[:2], np.float32)
    for position, seen in enumerate(frames):
        for i, which in enumerate(last):
            if one := seen.get(which):
                masks[position, i], visible[position, i], sure[position, i] = one.mask, not one.is_hidden, one.sure
    return {
        "ids": np.array(list(last), np.int64),
        "texts": np.array([one.text for one in last.values()], np.int64),
        "scores": np.array([one.score for one in last.values()], np.float32),
        "masks": masks,
        "visible": visible,
        "tracker_scores": sure,
    }
