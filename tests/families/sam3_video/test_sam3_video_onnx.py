"""The networks as ONNX, for as many objects, points and pointers as a loop may have, against their PyTorch."""

from __future__ import annotations

import predictor_onnx
import pytest
from video_model import OWN

pytestmark = pytest.mark.ci

NAMES = ("mask_prompt", "mask_decoder", "memory_attention", "memory_encoder")


@pytest.fixture(scope="module")
def run():
    return OWN.networks()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    predictor_onnx.write(OWN, NAMES, root)
    return root


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mask_decoder", {"objects": 1, "points": 1}),
        ("mask_decoder", {"objects": 2, "points": 2}),
        ("mask_decoder", {"objects": 2, "points": 0}),
        ("mask_decoder", {"objects": 3, "points": 3}),
        ("memory_attention", {"objects": 1, "memories": 1, "pointers": 1}),
        ("memory_attention", {"objects": 2, "memories": 2, "pointers": 2}),
        ("memory_attention", {"objects": 2, "memories": 7, "pointers": 0}),
        ("memory_encoder", {"objects": 1}),
        ("memory_encoder", {"objects": 2}),
        ("mask_prompt", {"objects": 2}),
    ],
)
def test_a_file_gives_what_pytorch_gives(name, sizes, run, folder):
    predictor_onnx.require_equal(OWN, name, sizes, run, folder)


def test_memories_bear_half_precision(folder, run):
    """Masks come binarized and scaled, so that no threshold lies behind a rounding."""
    assert 0 < predictor_onnx.error_of_half_precision(OWN, run, folder) <= 2e-3
