"""Verify: a component's ONNX and recorded cases in, `statistics.json` per output over all cases out. Judges nothing.

Each case runs through Polygraphy, on ONNX Runtime's CPU or by what a backend built, and is compared with what PyTorch
recorded, or with the outputs of the FP32 ONNX where a `baseline` is given. One case is in memory at a time. Rows of the
largest case are fed once more, in another order. In which types the file computes is read from the file.
"""

from __future__ import annotations

import gc
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import gemm_types
from sam3_build.compare import rows
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.errors import BuildError
from sam3_build.plugins import Memory, Stage
from sam3_build.recorded_cases import INPUTS, OUTPUTS, arrays_of, recorded_cases
from sam3_build.runners import Arrays, Runner, fit, is_emulated, open_runner, refusals
from sam3_build.spec import TYPES, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `statistics.json`, and with `keep_outputs` also `<case>.npz` of the ONNX outputs, into `out`.

    params: component, precision, keep_outputs; backend and options when what a backend built is to run
            rows, how many rows of a case may be fed again, together (0: none)
            types (optional), the params of the precision action: tell of the GEMMs' types, as output `types`
    inputs: onnx, the folder that holds `<component>.<precision>.onnx`
            fp32 (with types, of a reduced precision), the folder of the FP32 graph
            reference, a folder of `<case>.npz` with arrays `inputs/<name>` and `outputs/<name>`
            built (with a backend), the folder that its build wrote
            baseline (optional), a folder of `<case>.npz` with arrays `<name>`: compare with these outputs instead
    """
    from polygraphy.comparator import Comparator

    component, precision = str(params["component"]), str(params["precision"])
    cases = recorded_cases(inputs["reference"], component)
    baseline = inputs.get("baseline")
    expected = [case if baseline is None else baseline / case.name for case in cases]
    types = {TYPES: gemm_types.measure(params, inputs)} if "types" in params else {}
    gc.collect()  # nodes of a model refer to one another: its weights would stay beside those of the session
    repeated = _repeated(cases, params["rows"])
    compare = _Comparison([case.stem for case in cases], repeated, out if params["keep_outputs"] else None)
    with refusals(params) as what:
        runner = open_runner(params, inputs)
        measured = Comparator.run([runner], _feeds(cases, repeated, runner), streaming=True)
        recorded = _recorded(expected, repeated, OUTPUTS if baseline is None else "")
        Comparator.compare_accuracy([measured, recorded], compare_func=compare)
    if compare.done != len(cases) or compare.again != bool(repeated.rows):
        raise BuildError(f"{what}: only {compare.done} of {len(cases)} cases were compared")
    outputs: dict[str, Json] = {n: found.summary() | repeated.told() for n, found in compare.outputs.items()}
    names: list[Json] = [case.stem for case in cases]
    summary: dict[str, Json] = {"component": component, "precision": precision, "cases": names}
    summary |= {"emulated": True} if is_emulated(params) else {}
    summary |= {"outputs": outputs | types}
    (out / "statistics.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for name, found in compare.outputs.items():
        logging.getLogger(__name__).info("%s: %s", name, found.metrics())
    return {"cases": len(cases), "outputs": len(compare.outputs)}


@dataclass
class _Repeated:
    """Which `rows` of which case, the `at`th, are fed once more, right after it; or no rows, and why not."""

    at: int
    rows: tuple[int, ...]
    not_run: str | None = None

    def hold(self, runner: Runner) -> None:
        """Give up where an active runner takes no two rows at once."""
        shapes = {name: t.shape for name, t in runner.get_input_metadata(use_numpy_dtypes=False).items()}
        fixed = [name for name, shape in shapes.items() if not shape or (isinstance(shape[0], int) and shape[0] >= 0)]
        if self.rows and fixed:
            self.rows, self.not_run = (), f"the first dim of input {fixed[0]!r} is fixed: no two rows fit"

    def told(self) -> dict[str, Json]:
        """Return what the statistics of every output say of a check that was not run."""
        return {"not_run": {"rows": self.not_run}} if self.not_run else {}


def _repeated(cases: Sequence[Path], most: Json) -> _Repeated:
    """Return what to feed again: rows of the case that has most of them."""
    assert isinstance(most, int)
    sizes = [max((len(array) for array in arrays_of(case, INPUTS).values() if array.ndim), default=1) for case in cases]
    at = sizes.index(max(sizes))
    picked = rows.again(sizes[at], most)
    return _Repeated(at, picked, None if picked else "no two rows could be fed together")


class _Comparison:
    """Polygraphy's compare function: adds each case, in order, and rows fed again, to the statistics of its outputs."""

    def __init__(self, cases: Sequence[str], repeated: _Repeated, keep: Path | None) -> None:
        self.outputs: dict[str, OutputStatistics] = {}
        self.done = 0
        self.again = False
        self._cases = cases
        self._repeated = repeated
        self._before: dict[str, tuple[NDArray[np.generic], NDArray[np.generic]]] = {}
        self._keep = keep

    def __call__(self, actual: Arrays, expected: Arrays) -> OrderedDict[str, bool]:
        """Compare one case. Polygraphy gets no per-output verdict: it would log histograms, which take seconds."""
        import numpy as np

        if self._before:
            return self._compare_rows(actual)
        case = self._cases[self.done]
        self.done += 1
        if sorted(actual) != sorted(expected):
            raise BuildError(f"case {case!r}: the model has the outputs {sorted(actual)}, expected {sorted(expected)}")
        for name, reference in expected.items():
            statistics = self.outputs.setdefault(name, OutputStatistics(reference.dtype.name))
            statistics.add(case, actual[name], reference)
        if self._keep:
            np.savez(self._keep / f"{case}.npz", allow_pickle=False, **dict(actual.items()))
        if self._repeated.rows and self.done == self._repeated.at + 1:
            upto = max(self._repeated.rows) + 1
            self._before = {n: (_first(actual[n], upto), _first(expected[n], upto)) for n in actual}
        return OrderedDict()

    def _compare_rows(self, found: Arrays) -> OrderedDict[str, bool]:
        case, picked = self._cases[self._repeated.at], self._repeated.rows
        for name, (before, reference) in self._before.items():
            self.outputs[name].rows.take(case, picked, found[name], before, reference)
        self._before, self.again = {}, True
        return OrderedDict()


def _first(array: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    """Return a copy of the first rows, since the runner may use the array again. A scalar has one."""
    import numpy as np

    return np.atleast_1d(array)[:rows].copy()


def _feeds(cases: Sequence[Path], repeated: _Repeated, runner: Runner) -> Iterator[Arrays]:
    """Yield each case's recorded inputs, once they are found to suit the runner; of one case also rows once more."""
    repeated.hold(runner)
    for index, case in enumerate(cases):
        feed = arrays_of(case, INPUTS)
        fit(feed, runner, case.stem)
        logging.getLogger(__name__).info("case %s", case.stem)
        yield feed
        if repeated.rows and index == repeated.at:
            again = {name: array[list(repeated.rows)] for name, array in feed.items()}
            fit(again, runner, case.stem)
            logging.getLogger(__name__).info("case %s, its rows %s", case.stem, list(repeated.rows))
            yield again


def _recorded(files: Sequence[Path], repeated: _Repeated, prefix: str) -> Iterator[Sequence[object]]:
    """Yield the expected outputs case by case, as what Polygraphy calls a run of a second runner."""
    from polygraphy.comparator import IterationResult, RunResults

    for index, file in enumerate(files):
        result = RunResults()
        result.append(("reference", [IterationResult(OrderedDict(arrays_of(file, prefix)))]))
        yield result
        if repeated.rows and index == repeated.at:
            yield result  # the rows that are fed again are held against what this case gave


STAGE = Stage(
    name="verify",
    summary="Measure parity on the recorded inputs",
    tools=("onnxruntime", "polygraphy", "numpy", "onnx", "onnx-ir"),
    run=run,
    memory=Memory(base=500_000_000, weights=3.9, activations=2.6),
)
