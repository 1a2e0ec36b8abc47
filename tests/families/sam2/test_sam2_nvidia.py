"""The layout `deepstream` computes what NVIDIA's networks do: recorded by tests/recorded/sam2/record_nvidia.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sam3_build import registry
from sam3_build.torch_modules.assemble import assemble, compute

RECORDED = Path(__file__).parents[2] / "recorded" / "sam2"
sys.path.insert(0, str(RECORDED))
import narrow  # noqa: E402

CODE = registry.family_code("sam2")
CALLS = tuple(narrow.inputs())

# Of max |reference| of each row. FP32 sums in another order give 3e-6.
LARGEST = 1e-5


@pytest.fixture(scope="module")
def computed():
    """Return (call, whether objects are hidden) -> outputs by name."""
    config, own = narrow.config(), narrow.tensors()
    given, cache = narrow.inputs(), {}

    def run(call, hidden=False):
        if (call, hidden) not in cache:
            name = call.partition(".")[0]
            tensors = {key: own[key] for key in CODE.modules.skeleton(name, config).state_dict()}
            if hidden:
                tensors[narrow.HIDDEN] = own[narrow.HIDDEN] - 6
            outputs = [tensor.name for tensor in CODE.family.component(name).outputs]
            cache[call, hidden] = compute(assemble(CODE.modules, name, config, tensors), given[call], outputs)
        return cache[call, hidden]

    return run


def rows_apart(recorded, found):
    """Return the largest difference of each row, by the largest value that NVIDIA's has in it."""
    return np.abs(recorded - found)[:, :-1].max(1) / recorded[:, -1]


@pytest.mark.ci
@pytest.mark.parametrize("call", CALLS)
def test_every_row_of_every_output_is_nvidias(computed, call):
    with np.load(RECORDED / "nvidia.npz") as recorded:
        expected = {key.partition("/")[2]: recorded[key] for key in recorded if key.startswith(f"{call}/")}
    found = computed(call)
    assert expected.keys() == found.keys()
    apart = {name: rows_apart(expected[name], narrow.sampled(array)) for name, array in found.items()}
    assert all((rows <= LARGEST).all() for rows in apart.values()), apart
    if "occ_logit" in found:
        assert (found["occ_logit"] > 0).all(), "hidden objects would pass any comparison"


@pytest.mark.ci
@pytest.mark.parametrize("call", [call for call in CALLS if call.startswith("mask_decoder")])
def test_rows_of_hidden_objects_are_nvidias_constants(computed, call):
    found = computed(call, hidden=True)
    with np.load(RECORDED / "nvidia.npz") as recorded:
        for name, array in found.items():
            expected, sampled = recorded[f"{call}.hidden/{name}"], narrow.sampled(array)
            if name in ("pred_mask", "mask_for_mem", "obj_ptr"):
                np.testing.assert_array_equal(sampled, expected)
            else:
                assert (rows_apart(expected, sampled) <= LARGEST).all()
    assert (found["pred_mask"] == -1024).all() and (found["mask_for_mem"] == -10).all()
