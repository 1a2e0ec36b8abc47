"""A clip in which texts find objects, frame by frame: which frames are held back, what is shown; prompts of texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from build_space import ROOT
from PIL import Image

from sam3_build.commands.track import _texts
from sam3_build.errors import BuildError
from sam3_build.pipeline import word_results
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.marks import Asked, Marks
from sam3_build.pipeline.prompts import Point
from sam3_build.pipeline.tracks import Shown
from sam3_build.pipeline.word_prompts import TextOnFrame, TextPrompts, arrays
from sam3_build.pipeline.word_tracking import found
from sam3_build.runtime.clip import frames_of
from sam3_build.runtime.track_words import TextTrack

TOKENIZER = ROOT / "manifests" / "sam3_mini" / "tokenizer.json"


def shown(text: int = 0, sure: float = 0.9, rows: range = range(4), is_hidden: bool = False) -> Shown:
    mask = np.full((8, 8), -5, np.float32)
    mask[list(rows)] = 5
    return Shown(mask, text, 0.8, sure, is_hidden)


@dataclass
class Finder:
    """Finds objects 0 and 1 in each frame; the third frame removes the first."""

    held_back: int
    nbytes: int = 0
    removed: set[int] = field(default_factory=set)
    followed: int = 0

    def follow(self, position: int, frame: Mapping[str, object]) -> Mapping[int, Shown]:
        self.followed += 1
        if position == 2:
            self.removed.add(0)
        return {
            which: shown(which, rows=range(4 * which, 4 * which + 4)) for which in (0, 1) if which not in self.removed
        }

    def found(self, frame: Mapping[int, Shown]) -> Mapping[str, np.ndarray]:
        return found([frame], self.removed)


@dataclass
class Opened:
    own: Finder

    def finder(self, texts, frames, size):
        return self.own

    def frame(self, picture):
        return {}

    def result(self, outputs, size):
        return word_results.find(outputs, size)


def tracked(held_back: int, pictures) -> tuple[Finder, TextTrack]:
    finder = Finder(held_back)
    return finder, TextTrack(Opened(finder), frames_of(pictures), ["cat", "dog"])


PICTURES = [Image.new("RGB", (16, 12)) for _ in range(5)]


def test_an_object_that_is_removed_later_is_in_no_frame() -> None:
    finder, clip = tracked(3, PICTURES)
    first = next(clip)
    assert (first.index, finder.followed) == (0, 4)
    frames = [first, *clip]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.ids.tolist() for frame in frames] == [[1]] * 5
    assert first.texts == ("dog",) and first.scores.tolist() == pytest.approx([0.8])
    assert first.boxes.tolist() == [[0, 6, 16, 12]] and first.masks[0, 6:].all() and not first.masks[0, :6].any()


def test_frames_that_are_not_held_back_show_all_that_is_known() -> None:
    finder, clip = tracked(0, iter(PICTURES))
    assert next(clip).ids.tolist() == [0, 1] and finder.followed == 1
    assert [frame.ids.tolist() for frame in clip] == [[0, 1], [1], [1], [1]]


def test_what_is_wrong_with_a_clip_or_a_text_is_said() -> None:
    _, clip = tracked(0, [*PICTURES[:1], Image.new("RGB", (8, 8))])
    next(clip)
    with pytest.raises(BuildError, match="frame 1 is 8 x 8 pixels, and the others 16 x 12"):
        next(clip)
    for texts, message in (([], "nothing is asked for"), (["cat", " "], r"text\[1\] is empty")):
        with pytest.raises(BuildError, match=message):
            TextTrack(Opened(Finder(0)), frames_of(PICTURES), texts)


def test_objects_of_one_text_do_not_overlap_and_hidden_ones_are_not_seen() -> None:
    frame = {
        3: shown(0, sure=0.5, rows=range(6)),
        4: shown(0, sure=0.7, rows=range(4, 8)),
        5: shown(1, rows=range(8)),
        6: shown(1, is_hidden=True),
        7: shown(1, rows=range(0)),
    }
    tracks = word_results.find(found([frame], {5}), (8, 8))
    assert tracks.ids.tolist() == [3, 4, 6, 7] and tracks.visible.tolist() == [[True, True, False, False]]
    assert tracks.masks[0].any(2).tolist()[:2] == [[row < 4 for row in range(8)], [row >= 4 for row in range(8)]]
    empty = word_results.find(found([{}, {}], set()), (8, 8))
    assert empty.masks.shape == (2, 0, 8, 8)


def test_texts_become_tokens_and_settings() -> None:
    request = PromptRequest("words", "text_video", "hf", (), TOKENIZER, {}, {"hotstart_delay": 9})
    dims = {"text_len": 32, "image_size": 112}
    given = arrays(request, TextPrompts((TextOnFrame(0, None, "star"), TextOnFrame(0, None, "circle"))), dims)
    assert given["input_ids"].shape == given["attention_mask"].shape == (2, 32)
    assert not given["geometry_counts"] and 9 in given["word_settings"] and given["image_size"] == 112
    for prompt, message in (
        (TextOnFrame(0), "has no text"),
        (TextOnFrame(2, None, "star"), "is on frame 2; a text is looked for in the whole clip"),
        (TextOnFrame(0, 1, "star"), "names object 1"),
    ):
        with pytest.raises(BuildError, match=message):
            arrays(request, TextPrompts((prompt,)), dims)


def test_texts_are_typed_without_marks() -> None:
    text, point = Asked(Marks(("cat",))), Asked(Marks(points=(Point(1, 3, 4),)))
    assert _texts([text]) == ["cat"] and _texts([point]) == []
    with pytest.raises(BuildError, match="a text finds objects itself"):
        _texts([text, point])
