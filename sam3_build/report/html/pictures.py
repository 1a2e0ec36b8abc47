"""Takes what `compare` drew, returns a few pictures as data URIs with captions, those that differ first."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from sam3_build.compare.dependencies import Judged
from sam3_build.compare.details import DETAILS, Overlay, overlays_of
from sam3_build.compare.judge import WORST_FIRST, Verdict, holds, outcome
from sam3_build.report.html.sources import Sources, side
from sam3_build.spec import Comparison, Kind

# Each is some 100 kB of the page.
MOST = 12


@dataclass(frozen=True)
class Picture:
    """An overlay of one picture in one comparison. differs: whether a user would see a difference."""

    source: str
    title: str
    said: str
    side: str
    verdict: Verdict
    differs: bool


@dataclass(frozen=True)
class Pictures:
    """The overlays that are shown, how many are left out, and why there are none."""

    shown: tuple[Picture, ...]
    left_out: int
    none: str


def pictures(known: Sources, found: Judged) -> Pictures:
    """Return the overlays of all pipelines' comparisons."""
    pipelines = [(c, outcome(rows)) for c, rows in found if c.kind == Kind.RESULT]
    overlays = [(c, verdict, overlay) for c, verdict in pipelines for overlay in _overlays(known, c)]
    overlays.sort(key=lambda o: (not _differs(o[0], o[2]), WORST_FIRST.index(o[1]), o[2].repeats))
    shown = tuple(_picture(known, *one) for one in overlays[:MOST])
    none = ""
    if not pipelines:
        none = "The whole pipeline is not compared for this manifest."
    elif not shown:
        none = "No overlay: no pipeline was run here."
        if any(verdict != Verdict.NOT_RUN for _, verdict in pipelines):
            none = "No overlay: what was run drew none."
    return Pictures(shown, len(overlays) - len(shown), none)


def _overlays(known: Sources, comparison: Comparison) -> tuple[Overlay, ...]:
    return overlays_of(known.read_json(comparison.action, DETAILS))


def _picture(known: Sources, comparison: Comparison, verdict: Verdict, overlay: Overlay) -> Picture:
    record = known.records[comparison.action or ""]
    data = base64.b64encode((known.folder(record) / overlay.file).read_bytes()).decode()
    said = "; ".join(part for part in (*overlay.differences, overlay.caption) if part)
    differs = _differs(comparison, overlay)
    return Picture(f"data:image/png;base64,{data}", overlay.title, said, side(comparison), verdict, differs)


def _differs(comparison: Comparison, overlay: Overlay) -> bool:
    """Tell whether a user would see a difference, or the comparison's gates would not let this one picture pass."""
    gates = {gate.metric: gate for some in comparison.gates.values() for gate in some}
    apart = any(name in gates and not holds(gates[name], value) for name, value in overlay.metrics.items())
    return bool(overlay.differences) or apart
