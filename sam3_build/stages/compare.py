"""Takes what PyTorch and a target compute in a pipeline, returns how what users get from it differs. Judges nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.params import CompareParams, SampleParams
from sam3_build.pipeline import images
from sam3_build.pipeline.cases import listed_cases, outputs_of, skipped_in
from sam3_build.pipeline.clips import Clip
from sam3_build.plugins import ComparedCase, CompareRequest, Memory, Stage
from sam3_build.spec import Json

if TYPE_CHECKING:
    from sam3_build.plugins import Picture


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `statistics.json` over all cases that were fed, and what the kind of result draws and writes beside it.

    document: CompareParams
    inputs: samples; reference, a folder of `<case>.npz` with arrays `outputs/<name>`; actual, one with arrays `<name>`;
            and the pictures by role
    """

    params = CompareParams.of(document)
    kind, samples = registry.result(params.result), {s.number: s for s in reversed(params.samples)}
    code, skipped = registry.family_code(params.family), skipped_in(inputs["actual"])
    request = CompareRequest(
        cases=_cases(inputs, skipped, [sample.number for sample in params.samples]),
        samples={number: sample.document() for number, sample in samples.items()},
        picture=lambda number, frame: _picture(samples[number], frame, inputs),
        find=code.results.find,
        score_threshold=params.score_threshold,
        target=params.target,
        parity=params.parity,
        draws=params.draws,
    )
    measured = kind.compare(request, out)
    outputs: dict[str, Json] = {kind.output: measured}
    summary: dict[str, Json] = {"precision": params.precision, "outputs": outputs}
    summary |= {"skipped": skipped} if skipped else {}
    (out / "statistics.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    logging.getLogger(__name__).info("%s", measured["metrics"])
    return {"compared": measured["elements"], kind.output: measured[kind.output]}


def _cases(inputs: Mapping[str, Path], skipped: Mapping[str, str], numbers: Sequence[int]) -> Iterator[ComparedCase]:
    for case in listed_cases(inputs["samples"]):
        if case.name not in skipped:
            yield ComparedCase(
                name=case.name,
                samples=tuple(numbers[position] for position in case.samples),
                frames=case.frames,
                like=case.like,
                expected=partial(outputs_of, inputs["reference"] / f"{case.owner}.npz"),
                actual=partial(outputs_of, inputs["actual"] / f"{case.name}.npz"),
            )


def _picture(sample: SampleParams, frame: int, files: Mapping[str, Path]) -> Picture:
    """Return the picture or frame [height, width, 3], RGB, turned as viewers show it."""
    import numpy as np

    clip = sample.frames > 0
    return np.asarray(Clip.of(sample, files)[frame] if clip else images.read(files[sample.pictures[0]]))


STAGE = Stage(
    name="compare",
    summary="Compare the results of a pipeline",
    tools=("numpy", "opencv-python-headless", "pillow", "scipy"),
    run=run,
    memory=Memory(base=2_500_000_000),  # 200 instances on each side of a picture of 2 megapixels, measured
)
