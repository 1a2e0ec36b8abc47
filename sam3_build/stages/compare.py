"""Takes what PyTorch and a target compute of pictures, returns what both find in them, and how it differs.

Judges nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.compare.instances import InstanceStatistics, PictureRow
from sam3_build.drawing import captions
from sam3_build.drawing.overlay import panels, write_overlay
from sam3_build.drawing.sheet import SHEET, WIDTH, Entry, Sheet
from sam3_build.params import CompareParams, SampleParams
from sam3_build.pipeline import prompts
from sam3_build.pipeline.cases import listed_cases, outputs_of, skipped_in
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import INSTANCES, PIPELINE, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.drawing.overlay import Panels

    Arrays = Mapping[str, NDArray[np.generic]]


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write the statistics over all rows of all cases, and what was found, for programs and for people.

    That is `task.json`; `overlay.<case>.<row>.png`, of each row that can be compared; `overlay.png`, each sample once.

    document: CompareParams
    inputs: samples; reference, a folder of `<case>.npz` with arrays `outputs/<name>`; actual, one with arrays `<name>`;
            and the pictures by role
    """
    params = CompareParams.of(document)
    family = import_module(f"sam3_build.families.{params.family}.instances")
    threshold, samples = params.score_threshold, params.samples
    statistics = InstanceStatistics(threshold)
    sheet, on_sheet = Sheet(f"PyTorch fp32 against {params.target}{params.parity}", params.target), set()
    skipped = skipped_in(inputs["actual"])
    for case in listed_cases(inputs["samples"]):
        name = case.name
        if name in skipped:
            continue
        expected, actual = (outputs_of(inputs[side] / f"{name}.npz") for side in ("reference", "actual"))
        for row, sample in enumerate(case.samples):
            position = PictureRow(name, row, sample)
            sides = _row(expected, row), _row(actual, row)
            comparable = statistics.comparable(position, *sides)
            if not comparable and sample in on_sheet:
                continue
            picture = family.read_picture(inputs[samples[sample].pictures[0]])
            expected_instances = family.find(sides[0], picture.shape[:2], threshold)
            actual_instances = family.find(sides[1], picture.shape[:2], threshold) if comparable else None
            pairs = statistics.add(position, expected_instances, actual_instances) if actual_instances else ()
            boxes = prompts.boxes_of(samples[sample].prompts)
            if comparable:
                write_overlay(
                    out / f"overlay.{name}.{row}.png",
                    panels(picture, boxes, expected_instances, actual_instances, pairs),
                )
            if sample not in on_sheet:
                on_sheet.add(sample)
                small = panels(picture, boxes, expected_instances, actual_instances, pairs, WIDTH)
                sheet.add(_entry(samples[sample], statistics.pictures[-1], small))
    sheet.write(out / SHEET)
    measured = statistics.summary()
    outputs: dict[str, Json] = {INSTANCES: measured}
    summary: dict[str, Json] = {"component": PIPELINE, "precision": params.precision, "outputs": outputs}
    summary |= {"skipped": skipped} if skipped else {}
    _write(out / "statistics.json", summary)
    asked: list[Json] = [sample.document() for sample in samples]
    _write(out / "task.json", {"score_threshold": threshold, "samples": asked, "pictures": statistics.pictures})
    logging.getLogger(__name__).info("%s", statistics.metrics())
    return {"pictures": statistics.compared, "instances": statistics.expected}


def _entry(sample: SampleParams, row: Mapping[str, Json], drawn: Panels) -> Entry:
    """Return one sample as the sheet shows it; `row` is what was measured of it."""
    prompt = captions.prompt(sample.prompts)
    return Entry(prompt, captions.result(row), captions.differences(row), drawn)


def _row(outputs: Arrays, row: int) -> Arrays:
    """Return one row of a batch; an output without that row is as it is, and will be found to be of another shape."""
    return {name: array[row] if array.ndim and row < len(array) else array for name, array in outputs.items()}


def _write(path: Path, document: Mapping[str, Json]) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


STAGE = Stage(
    name="compare",
    summary="Find instances and compare them",
    tools=("numpy", "opencv-python-headless", "pillow", "scipy"),
    run=run,
    memory=Memory(base=2_500_000_000),  # 200 instances on each side of a picture of 2 megapixels, measured
)
