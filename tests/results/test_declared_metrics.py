"""Metrics are declared once: what people read of them, and what a manifest may say, is what is declared."""

from __future__ import annotations

import re

import pytest
from build_space import ROOT

from sam3_build import registry
from sam3_build.compare.judge import asked, condition, judge, result_gates
from sam3_build.compare.metrics import OF_COMPONENTS, SOUND, metric_of, metrics_of
from sam3_build.manifest.json_schema import json_schema
from sam3_build.plugins import Metric
from sam3_build.report.html.gates import gate_uses
from sam3_build.report.tables import table
from sam3_build.spec import PIPELINE, Comparison, Kind

KINDS = [registry.result(name) for name in registry.names("results")]


def documented() -> list[dict[str, tuple[str, str]]]:
    """Return the tables of docs/verification.md: gate -> asked of FP32 and of reduced precision, as written."""
    tables = re.findall(
        r"^\| gate \| FP32 \| reduced .*\n\|[-|]+\n((?:\|.*\n)+)", (ROOT / "docs" / "verification.md").read_text(), re.M
    )
    lines = [[re.split(r" *\| *", line.strip("| ")) for line in table.splitlines()] for table in tables]
    return [
        {name: (cells[1], cells[2]) for cells in rows for name in re.findall(r"`(\w+)`", cells[0])} for rows in lines
    ]


def shown(metric: Metric, threshold: float | tuple[float, float] | None) -> str:
    assert threshold is not None
    said = condition(metric.gate(threshold))
    return said.removeprefix("<= ") if threshold == 0 else said


def test_the_page_lists_the_gates_of_every_kind_of_result_as_they_are_declared() -> None:
    declared = [{m.name: (shown(m, m.exact), shown(m, m.reduced)) for m in kind.metrics} for kind in KINDS]
    assert sorted(documented(), key=str) == sorted(declared, key=str)


def comparison(kind: str | None, metric: str, threshold: float) -> Comparison:
    """Return a comparison of one gate: of a pipeline of this kind, or of a component."""
    declared = {m.name: m for m in registry.result(kind).metrics} if kind else OF_COMPONENTS
    gates = {"output": (declared[metric].gate(threshold),)}
    part, what = (PIPELINE, Kind.RESULT) if kind else ("decoder", Kind.PARITY)
    return Comparison(part, f"{kind} a vs b", "fp16", None, "x", None, ("output",), gates, what, result=kind)


def test_a_name_that_two_kinds_share_means_in_each_what_that_kind_says() -> None:
    """Tables and the page look a metric up by its comparison."""
    some = [comparison("instances", "mask_iou", 0.9), comparison("tracks", "mask_iou", 0.9)]
    found = [(c, judge(c, {"outputs": {"output": {"metrics": {"mask_iou": 0.95}}}})) for c in some]
    words = [use.asks for use in gate_uses(found)]
    assert words == [metric_of(c, "mask_iou").asks for c in some] and len({*words}) == 2
    assert [use.judged for use in gate_uses(found)] == [1, 1]


def test_a_gate_knows_its_direction_in_judging_in_tables_and_in_the_report() -> None:
    for one, value in ((comparison("tracks", "mean_iou", 0.9), 0.95), (comparison(None, "rows", 0.02), 0.01)):
        (row,) = judge(one, {"outputs": {"output": {"metrics": {one.gates["output"][0].metric: value}}}})
        assert row.verdict == "pass" and row.at_least == (value > 0.5)
        assert table("a", [(one, (row,))]).columns[0][1] == asked(row) == condition(one.gates["output"][0])


def test_every_comparison_knows_what_is_sound_and_none_of_the_others_metrics() -> None:
    for kind in KINDS:
        own = metrics_of(comparison(kind.name, kind.metrics[0].name, 1))
        assert own.keys() == {*(metric.name for metric in kind.metrics), *SOUND}
    assert "visible" not in metrics_of(comparison(None, "rows", 0.02))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_default_gates_lie_within_the_bounds_of_tolerances_and_have_words(kind) -> None:
    for precision in ("fp32", "fp16"):
        assert {gate.metric for gate in result_gates(kind, precision, {})} == {*(m.name for m in kind.metrics), *SOUND}
    for metric in kind.metrics:
        low, high = metric.bounds
        for threshold in (metric.exact, metric.reduced):
            assert isinstance(threshold, float) and low <= threshold <= (high or threshold)
        assert metric.title and metric.asks


def test_the_schema_lists_the_metrics_of_the_results_that_families_have() -> None:
    layouts = [layout for name in registry.names("families") for layout in registry.family(name).layouts.values()]
    results = {pipeline.result for layout in layouts for pipeline in layout.pipelines}
    whole = json_schema()["definitions"]["gates"]["properties"][PIPELINE]["properties"]
    assert {name: {*outputs["properties"]} for name, outputs in whole.items()} == {
        kind.output: {metric.name for metric in kind.metrics} for kind in KINDS if kind.name in results
    }
