"""Verify: a component's ONNX and recorded cases in, `statistics.json` per output over all cases out. Judges nothing.

Each case runs through Polygraphy, on ONNX Runtime's CPU or by what a backend built, and is compared with what PyTorch
recorded, or with the outputs of the FP32 ONNX where a `baseline` is given. One case is in memory at a time.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sam3_build.compare.statistics import OutputStatistics
from sam3_build.errors import BuildError
from sam3_build.plugins import Memory, Stage
from sam3_build.runners import Arrays, Runner, fit, open_runner, refusals
from sam3_build.spec import Json


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `statistics.json`, and with `keep_outputs` also `<case>.npz` of the ONNX outputs, into `out`.

    params: component, precision, keep_outputs; backend and options when what a backend built is to run
    inputs: onnx, the folder that holds `<component>.<precision>.onnx`
            reference, a folder of `<case>.npz` with arrays `inputs/<name>` and `outputs/<name>`
            built (with a backend), the folder that its build wrote
            baseline (optional), a folder of `<case>.npz` with arrays `<name>`: compare with these outputs instead
    """
    from polygraphy.comparator import Comparator

    component, precision = str(params["component"]), str(params["precision"])
    cases = sorted(inputs["reference"].glob("*.npz"))
    if not cases:
        raise BuildError(
            f"no recorded case runs {component!r}, so nothing would be verified; "
            "add a sample to the manifest that uses this component"
        )
    baseline = inputs.get("baseline")
    expected = [case if baseline is None else baseline / case.name for case in cases]
    compare = _Comparison([case.stem for case in cases], out if params["keep_outputs"] else None)
    with refusals(params) as what:
        runner = open_runner(params, inputs)
        measured = Comparator.run([runner], _feeds(cases, runner), streaming=True)
        recorded = _recorded(expected, "outputs/" if baseline is None else "")
        Comparator.compare_accuracy([measured, recorded], compare_func=compare)
    if compare.done != len(cases):
        raise BuildError(f"{what}: only {compare.done} of {len(cases)} cases were compared")
    outputs: dict[str, Json] = {name: found.summary() for name, found in compare.outputs.items()}
    names: list[Json] = [case.stem for case in cases]
    summary: dict[str, Json] = {"component": component, "precision": precision, "cases": names, "outputs": outputs}
    (out / "statistics.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for name, found in compare.outputs.items():
        logging.getLogger(__name__).info("%s: %s", name, found.metrics())
    return {"cases": len(cases), "outputs": len(outputs)}


class _Comparison:
    """Polygraphy's compare function: adds each case, in order, to the statistics of its outputs."""

    def __init__(self, cases: Sequence[str], keep: Path | None) -> None:
        self.outputs: dict[str, OutputStatistics] = {}
        self.done = 0
        self._cases = cases
        self._keep = keep

    def __call__(self, actual: Arrays, expected: Arrays) -> OrderedDict[str, bool]:
        """Compare one case. Polygraphy gets no per-output verdict: it would log histograms, which take seconds."""
        import numpy as np

        case = self._cases[self.done]
        self.done += 1
        if sorted(actual) != sorted(expected):
            raise BuildError(f"case {case!r}: the model has the outputs {sorted(actual)}, expected {sorted(expected)}")
        for name, reference in expected.items():
            statistics = self.outputs.setdefault(name, OutputStatistics(reference.dtype.name))
            statistics.add(case, actual[name], reference)
        if self._keep:
            np.savez(self._keep / f"{case}.npz", allow_pickle=False, **dict(actual.items()))
        return OrderedDict()


def _feeds(cases: Sequence[Path], runner: Runner) -> Iterator[Arrays]:
    """Yield each case's recorded inputs, once they are found to suit the runner."""
    for case in cases:
        feed = _load(case, "inputs/")
        fit(feed, runner, case.stem)
        logging.getLogger(__name__).info("case %s", case.stem)
        yield feed


def _recorded(files: Sequence[Path], prefix: str) -> Iterator[Sequence[object]]:
    """Yield the expected outputs case by case, as what Polygraphy calls a run of a second runner."""
    from polygraphy.comparator import IterationResult, RunResults

    for file in files:
        result = RunResults()
        result.append(("reference", [IterationResult(OrderedDict(_load(file, prefix)))]))
        yield result


def _load(file: Path, prefix: str) -> Arrays:
    """Return the arrays of an `.npz` file whose names begin with `prefix`, without it."""
    import numpy as np

    if not file.is_file():
        raise BuildError(f"case {file.stem!r} is missing from the outputs to compare with ({file.name})")
    with np.load(file, allow_pickle=False) as arrays:
        return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


STAGE = Stage(
    name="verify",
    summary="Measure parity on the recorded inputs",
    tools=("onnxruntime", "polygraphy", "numpy"),
    run=run,
    memory=Memory(base=500_000_000, weights=2.6, activations=2.6),
)
