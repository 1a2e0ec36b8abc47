"""Files with the names and shapes of published ones belong to the families that can use them, and to no others."""

from __future__ import annotations

import json
import math
import sys

import pytest
from miniature import ROOT
from sam3_official import official_names

from sam3_build import registry
from sam3_build.commands import inspect_checkpoint
from sam3_build.commands.inspect import describe
from sam3_build.weights.recognise import other_family

sys.path.append(str(ROOT / "tests" / "families" / "sam2"))
from recorded_names import official

SAM3 = ["sam3_video", "sam3_image", "sam3_tracker"]


def part(prefix):
    return {name: shape for name, shape in official_names().items() if name.startswith(prefix)}


FILES = {
    "sam3": (official_names, SAM3),
    "the detector of sam3": (lambda: part("detector."), ["sam3_image"]),
    "the tracker of sam3": (lambda: part("tracker."), ["sam3_tracker"]),
    "sam2.1_hiera_tiny": (lambda: official("tiny"), ["sam2"]),
    "edgetam": (lambda: json.loads((ROOT / "tests/recorded/edgetam/official_names.json").read_text()), ["edgetam"]),
}


@pytest.fixture
def write(tmp_path):
    """Return what writes a file of zeros under these names; it takes no space on disk."""

    def written(name, shapes):
        header, at = {}, 0
        for key, shape in shapes.items():
            end = at + 2 * math.prod(shape)
            header[key], at = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, end]}, end
        text = json.dumps(header).encode()
        path = tmp_path / f"{name}.safetensors"
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + at)
        return path

    return written


@pytest.mark.parametrize("file", [pytest.param(f, marks=pytest.mark.ci if "the " in f else ()) for f in FILES])
def test_inspect_names_the_families_that_can_use_a_file(file, write, monkeypatch):
    names, (best, *others) = FILES[file]
    monkeypatch.setattr(inspect_checkpoint, "count_not_finite", lambda tensor: 0)  # which would read gigabytes
    found = describe(write(file, names()))
    assert (found["family"], found.get("also_known_to", [])) == (best, others)


@pytest.mark.ci
@pytest.mark.parametrize("family", registry.key_tables())
def test_any_other_family_is_told_whose_file_it_is(family, write):
    tables = registry.key_tables()
    names, (best, *_) = FILES["edgetam"]
    why = other_family(write("edgetam", names()), family, tables)
    assert why is None if family == best else f"write `family: {best}`" in why
