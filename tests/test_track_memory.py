"""What a clip keeps does not grow: counted by walking over all that a `Track` reaches, with stand-ins for networks."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType, ModuleType

import numpy as np
import pytest
from miniature import ROOT, params
from PIL import Image

from sam3_build import registry
from sam3_build.model_format import ModelFile
from sam3_build.params import ModelParams
from sam3_build.pipeline.chain import Network
from sam3_build.pipeline.memory_bank import MemoryBank
from sam3_build.runtime.choice import Choice
from sam3_build.runtime.clip import frames_of
from sam3_build.runtime.folder import ModelFolder
from sam3_build.runtime.open_clip import OpenClip, tracked
from sam3_build.runtime.opened import Sessions
from sam3_build.runtime.track import Track

CONFIG = json.loads((ROOT / "manifests" / "sam2_mini.json").read_text())
STAR, BOX = [[30, 44]], [[82, 20, 116, 54]]


@dataclass(frozen=True)
class Described(ModelFolder):
    """The miniature's folder without its files."""

    def require(self, file: ModelFile) -> None:
        """Ask for none."""


class StandIns(Sessions):
    """Networks that give arrays of the right shapes at once: an object is always seen."""

    def __init__(self, folder: ModelFolder) -> None:
        super().__init__(folder)
        self.given, self.static = {c.name: c.outputs for c in folder.description.components}, folder.description.static

    def network(self, name: str, file: ModelFile, *, on_device: bool) -> Network:
        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            rows = max(len(array) for array in inputs.values())
            shapes = {t.name: [_size(dim, self.static, rows) for dim in t.dims] for t in self.given[name]}
            return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}

        return run


def opened() -> OpenClip:
    """Return the miniature's pipeline for clips, with such networks."""
    static = registry.family_code("sam2").family.static_dims(CONFIG)
    described = ModelParams.of(params("model", "sam2_mini")).description(CONFIG, static, (), has_tokenizer=False)
    folder = Described(ROOT, described, {})
    pipeline = tracked(folder)
    assert pipeline
    files = {name: ModelFile(name, "fp32", "onnxruntime", f"{name}.onnx") for name in pipeline.components}
    return OpenClip(folder, pipeline, Choice("cpu", "fp32", files), StandIns(folder))


def _size(dim: int | str, sizes: Mapping[str, int], rows: int) -> int:
    return dim if isinstance(dim, int) else sizes.get(dim, rows)


def held(*roots: object) -> int:
    """Return the bytes of all arrays and pictures that can be reached from these."""
    total, seen, waiting = 0, set[int](), list[object](roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | BuiltinFunctionType | str | int | float | None):
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            total += one.nbytes if one.base is None else 0
            waiting.append(one.base)
        elif isinstance(one, FunctionType):  # not its globals, which reach everything
            waiting += [one.__closure__, one.__defaults__]
        else:
            if isinstance(one, Image.Image):
                total += one.width * one.height * len(one.getbands())
            waiting += gc.get_referents(one)
    return total


def stream() -> Iterator[np.ndarray]:
    """Yield a small clip without end: a square that moves."""
    position = 0
    while True:
        frame = np.zeros((120, 160, 3), np.uint8)
        frame[40:70, position % 130 : position % 130 + 30] = 255
        position += 1
        yield frame


def sizes(track: Track, frames: int) -> dict[int, set[int]]:
    """Return number of objects -> the sizes that are held, once the memories of all of them are full.

    One object stays, and is prompted again now and then; two others come and go.
    """
    track.add(0, points=STAR)
    found: dict[int, set[int]] = {}
    settled = 0
    for frame in track:
        at = frame.index
        changes = {10: 1, 20: 1, 30: 1, 500: 1, 1700: 1}
        if at in changes:
            track.add(at, object=1, points=STAR)
        if at % 100 in (40, 45):
            track.add(at, boxes=BOX)
        if at % 100 in (70, 90):
            track.remove(track.ids[-1])
            continue  # the frame that was yielded still shows it
        if at in changes or at % 100 in (40, 45):
            settled = at + 17
        if at >= max(50, settled):
            found.setdefault(len(track.ids), set()).add(held(track))
        if at == frames:
            break
    return found


def started() -> Track:
    return Track(opened(), frames_of(stream()))


@pytest.mark.slow
def test_from_frame_50_to_frame_3000_equally_many_objects_are_equally_many_bytes() -> None:
    found = sizes(started(), 3000)
    assert sorted(found) == [1, 2, 3]
    assert {count: len(of) for count, of in found.items()} == {1: 1, 2: 1, 3: 1}, found


@pytest.mark.ci
def test_the_same_in_short_and_a_frame_that_is_kept_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sizes(started(), 240)
    assert {count: len(of) for count, of in found.items()} == {1: 1, 2: 1, 3: 1}, found
    kept: list[object] = []

    class Keeping(Track):
        """It keeps one picture, at frame 120."""

        def __next__(self):  # type: ignore[no-untyped-def]
            frame = super().__next__()
            if frame.index == 120:
                kept.append(replace(frame))
                self.kept = kept
            return frame

    leaking = sizes(Keeping(opened(), frames_of(stream())), 240)
    assert len(leaking[1]) == 2, leaking
    forget = MemoryBank.track

    def leak(self: MemoryBank, at: int, memory: object, longest: int) -> None:
        before = self.tracked.get(120)
        forget(self, at, memory, longest)  # type: ignore[arg-type]
        self.tracked |= {} if before is None else {120: before}

    monkeypatch.setattr(MemoryBank, "track", leak)
    assert len(sizes(started(), 240)[1]) == 2
