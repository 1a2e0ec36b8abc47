"""What is read of an object's memories, and that the profiles that ship take it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from sam3_build.execution.session import open_session
from sam3_build.pipeline.memory_bank import Memory, MemoryBank, alike
from sam3_build.pipeline.profiles import misfit
from sam3_build.pipeline.tracked_frame import Frame
from sam3_build.pipeline.tracking import MASKS, POINTERS, PROMPTED

ROOT = Path(__file__).parents[1]


def memory(value: float = 0.0) -> Memory:
    return Memory(np.full((4, 2), value, np.float32), np.full(3, value, np.float32))


def test_before_its_only_prompt_an_object_has_a_memory_and_no_pointer() -> None:
    bank = MemoryBank()
    bank.prompt(3, memory())
    ((_, arrays),) = alike({1: bank.recall(1, MASKS, POINTERS, PROMPTED)})
    assert arrays["memory_features"].shape == (1, 1, 4, 2)
    assert arrays["object_pointers"].shape == (1, 0, 3)
    sizes = {"objects": 1, "memories": 1, "pointers": 0}
    assert misfit(open_session(ROOT, "sam2_mini", {}).manifest.shape_profiles, sizes, None) is None


@pytest.mark.parametrize(("manifest", "all_pointers"), [("sam2_mini", 0), ("sam3_video_mini", PROMPTED)])
def test_the_most_that_is_read_fits_the_profile_as_well(manifest: str, all_pointers: int) -> None:
    bank = MemoryBank()
    for frame in range(40):
        if frame < PROMPTED:
            bank.prompt(frame, memory())
        else:
            bank.track(frame, memory(), POINTERS)
    ((_, arrays),) = alike({1: bank.recall(40, MASKS, POINTERS, PROMPTED, all_pointers)})
    (profile,) = open_session(ROOT, manifest, {}).manifest.shape_profiles.values()
    assert arrays["memory_features"].shape[1] == MASKS - 1 + PROMPTED == profile["memories"][2]
    assert arrays["object_pointers"].shape[1] == POINTERS - 1 + PROMPTED == profile["pointers"][2]


def test_memories_are_rounded_to_bfloat16() -> None:
    """Also halfway between two of its numbers, to the even one, and a number that is none of either sign."""
    features = np.random.default_rng(0).normal(size=(2, 64, 8)).astype(np.float32)
    features[0, 0, :4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0
    frame = Frame({"memory_encoder": lambda arrays, /, kind="": {"memory_features": features}}, {"vision_features": {}})
    answer = {"high_res_masks": np.zeros((4, 4)), "object_score_logits": np.zeros(1), "object_pointer": np.zeros(3)}
    found = frame.memories({5: answer, 6: answer}, binarize=True)
    expected = features.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (expected != features).mean() > 0.9
    np.testing.assert_array_equal(np.stack([found[which].features for which in (5, 6)]), expected)
