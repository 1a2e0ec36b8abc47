"""Takes what `compare` drew, returns a few pictures as data URIs with captions, those that differ first."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import WORST_FIRST, Verdict, holds, outcome
from sam3_build.drawing import captions
from sam3_build.drawing.sheet import SHEET
from sam3_build.report.html.sources import Sources, side
from sam3_build.spec import INSTANCES, PIPELINE, Comparison, Json

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
    """Return the overlays of the pipeline's comparisons."""
    pipelines = [(c, outcome(rows)) for c, rows in found if c.component == PIPELINE]
    found_files = [(c, verdict, file, _row(known, c, file)) for c, verdict in pipelines for file in _files(known, c)]
    described = sorted(
        found_files, key=lambda d: (not _differs(d[0], d[3]), WORST_FIRST.index(d[1]), not _is_own_case(d[3]))
    )
    shown = tuple(_picture(known, *one) for one in described[:MOST])
    none = ""
    if not pipelines:
        none = "The whole pipeline is not compared for this manifest."
    elif not shown:
        none = "No overlay: no pipeline was run here."
        if any(verdict != Verdict.NOT_RUN for _, verdict in pipelines):
            none = "No overlay: what was run drew none."
    return Pictures(shown, len(described) - len(shown), none)


def _files(known: Sources, comparison: Comparison) -> list[str]:
    record = known.records.get(comparison.action or "")
    return sorted(
        name
        for name in (record.files if record else ())
        if name.startswith("overlay.") and name.endswith(".png") and name != SHEET
    )


def _picture(known: Sources, comparison: Comparison, verdict: Verdict, file: str, row: Mapping[str, Json]) -> Picture:
    record = known.records[comparison.action or ""]
    data = base64.b64encode((known.folder(record) / file).read_bytes()).decode()
    case, _, number = file.removeprefix("overlay.").removesuffix(".png").rpartition(".")
    title = f"{case}, row {number}"
    sample = row.get("sample")
    if isinstance(sample, int) and sample < len(known.manifest.samples):
        one = known.manifest.samples[sample]
        asked = captions.prompt(one.prompts)
        title = f"sample {sample}: {asked}" + ("" if case == f"sample{sample}" else f" ({title})")
    source = f"data:image/png;base64,{data}"
    said = "; ".join(part for part in (*captions.differences(row), captions.result(row)) if part)
    return Picture(source, title, said, side(comparison), verdict, _differs(comparison, row))


def _row(known: Sources, comparison: Comparison, file: str) -> Mapping[str, Json]:
    """Return what was measured of the picture that a file shows."""
    case, _, number = file.removeprefix("overlay.").removesuffix(".png").rpartition(".")
    rows = known.read_json(comparison.action, "task.json").get("pictures")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("case") == case and str(row.get("row")) == number:
            return row
    return {}


def _is_own_case(row: Mapping[str, Json]) -> bool:
    """Tell whether a picture is a sample's own case, and not a row of a batch, which repeats what others show."""
    return row.get("case") == f"sample{row.get('sample')}"


def _differs(comparison: Comparison, row: Mapping[str, Json]) -> bool:
    """Tell whether the gates of the comparison would not let this one picture pass, or did not see it."""
    presence = row.get("presence")
    agrees = presence["agrees"] if isinstance(presence, dict) else True
    pairs = row.get("pairs")
    gates = {gate.metric: gate for gate in comparison.gates[INSTANCES]}
    apart = any(
        isinstance(value, int | float) and metric in gates and not holds(gates[metric], value)
        for pair in (pairs if isinstance(pairs, list) else ())
        for metric, value in pair.items()
    )
    return bool(apart or row.get("problem") or row.get("lost") or row.get("added") or not agrees)
