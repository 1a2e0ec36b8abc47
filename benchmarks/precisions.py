"""What each precision recipe costs, and how far off it is: one line per component of a manifest, as a Markdown table.

    python benchmarks/precisions.py [MANIFEST]

Takes what `doit manifest=MANIFEST build verify` has built and measured; the default is sam3_mini_precisions. The worst
value of all outputs stands in each column: what the judge sees. MB are 10**6 bytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sam3_build.commands.output import outlive_readers
from sam3_build.errors import BuildError
from sam3_build.execution.session import Session, open_session
from sam3_build.spec import BASELINE, Json

ROOT = Path(__file__).parents[1]
COLUMNS = (
    *("precision", "component", "weights MB", "engine MB", "casts or Q/DQ", "low GEMMs", "kept in FP32, and why"),
    *("cosine", "max abs/range", "std ratio"),
)


def main(manifest: str) -> int:
    """Print the table; 1, and what is missing, when something was not built."""
    session = open_session(ROOT, manifest, os.environ)
    try:
        lines = list(_lines(session))
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *lines]) + "\n")
    return 0


def _lines(session: Session) -> Iterator[str]:
    for action in session.plan.actions:
        if action.name.startswith("precision:"):
            component, precision = (str(action.params[key]) for key in ("component", "precision"))
            if precision != BASELINE:
                yield "| " + " | ".join(_cells(session, component, precision)) + " |"


def _cells(session: Session, component: str, precision: str) -> Sequence[str]:
    stem = f"{component}.{precision}"
    facts, _ = _built(session, f"precision:{stem}")
    _, folder = _built(session, f"verify:{stem}")
    engines = [a.name for a in session.plan.actions if a.name.startswith(f"build:{stem}.") and not a.blocked]
    outputs = json.loads((folder / "statistics.json").read_bytes())["outputs"].values()
    metrics = [output["metrics"] for output in outputs if output["metrics"].get("cosine") is not None]
    ratio = max((m["std_ratio"] for m in metrics), key=lambda value: abs(value - 1))
    pairs = [facts.get(name, 0) for name in ("casts", "quantize_linear", "dequantize_linear")]
    return (
        precision,
        component,
        f"{_megabytes(facts['weight_bytes'])} of {_megabytes(facts['weight_bytes_before'])}",
        ", ".join(_megabytes(_built(session, name)[0]["bytes"]) for name in engines) or "none",
        str(sum(number for number in pairs if isinstance(number, int))),
        f"{facts['low_gemms']} of {facts['gemms']}",
        _kept(facts),
        f"{min(m['cosine'] for m in metrics):.6f}",
        f"{max(m['max_abs_over_range'] for m in metrics):.2g}",
        f"{ratio:.5f}",
    )


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
