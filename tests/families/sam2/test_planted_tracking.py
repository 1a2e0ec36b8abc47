"""Faults planted into tracking with trained weights: the gates of tracks and of components catch each of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from miniature import ROOT
from tracked_clip import Predictor

from sam3_build.compare.judge import Verdict, default_gates, holds, judge, result_gates
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.pipeline import tracking
from sam3_build.pipeline.predictor_cases import ObjectPrompt
from sam3_build.pipeline.prompts import Box
from sam3_build.results.tracks.result import RESULT
from sam3_build.results.tracks.statistics import TrackStatistics
from sam3_build.spec import PIPELINE, Comparison, Kind
from sam3_build.torch_modules import memory
from training.scenes import HELD_OUT, SIDE
from training.tracking import clips, prompts

pytestmark = pytest.mark.ci  # networks in PyTorch, and frames through them

OWN = Predictor("sam2", folder=ROOT / "manifests" / "sam2_mini")

# Held-out clips. In the first, shapes of different colours cross and one is hidden for a while. Those of the second
# are alike: where all colours differ, the memories say enough, and pointers could be any.
HIDING, ALIKE = (535, False), (527, True)


def memory_of_the_frame_before(fed):
    return {**fed, "memory_features": np.roll(fed["memory_features"], 1, axis=1)}


def pointers_of_another_object(fed):
    return {**fed, "object_pointers": np.roll(fed["object_pointers"], 1, axis=0)}


def hidden_objects_remembered_as_visible(fed):
    return {**fed, "object_score_logits": np.abs(fed["object_score_logits"])}


# What a fault changes of a component's inputs, and a clip on which it shows.
OF_THE_HOST = {
    memory_of_the_frame_before: ("memory_attention", HIDING),
    pointers_of_another_object: ("memory_attention", ALIKE),
    hidden_objects_remembered_as_visible: ("memory_encoder", HIDING),
}


def rotations_off_by_one(patch):
    """Turn each cell by the position of the one before it."""
    sound = memory.rotation_tables
    patch.setattr(memory, "rotation_tables", lambda *sizes: [table.roll(1, dims=0) for table in sound(*sizes)])
    return OWN.networks()


def temporal_codes_reversed(patch):
    """Give the newest memories the codes of the oldest."""
    name = "memory_temporal_positional_encoding"
    codes = OWN.tensors()["memory_attention"][name]
    return OWN.networks(others={"memory_attention": {name: codes.flip(0)}})


class Followed:
    """A clip as the networks follow it, each shape boxed in the first frame, and the calls of every component."""

    def __init__(self, networks, clip, folder):
        number, alike = clip
        drawn = clips.draw(HELD_OUT, number, range(12), alike=alike)
        self.networks, self.calls = networks, {}
        self.frames = OWN.encoded(networks, frames=drawn.frames)
        boxes = [prompts.box(mask).tolist() for mask in drawn.masks[0]]
        asked = [Box(1, left, top, right - left, bottom - top) for left, top, right, bottom in boxes]
        self.given = OWN.given([ObjectPrompt(0, i, boxes=(box,)) for i, box in enumerate(asked)], folder, (SIDE, SIDE))
        self.sound = self.tracks({name: self._noting(name) for name in networks})

    def tracks(self, networks):
        """Return the tracks at the frames' size."""
        found = tracking.track(networks, self.given, self.frames)
        return OWN.code.results.find(found, (SIDE, SIDE), 0.5)

    def _noting(self, name):
        def call(fed, kind=""):
            found = self.networks[name](fed)
            self.calls.setdefault(name, []).append((dict(fed), found))
            return found

        return call

    def failing_tracks(self, networks):
        """Return the metrics of tracks that fail, as a 16-bit engine's are judged."""
        statistics = TrackStatistics()
        statistics.add("clip", self.sound, self.tracks(networks))
        gates = {RESULT.output: result_gates(RESULT, "fp16", {})}
        comparison = Comparison(
            PIPELINE, "a vs b", "fp16", None, "x", None, tuple(gates), gates, Kind.RESULT, result=RESULT.name
        )
        rows = judge(comparison, json.loads(json.dumps({"outputs": {RESULT.output: statistics.summary()}})))
        # Objects were given in one order alone.
        return {row.metric for row in rows if row.verdict == Verdict.FAIL and row.metric != "order"}

    def failing_tensors(self, name, network):
        """Return the metrics that fail of what a component gives of the noted inputs, as an FP32 graph's are judged."""
        (output,) = self.calls[name][0][1]
        found = OutputStatistics("float32")
        for i, (fed, expected) in enumerate(self.calls[name]):
            found.add(str(i), network(fed)[output], expected[output])
        gates = [gate for gate in default_gates("fp32", "float32") if gate.metric != "rows"]
        return {gate.metric for gate in gates if not holds(gate, found.metrics()[gate.metric])}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    torch.set_num_threads(1)
    networks = OWN.networks()
    return {clip: Followed(networks, clip, tmp_path_factory.mktemp("clip")) for clip in (HIDING, ALIKE)}


@pytest.mark.parametrize("clip", [HIDING, ALIKE], ids=["hiding", "alike"])
def test_without_a_fault_all_gates_pass(clip, followed):
    one = followed[clip]
    assert one.failing_tracks(one.networks) == set()
    for name in ("memory_attention", "memory_encoder"):
        assert one.failing_tensors(name, one.networks[name]) == set()
    assert one.sound.visible.any(axis=0).all()
    assert one.sound.visible.all() == (clip == ALIKE), "an object is hidden for a while"


@pytest.mark.parametrize("fault", OF_THE_HOST, ids=lambda fault: fault.__name__)
def test_a_fault_in_what_the_host_feeds_is_caught(fault, followed):
    name, clip = OF_THE_HOST[fault]
    one = followed[clip]

    def faulty(fed, kind=""):
        return one.networks[name](fault(fed))

    assert one.failing_tracks({**one.networks, name: faulty})
    assert one.failing_tensors(name, faulty)


@pytest.mark.parametrize("plant", [rotations_off_by_one, temporal_codes_reversed], ids=lambda plant: plant.__name__)
def test_a_fault_in_the_memory_attention_is_caught(plant, followed, monkeypatch):
    one, faulty = followed[HIDING], plant(monkeypatch)
    assert one.failing_tracks(faulty)
    assert one.failing_tensors("memory_attention", faulty["memory_attention"])
