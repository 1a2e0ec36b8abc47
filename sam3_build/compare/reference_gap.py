"""The reference gap: takes its statistics, returns rows for `report.json` and lines to print. Judges nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sam3_build.compare.judge import Row, Verdict
from sam3_build.spec import Contrast, Json

METRICS = ("cosine", "max_abs_over_std", "mismatches")


def title(contrast: Contrast) -> str:
    """Return what was compared, in words."""
    return f"text-only prompts fed as {contrast.other} does instead of as {contrast.reference} does"


def rows(contrast: Contrast, statistics: Mapping[str, Json]) -> Iterator[Row]:
    """Yield a row per output and metric, with the verdict `info`."""
    for output, found in _outputs(statistics):
        metrics = found["metrics"]
        assert isinstance(metrics, Mapping)
        values = {"max_abs": found.get("max_abs"), **{name: metrics[name] for name in METRICS if name in metrics}}
        for metric, value in values.items():
            if isinstance(value, int | float):
                yield Row(contrast.component, title(contrast), output, metric, float(value), None, Verdict.INFO, None)


def lines(contrast: Contrast, statistics: Mapping[str, Json] | None) -> Iterator[str]:
    """Yield what the terminal shows below the tables."""
    yield f"{title(contrast)} (information, no gate)"
    if statistics is None:
        yield f"  not measured: run `doit {contrast.action}`"
        return
    width = max(len(output) for output, _ in _outputs(statistics))
    for output, found in _outputs(statistics):
        yield f"  {contrast.component}  {output:<{width}}  {_message(found)}"


def _outputs(statistics: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    outputs = statistics["outputs"]
    assert isinstance(outputs, Mapping)
    for output, found in outputs.items():
        assert isinstance(found, Mapping)
        yield output, found


def _message(found: Mapping[str, Json]) -> str:
    metrics, worst = found["metrics"], found.get("worst")
    assert isinstance(metrics, Mapping)
    if found.get("exact"):
        return f"{metrics['mismatches']} of {found['elements']} values differ"
    if not isinstance(worst, Mapping):
        return "could not be measured"
    most, before, after = (float(str(v)) for v in (found["max_abs"], worst["reference"], worst["actual"]))
    return f"cosine {metrics['cosine']:.5f}, changes by up to {most:.3g} ({before:.4g} becomes {after:.4g})"
