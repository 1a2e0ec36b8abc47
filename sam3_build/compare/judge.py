"""Takes measured statistics and gates, returns one row per gate with its verdict. Pure; measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sam3_build import registry
from sam3_build.compare.metrics import GEMMS, SOUND, TENSORS, of_tensors
from sam3_build.plugins import Metric, ResultKind, Threshold
from sam3_build.spec import BASELINE, Comparison, Gate, Json, Kind

# What a comparison of a reduced precision on ONNX Runtime's CPU shows, and what it does not.
RANGE_PARITY = "range parity"
ENGINE_PARITY = "engine parity"
RANGE_PARITY_NOTE = (
    "range parity: ONNX Runtime's CPU computes low types in FP32, so a file's types are emulated by rounding what "
    "every node writes: this shows overflow, rounding and wrong types, not what fused GPU kernels do"
)

NOT_EMULATED = "ONNX Runtime's CPU has no BF16 kernels: the file itself is not run, its emulation is"

# No tolerance of a manifest loosens these two: NaN and Inf fail, and so does an output of another shape or dtype.
ALWAYS = tuple(metric.gate(0) for metric in SOUND.values())


class Verdict(StrEnum):
    """The verdict on one gate, as `report.json` has it. Only PASS and FAIL count as passed or failed.

    NOT_JUDGED: measured, but a comparison that it depends on failed (see dependencies.py)
    NOT_RUN:    this machine cannot measure it
    INFO:       reported, whatever the value
    """

    PASS = "pass"  # noqa: S105  (no password)
    FAIL = "fail"
    NOT_JUDGED = "not_judged"
    NOT_RUN = "not_run"
    INFO = "info"

    @property
    def words(self) -> str:
        """The verdict as people read it: `not judged`."""
        return self.replace("_", " ")


# Several verdicts are as good as their worst one, the first of these. Information takes nothing away.
WORST_FIRST = (Verdict.FAIL, Verdict.NOT_JUDGED, Verdict.NOT_RUN, Verdict.PASS, Verdict.INFO)


@dataclass(frozen=True)
class Row:
    """One judged metric of one output. `value` is None when it was not measured; `reason` is None when it passed.

    threshold, at_least: the gate's
    """

    component: str
    comparison: str
    output: str
    metric: str
    value: float | None
    threshold: Threshold | None
    verdict: Verdict
    reason: str | None
    at_least: bool = False


def judge(comparison: Comparison, statistics: Mapping[str, Json] | None) -> tuple[Row, ...]:
    """Return the rows of one comparison, `statistics` being what its action wrote (None: there is nothing to read).

    A reference gap that was not measured fails nothing.
    A comparison that this machine cannot run yields `not_run` rows; so does a metric that the measuring action says it
    had nothing to measure on (`not_run` of an output: metric -> why). Metrics that a family does not have (`absent`)
    have no row. Anything else expected but not measured fails.
    Of each case that fits no shape profile of an engine there is one row, for information, and of each in which another
    candidate is taken that nearly ties with the expected one.
    """
    if comparison.not_run is not None:
        return tuple(
            _row(comparison, output, "parity", Verdict.NOT_RUN, comparison.not_run) for output in comparison.outputs
        )
    if statistics is None:
        reason = f"no statistics: run `doit {comparison.action}`" if comparison.action else "no action measures this"
        verdict = Verdict.INFO if comparison.kind == Kind.GAP else Verdict.FAIL
        return tuple(_row(comparison, output, "parity", verdict, reason) for output in comparison.outputs)
    measured = statistics["outputs"]
    assert isinstance(measured, Mapping)
    rows: list[Row] = []
    for output in dict.fromkeys((*comparison.outputs, *measured)):
        found = measured.get(output)
        gates = comparison.gates.get(output, ())
        if found is None and gates and all(gate.metric in comparison.informs for gate in gates):
            rows += [_judged(comparison, output, gate, {"metrics": {}}) for gate in gates]
        elif found is None:
            rows.append(_row(comparison, output, "parity", Verdict.FAIL, "the comparison did not measure this output"))
        elif not gates:
            rows.append(_row(comparison, output, "parity", Verdict.FAIL, "no gate judges this output"))
        else:
            assert isinstance(found, Mapping)
            absent = found.get("absent", ())
            assert isinstance(absent, Sequence)
            rows += [_judged(comparison, output, gate, found) for gate in gates if gate.metric not in absent]
            ties = found.get("ties", {})
            assert isinstance(ties, Mapping)
            rows += [_row(comparison, place, "choice", Verdict.INFO, str(why)) for place, why in ties.items()]
    skipped = statistics.get("skipped", {})
    assert isinstance(skipped, Mapping)
    return (
        *rows,
        *(_row(comparison, case, "shapes", Verdict.INFO, f"not fed: {why}") for case, why in skipped.items()),
    )


def default_gates(precision: str, dtype: str) -> tuple[Gate, ...]:
    """Return the gates of an output of numpy `dtype`: those that the precision of its graph declares.

    Outputs that are not floating must be equal, and their rows too, within the declared number.
    """
    declared = registry.precision(precision).gates
    if not dtype.startswith(("float", "bfloat")):
        return (TENSORS["mismatches"].gate(0), TENSORS["rows"].gate(declared["rows"]), *ALWAYS)
    return (*(of_tensors(metric).gate(threshold) for metric, threshold in declared.items()), *ALWAYS)


def type_gates(precision: str) -> tuple[Gate, ...]:
    """Return the gates of a component's `types`: no GEMM in a wrong one; of a reduced precision, most weights low."""
    return _usual(GEMMS.values(), precision)


def gates_for(precision: str, dtype: str, tolerances: Mapping[str, Threshold]) -> tuple[Gate, ...]:
    """Return the default gates with `tolerances` put over or added; those of ALWAYS stand above both.

    The manifest has held every tolerance against its output and metric.
    """
    return _over(default_gates(precision, dtype), (of_tensors(m).gate(t) for m, t in tolerances.items()))


def result_gates(kind: ResultKind, precision: str, tolerances: Mapping[str, Threshold]) -> tuple[Gate, ...]:
    """Return the gates of a pipeline's result, `tolerances` put over the default ones; those of ALWAYS above both."""
    changed = (metric.gate(tolerances[metric.name]) for metric in kind.metrics if metric.name in tolerances)
    return _over(_usual(kind.metrics, precision), changed)


def _usual(metrics: Iterable[Metric], precision: str) -> tuple[Gate, ...]:
    thresholds = ((m, m.exact if precision == BASELINE else m.reduced) for m in metrics)
    return tuple(metric.gate(threshold) for metric, threshold in thresholds if threshold is not None)


def _over(usual: Iterable[Gate], changed: Iterable[Gate]) -> tuple[Gate, ...]:
    return tuple({gate.metric: gate for gate in (*usual, *changed, *ALWAYS)}.values())


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return several verdicts as one."""
    return min(verdicts, key=WORST_FIRST.index)


def outcome(rows: Iterable[Row]) -> Verdict:
    """Return the verdict of rows together: their worst.

    To be finite and of the right shape is not yet to be right: such rows count where they do not pass, or are alone.
    """
    quiet = {gate.metric for gate in ALWAYS}
    return worst(
        {row.verdict for row in rows if row.verdict != Verdict.PASS or row.metric not in quiet} or {Verdict.PASS}
    )


def condition(gate: Gate) -> str:
    """Return what the gate asks for, as people write it: `<= 0.001`, `>= 0.999`, `in 0.98..1.02`."""
    if isinstance(gate.threshold, tuple):
        return f"in {gate.threshold[0]:g}..{gate.threshold[1]:g}"
    return f"{'>=' if gate.at_least else '<='} {gate.threshold:g}"


def asked(row: Row) -> str:
    """Return what a row's gate asks for; empty when it has none."""
    return "" if row.threshold is None else condition(Gate(row.metric, row.threshold, row.at_least))


def holds(gate: Gate, value: float) -> bool:
    """Tell whether `value` satisfies the gate. NaN never does."""
    if isinstance(gate.threshold, tuple):
        return gate.threshold[0] <= value <= gate.threshold[1]
    return value >= gate.threshold if gate.at_least else value <= gate.threshold


def _judged(comparison: Comparison, output: str, gate: Gate, found: Mapping[str, Json]) -> Row:
    metrics = found["metrics"]
    assert isinstance(metrics, Mapping)
    value, unmeasured, info_only = metrics.get(gate.metric), found.get("not_run", {}), found.get("informs", {})
    assert isinstance(unmeasured, Mapping) and isinstance(info_only, Mapping)
    if gate.metric in comparison.informs:
        finite = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
        return _row(comparison, output, gate.metric, Verdict.INFO, comparison.informs[gate.metric], gate, finite)
    if gate.metric in info_only and value is None:
        return _row(comparison, output, gate.metric, Verdict.INFO, str(info_only[gate.metric]), gate)
    if gate.metric in unmeasured and value is None:
        return _row(comparison, output, gate.metric, Verdict.NOT_RUN, str(unmeasured[gate.metric]), gate)
    if not isinstance(value, int | float) or math.isnan(value):
        reason = f"{gate.metric} was not measured: {_why_unmeasured(found, gate.metric)}"
        return _row(comparison, output, gate.metric, Verdict.FAIL, reason, gate)
    if holds(gate, value):
        return _row(comparison, output, gate.metric, Verdict.PASS, None, gate, float(value))
    shown = f"{value:.4g}"
    if holds(gate, float(shown)):  # rounded to the right side
        shown = repr(value)
    reason = f"{gate.metric} is {shown}, not {condition(gate)}{_where(found, gate.metric)}"
    return _row(comparison, output, gate.metric, Verdict.FAIL, reason, gate, float(value))


def _why_unmeasured(found: Mapping[str, Json], metric: str) -> str:
    problems, named = found.get("problems"), found.get("unmeasured")
    if isinstance(named, Mapping) and named.get(metric):
        return str(named[metric])
    if isinstance(problems, Sequence) and problems:
        return str(problems[0])
    if not found.get("elements"):
        return "no element was compared"
    if metric == "rows":
        return "no rows were fed again"
    exact = metric == "mismatches"
    return f"a {found.get('dtype')} output has no such metric" if exact or found.get("exact") else "no finite element"


def _where(found: Mapping[str, Json], metric: str) -> str:
    problems, worst, named = found.get("problems"), found.get("worst"), found.get("where")
    if isinstance(named, Mapping) and metric in named:
        return f": {named[metric]}"
    if metric == "incomparable" and isinstance(problems, Sequence) and problems:
        return f": {problems[0]}"
    if metric in ("max_abs_over_std", "max_abs_over_range", "mismatches") and isinstance(worst, Mapping):
        actual, expected = (_shown(worst[side]) for side in ("actual", "reference"))
        return f": case {worst['case']!r} at {worst['index']} has {actual} where {expected} is expected"
    return ""


def _shown(value: Json) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _row(
    comparison: Comparison,
    output: str,
    metric: str,
    verdict: Verdict,
    reason: str | None,
    gate: Gate | None = None,
    value: float | None = None,
) -> Row:
    threshold, at_least = (gate.threshold, gate.at_least) if gate else (None, False)
    return Row(comparison.component, comparison.label, output, metric, value, threshold, verdict, reason, at_least)
