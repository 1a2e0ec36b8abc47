"""Takes a graph, nodes to keep in FP32 and cases, returns statistics: precision and verify in one worker.

A search makes dozens of these. As two ordinary actions each would leave a graph in the store, a gigabyte of a large
component; here it lies in the worker's own folder and goes with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sam3_build.params import TrialParams
from sam3_build.pipeline.cases import recorded_cases
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import Json
from sam3_build.stages import precision, verify


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `statistics.json` as verify does; return the facts of precision and of verify.

    document: TrialParams. inputs: those of both actions; `onnx` is the precision's
    """
    params = TrialParams.of(document)
    with TemporaryDirectory(dir=out.parent) as scratch:
        typed_as, cases, statistics = (Path(scratch) / name for name in ("typed", "cases", "statistics"))
        for folder in (typed_as, cases, statistics):
            folder.mkdir()
        for case in recorded_cases(inputs["reference"], params.component, params.cases):
            (cases / case.name).symlink_to(case)
        facts = precision.run(params.typed.document(), inputs, typed_as)
        given = {**inputs, "onnx": typed_as, "reference": cases}
        measured = verify.run(params.measured.document(), given, statistics)
        shutil.copyfile(statistics / "statistics.json", out / "statistics.json")
    return {"typed": facts, "measured": measured}


STAGE = Stage(
    name="trial",
    summary="Measure a graph with some nodes in FP32",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime"),
    run=run,
    memory=Memory(base=700_000_000, weights=3.9, activations=2.6),
)
