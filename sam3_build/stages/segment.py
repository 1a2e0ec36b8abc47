"""Segment: what PyTorch and a target compute of pictures in; what both find in them, and how it differs, out.

Judges nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sam3_build.compare.overlay import write_overlay
from sam3_build.compare.task import Place, TaskStatistics
from sam3_build.errors import BuildError
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import INSTANCES, PIPELINE, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write the statistics over all rows of all cases, and what was found: `task.json`, `overlay.<case>.<row>.png`.

    params: family, precision, score_threshold, samples (of each: image, the role of its picture; text; boxes)
    inputs: samples; reference, a folder of `<case>.npz` with arrays `outputs/<name>`; actual, one with arrays `<name>`;
            and the pictures by role
    """
    family = import_module(f"sam3_build.families.{params['family']}.instances")
    threshold = float(cast(float, params["score_threshold"]))
    samples = cast("list[dict[str, Json]]", params["samples"])
    statistics = TaskStatistics(threshold)
    for case in json.loads((inputs["samples"] / "cases.json").read_bytes()):
        name = str(case["name"])
        expected, actual = (_outputs(inputs[side] / f"{name}.npz") for side in ("reference", "actual"))
        for row, sample in enumerate(case["samples"]):
            place = Place(name, row, sample)
            sides = _row(expected, row), _row(actual, row)
            if statistics.comparable(place, *sides):
                picture = family.read_picture(inputs[str(samples[sample]["image"])])
                there, here = (family.find(outputs, picture.shape[:2], threshold) for outputs in sides)
                pairs = statistics.add(place, there, here)
                write_overlay(out / f"overlay.{name}.{row}.png", picture, there, here, pairs)
    measured = statistics.summary()
    outputs: dict[str, Json] = {INSTANCES: measured}
    summary: dict[str, Json] = {"component": PIPELINE, "precision": params["precision"], "outputs": outputs}
    _write(out / "statistics.json", summary)
    _write(out / "task.json", {"score_threshold": threshold, "samples": samples, "pictures": statistics.pictures})
    logging.getLogger(__name__).info("%s", statistics.metrics())
    return {"pictures": statistics.compared, "instances": statistics.expected}


def _outputs(file: Path) -> Arrays:
    """Return the arrays of a file, of a recorded one its outputs."""
    import numpy as np

    if not file.is_file():
        raise BuildError(
            f"case {file.stem!r} is missing from the outputs that instances are to be found in ({file.name})"
        )
    with np.load(file, allow_pickle=False) as arrays:
        recorded = [name for name in arrays.files if name.startswith("outputs/")]
        return {name.removeprefix("outputs/"): arrays[name] for name in recorded or arrays.files}


def _row(outputs: Arrays, row: int) -> Arrays:
    """Return one row of a batch; an output without that row is as it is, and will be found to be of another shape."""
    return {name: array[row] if array.ndim and row < len(array) else array for name, array in outputs.items()}


def _write(path: Path, document: Mapping[str, Json]) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


STAGE = Stage(
    name="segment",
    summary="Find instances and compare them",
    tools=("numpy", "opencv-python-headless", "pillow", "scipy"),
    run=run,
    memory=Memory(base=2_500_000_000),  # 200 instances on each side of a picture of 2 megapixels, measured
)
