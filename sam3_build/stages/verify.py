"""Takes a component's ONNX and recorded cases, returns statistics of each output over all cases. Judges nothing.

Each case runs on ONNX Runtime's CPU or by what a backend built, and is compared with what PyTorch recorded, or with the
outputs of the FP32 ONNX where a `baseline` is given. One case is in memory at a time. Rows of the largest case are fed
once more, in another order. In which types the file computes is read from the file.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.compare import batch_invariance, choices
from sam3_build.errors import BuildError
from sam3_build.params import VerifyParams
from sam3_build.pipeline.cases import INPUTS, OUTPUTS, arrays_of, recorded_cases, write_skipped
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import TYPES, Json

if TYPE_CHECKING:
    from sam3_build.compare.statistics import OutputStatistics
    from sam3_build.pipeline.network import Arrays, Network


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `statistics.json`, and with `keep_outputs` also `<case>.npz` of the ONNX outputs, into `out`.

    A case that fits none of the shape profiles that an engine was built for is not fed, and listed as skipped.

    document: VerifyParams. With `types` the statistics have the types of GEMMs, as output `types`
    inputs: onnx, the folder that holds `<component>.<precision>.onnx`
            fp32 (with types, of a reduced precision), the folder of the FP32 graph
            reference, a folder of `<case>.npz` with arrays `inputs/<name>` and `outputs/<name>`
            built (with a backend), the folder that its build wrote
            baseline (optional), a folder of `<case>.npz` with arrays `<name>`: compare with these outputs instead
    """
    import numpy as np

    from sam3_build.graph import gemms
    from sam3_build.stages._networks import is_emulated, open_network

    params = VerifyParams.of(document)
    cases, baseline = recorded_cases(inputs["reference"], params.component), inputs.get("baseline")
    types = {TYPES: gemms.measure(params, params.types, inputs)} if params.types else {}
    gc.collect()  # nodes of a model refer to one another: its weights would stay beside those of the session
    measured: dict[str, OutputStatistics] = {}
    skipped: dict[str, str] = {}
    compared: list[Json] = []
    with open_network(params, inputs) as network:
        again = _again(cases, params.rows, network)
        for case in cases:
            feed = arrays_of(case, INPUTS)
            if why := network.misfit(feed):
                skipped[case.stem] = why
                logging.getLogger(__name__).info("case %s is not fed: %s", case.stem, why)
                continue
            logging.getLogger(__name__).info("case %s", case.stem)
            expected = arrays_of(baseline / case.name, "") if baseline else arrays_of(case, OUTPUTS)
            outputs = network.run(feed, case.stem)
            _add(measured, case.stem, outputs, expected, params.meaningful_where, params.chosen_by)
            compared.append(case.stem)
            if params.keep_outputs:
                np.savez(out / case.name, allow_pickle=False, **dict(outputs.items()))
            if case.stem == again.case:
                _feed_again(measured, again.rows, case.stem, network, feed, outputs, expected)
    if not compared:
        raise BuildError(f"no case fits the shape profiles: {'; '.join(f'{c}: {w}' for c, w in skipped.items())}")
    outputs_of: dict[str, Json] = {
        name: found.summary(again.not_run, params.meaningful_where.get(name, "")) for name, found in measured.items()
    }
    summary: dict[str, Json] = {
        "component": params.component,
        "precision": params.precision,
        "cases": compared,
    }
    summary |= {"skipped": skipped} if skipped else {}
    summary |= {"emulated": True} if is_emulated(params) else {}
    summary |= {"outputs": outputs_of | types}
    (out / "statistics.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    write_skipped(out, skipped)
    for name, found in measured.items():
        logging.getLogger(__name__).info("%s: %s", name, found.metrics())
    return {"cases": len(compared), "outputs": len(measured)}


@dataclass(frozen=True)
class _Again:
    """Which `rows` of which case are fed once more, right after it; or none, and why not, by the metric."""

    case: str | None
    rows: tuple[int, ...]
    not_run: Mapping[str, Json] = field(default_factory=dict)


def _again(cases: Sequence[Path], most: int, network: Network) -> _Again:
    """Return what to feed again: rows of the case that has most of them and of which two can be fed together."""
    best, count = None, 0
    picked: tuple[int, ...] = ()
    for case in cases if most else ():
        feed = arrays_of(case, INPUTS)
        recorded = network.count(feed)
        found = (
            () if network.misfit(feed) else network.fitting_rows(feed, batch_invariance.permuted_rows(recorded, most))
        )
        if found and recorded > count:
            best, count, picked = case.stem, recorded, found
    fixed = network.fixed_input
    if best is None or fixed:
        why = f"input {fixed!r} has one row, and no more fit" if fixed else "no two rows fit together"
        return _Again(None, (), {"rows": why})
    return _Again(best, picked)


def _add(
    measured: dict[str, OutputStatistics],
    case: str,
    actual: Arrays,
    expected: Arrays,
    where: Mapping[str, str],
    chosen_by: Mapping[str, str],
) -> None:
    """Add one case to the statistics of its outputs.

    Left out are rows that mean nothing by the logits of `where`, and those of another candidate that ties with the
    expected one by the scores of `chosen_by`.
    """
    import numpy as np

    from sam3_build.compare.statistics import OutputStatistics

    if sorted(actual) != sorted(expected):
        raise BuildError(f"case {case!r}: the model has the outputs {sorted(actual)}, expected {sorted(expected)}")
    measured.update({n: OutputStatistics(a.dtype.name) for n, a in expected.items() if n not in measured})
    ties = {name: choices.near_ties(expected[name], actual[name]) for name in {*chosen_by.values()}}
    for name, found in ties.items():
        if found:
            listed = "; ".join(f"row {row} {words}" for row, words in found.items())
            measured[name].ties[case] = f"not compared, since the two nearly tie: {listed}"
    for name, reference in expected.items():
        logits = expected[where[name]] if name in where else None
        rows = None if logits is None else np.greater(logits.reshape(len(reference)), 0)
        measured[name].add(case, actual[name], reference, rows, ties.get(chosen_by.get(name, ""), {}))


def _feed_again(
    measured: Mapping[str, OutputStatistics],
    picked: tuple[int, ...],
    case: str,
    network: Network,
    feed: Arrays,
    outputs: Arrays,
    expected: Arrays,
) -> None:
    """Feed rows of a case once more, together, and compare them with what they gave before."""
    import numpy as np

    upto = max(picked) + 1
    logging.getLogger(__name__).info("case %s, its rows %s", case, list(picked))
    found = network.run(network.picked(feed, picked), case)
    for name in expected.keys() & network.row_axes.keys():
        axis = network.row_axes[name]
        again, before, reference = (np.moveaxis(arrays[name], axis, 0) for arrays in (found, outputs, expected))
        measured[name].batch_invariance.take(case, picked, again, before[:upto], reference[:upto])


STAGE = Stage(
    name="verify",
    summary="Measure parity on the recorded inputs",
    tools=("onnxruntime", "numpy", "onnx", "onnx-ir"),
    run=run,
    memory=Memory(base=300_000_000, weights=3.9, activations=2.6),
    imports=ONNX,
)
