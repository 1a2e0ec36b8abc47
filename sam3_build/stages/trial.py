"""Takes steps from a graph to what is measured of it, returns statistics: several actions in one worker.

A search makes dozens of these. As ordinary actions each would leave graphs and engines in the store, gigabytes of a
large component; here they lie in the worker's own folder and go with it.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sam3_build import registry
from sam3_build.params import TrialParams, TrialStep
from sam3_build.pipeline.cases import recorded_cases
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import Json


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write the `statistics.json` of the last step; return the facts of each step by its name.

    document: TrialParams. inputs: those that its steps name
    """
    params, facts, places = TrialParams.of(document), dict[str, Json](), dict(inputs)
    with TemporaryDirectory(dir=out.parent) as scratch:
        for number, step in enumerate(params.steps):
            given = {role: _path(places, source) for role, source in step.inputs.items()}
            if step is params.steps[-1] and params.cases is not None:
                given["reference"] = _first_cases(given["reference"], step, params.cases, Path(scratch) / "cases")
            places[step.name] = Path(scratch) / str(number)
            places[step.name].mkdir()
            facts[step.name] = registry.stage(step.stage).run(step.params, given, places[step.name])
            gc.collect()  # nodes of a model refer to one another, and its weights would stay beside the next step's
        shutil.copyfile(places[params.steps[-1].name] / "statistics.json", out / "statistics.json")
    return facts


def _path(places: Mapping[str, Path], source: str) -> Path:
    """Return where an input of a step lies."""
    name, _, within = source.partition("/")
    return places[name] / within


def _first_cases(reference: Path, step: TrialStep, count: int, folder: Path) -> Path:
    """Return `folder` with links to the first `count` recorded cases of the component that a step runs."""
    folder.mkdir()
    for case in recorded_cases(reference, str(step.params["component"]), count):
        (folder / case.name).symlink_to(case)
    return folder


STAGE = Stage(
    name="trial",
    summary="Measure graphs with some nodes in FP32",
    tools=(),
    run=run,
    memory=Memory(base=2_500_000_000, weights=4.2, activations=3.0),  # the most that one of its steps takes
)
