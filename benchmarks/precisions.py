"""What each precision recipe costs, and how far off it is: one line per component of a manifest, as Markdown tables.

    python benchmarks/precisions.py [MANIFEST]

Takes what `doit manifest=MANIFEST build verify` has built and measured; the default is sam3_mini_precisions. Engines
that are not run here may be missing. The worst value of all outputs stands in each column: what the judge sees. MB are
10**6 bytes. The second table has what OpenVINO really computes beside what ONNX Runtime's CPU shows of the same file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sam3_build.commands.output import outlive_readers
from sam3_build.errors import BuildError
from sam3_build.execution.session import Session, open_session
from sam3_build.spec import BASELINE, TYPES, Json, Kind

ROOT = Path(__file__).parents[1]
REAL = "openvino"
WORST = ("cosine", "max abs/range", "std ratio")
COLUMNS = (
    *("precision", "component", "weights MB", "engine MB", "casts or Q/DQ", "low GEMMs", "kept in FP32, and why"),
    *WORST,
)
REAL_COLUMNS = (
    *("precision", "component"),
    *(f"{side} {metric}" for metric in WORST for side in ("ONNX Runtime's", "OpenVINO's")),
    *("OpenVINO's GEMMs",),
)


def main(manifest: str) -> int:
    """Print the table; 1, and what is missing, when something was not built."""
    session = open_session(ROOT, manifest, os.environ)
    try:
        lines = [*_table(COLUMNS, _lines(session)), "", *_table(REAL_COLUMNS, _real(session))]
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    yield from (f"| {' | '.join(cells)} |" for cells in lines)


def _lines(session: Session) -> Iterator[Sequence[str]]:
    for action in session.plan.actions:
        if action.name.startswith("precision:"):
            component, precision = (str(action.params[key]) for key in ("component", "precision"))
            if precision != BASELINE:
                yield _cells(session, component, precision)


def _real(session: Session) -> Iterator[Sequence[str]]:
    """Yield, of each component in each precision that OpenVINO ran, both worst values of each metric."""
    for comparison in session.plan.comparisons:
        if comparison.target == REAL and comparison.action and comparison.kind == Kind.PARITY:
            stem = f"{comparison.component}.{comparison.precision}"
            shown, real = (_measured(session, f"verify:{name}") for name in (stem, f"{stem}.{REAL}"))
            pairs = [value for metric in zip(_worst(shown), _worst(real), strict=True) for value in metric]
            yield comparison.precision, comparison.component, *pairs, _low(real)


def _measured(session: Session, action: str) -> Mapping[str, Mapping[str, Json]]:
    found: Mapping[str, Mapping[str, Json]] = json.loads((_built(session, action)[1] / "statistics.json").read_bytes())[
        "outputs"
    ]
    return found


def _low(outputs: Mapping[str, Mapping[str, Json]]) -> str:
    counts = outputs[TYPES]["counts"]
    assert isinstance(counts, Mapping)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _worst(outputs: Mapping[str, Mapping[str, Json]]) -> tuple[str, str, str]:
    """Return the worst cosine, max abs/range and ratio of standard deviations of all outputs."""
    metrics = [output["metrics"] for output in outputs.values()]
    floats = [m for m in metrics if isinstance(m, Mapping) and m.get("cosine") is not None]
    cosine, error, ratio = (
        [float(str(m[name])) for m in floats] for name in ("cosine", "max_abs_over_range", "std_ratio")
    )
    return f"{min(cosine):.6f}", f"{max(error):.2g}", f"{max(ratio, key=lambda value: abs(value - 1)):.5f}"


def _cells(session: Session, component: str, precision: str) -> Sequence[str]:
    stem = f"{component}.{precision}"
    facts, _ = _built(session, f"precision:{stem}")
    builds = [a for a in session.plan.actions if a.name.startswith(f"build:{stem}.") and not a.blocked]
    engines = [a.name for a in builds if a.params["backend"] != REAL]
    pairs = [facts.get(name, 0) for name in ("casts", "quantize_linear", "dequantize_linear")]
    return (
        precision,
        component,
        f"{_megabytes(facts['weight_bytes'])} of {_megabytes(facts['weight_bytes_before'])}",
        ", ".join(_engine(session, name) for name in engines) or "none",
        str(sum(number for number in pairs if isinstance(number, int))),
        f"{facts['low_gemms']} of {facts['gemms']}",
        _kept(facts),
        *_worst(_measured(session, f"verify:{stem}")),
    )


def _engine(session: Session, action: str) -> str:
    record = session.resolver.resolve(action).record
    return _megabytes(record.facts["bytes"]) if record else "not built"


def _kept(facts: Mapping[str, Json]) -> str:
    counted: list[str] = []
    for name, by in (("kept", "{}"), ("kept_by_schema", "{} (schema)")):
        counts = facts.get(name, {})
        assert isinstance(counts, Mapping)
        counted += [f"{count} {by.format(why)}" for why, count in counts.items()]
    return ", ".join(counted) or "none"


def _megabytes(size: Json) -> str:
    assert isinstance(size, int)
    return f"{size / 1e6:.2f}"


def _built(session: Session, action: str) -> tuple[Mapping[str, Json], Path]:
    """Return the facts and the folder of a fresh action."""
    record = session.resolver.resolve(action).record
    if record is None:
        raise BuildError(f"{action} is not built: run `doit manifest={session.plan.manifest} {action}`")
    return record.facts, session.store.object_path(record.object)


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main(*sys.argv[1:] or ["sam3_mini_precisions"]))
