from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sam3_build.compare import dependencies
from sam3_build.compare.dependencies import propagate_failures
from sam3_build.compare.judge import Row, Verdict, judge, worst
from sam3_build.report.table import Counts, judged, report
from sam3_build.spec import PIPELINE, Comparison, Gate, Kind, Plan

GATE = Gate("max_abs_over_std", 1e-3)
COMPONENTS = ("vision_encoder", "decoder")
TARGETS = ("ampere", "ada")


def comparisons(fp32_engines: bool = True) -> tuple[Comparison, ...]:
    """Two components and the pipeline, on two targets whose engines run here."""
    found, parts = [], [(component, "") for component in COMPONENTS]
    for component in (*COMPONENTS, PIPELINE):
        for precision in ("fp32", "fp16"):
            for target in (None, *(TARGETS if fp32_engines or precision != "fp32" else ())):
                depends_on = (
                    dependencies.of_pipeline(PIPELINE, parts, precision, target, fp32_engines=fp32_engines)
                    if component == PIPELINE
                    else dependencies.of_component(component, precision, target, fp32_engines=fp32_engines)
                )
                comparison = Comparison(component, "", precision, target, "", None, ("masks",), {"masks": (GATE,)})
                comparison = replace(
                    comparison, depends_on=depends_on, kind=Kind.RESULT if component == PIPELINE else comparison.kind
                )
                found.append(replace(comparison, label=f"about {comparison.name}", action=comparison.name))
    return tuple(found)


def verdicts(fails: set[str], not_run: set[str] = frozenset(), fp32_engines: bool = True) -> dict[str, str]:  # type: ignore[assignment]
    """Return the verdict of every comparison when those that `fails` names fail their gate."""
    rows = []
    for c in comparisons(fp32_engines):
        value = 1.0 if c.name in fails else 0.0
        told = replace(c, not_run="no GPU") if c.name in not_run else c
        rows.append((c, judge(told, {"outputs": {"masks": {"metrics": {"max_abs_over_std": value}}}})))
    return {c.name: worst(row.verdict for row in found) for c, found in propagate_failures(rows)}


def test_every_dependency_is_a_comparison_of_the_plan() -> None:
    for fp32_engines in (True, False):
        names = {c.name for c in comparisons(fp32_engines)}
        assert {name for c in comparisons(fp32_engines) for name in c.depends_on} <= names
        assert len(names) == len(comparisons(fp32_engines))


def test_all_pass_when_nothing_fails() -> None:
    assert set(verdicts(set()).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("fails", "silenced"),
    [
        ("decoder.fp16.ada", {"pipeline.fp16.ada"}),
        # An engine's failure is none of the graph's or of another target's.
        ("decoder.fp32.ada", {"decoder.fp16.ada", "pipeline.fp32.ada", "pipeline.fp16.ada"}),
        (
            "decoder.fp16",
            {"decoder.fp16.ada", "decoder.fp16.ampere", *(f"pipeline.fp16{t}" for t in ("", ".ada", ".ampere"))},
        ),
        (
            "pipeline.fp32",
            {"pipeline.fp16", *(f"pipeline.{q}.{t}" for q in ("fp32", "fp16") for t in TARGETS)},
        ),
        (
            "decoder.fp32",
            {
                *(f"decoder.{p}" for p in ("fp16", *(f"{q}.{t}" for q in ("fp32", "fp16") for t in TARGETS))),
                *(f"pipeline.{p}{t}" for p in ("fp32", "fp16") for t in ("", ".ada", ".ampere")),
            },
        ),
    ],
)
def test_a_failure_silences_what_rests_upon_it_and_nothing_else(fails: str, silenced: set[str]) -> None:
    found = verdicts({fails})
    assert {name for name, verdict in found.items() if verdict == Verdict.NOT_JUDGED} == silenced
    assert {name for name, verdict in found.items() if verdict == Verdict.FAIL} == {fails}


def test_without_fp32_engines_the_graphs_alone_are_trusted() -> None:
    found = verdicts({"decoder.fp32"}, fp32_engines=False)
    assert found["decoder.fp16.ada"] == found["pipeline.fp16.ada"] == Verdict.NOT_JUDGED
    assert found["vision_encoder.fp16.ada"] == Verdict.PASS


def test_what_fails_itself_is_not_judged_either_once_its_ground_failed() -> None:
    found = verdicts({"decoder.fp32", "decoder.fp16"})
    assert (found["decoder.fp32"], found["decoder.fp16"]) == (Verdict.FAIL, Verdict.NOT_JUDGED)


def test_what_was_not_run_stops_nothing_and_stays_not_run() -> None:
    assert verdicts(set(), not_run={"decoder.fp32.ada"})["decoder.fp16.ada"] == Verdict.PASS
    assert verdicts({"decoder.fp32"}, not_run={"decoder.fp16.ada"})["decoder.fp16.ada"] == Verdict.NOT_RUN


def test_the_root_of_a_chain_is_named_and_the_value_and_its_own_reason_stay() -> None:
    rows = []
    for c in comparisons():
        value = 1.0 if c.name in ("decoder.fp32", "decoder.fp16", "decoder.fp16.ada") else 0.0
        rows.append((c, judge(c, {"outputs": {"masks": {"metrics": {"max_abs_over_std": value}}}})))
    found = {c.name: row for c, (row,) in propagate_failures(rows)}
    engine = found["decoder.fp16.ada"]
    assert (engine.value, engine.threshold) == (1.0, 1e-3)
    assert engine.reason == (
        'not judged, since decoder failed in "about decoder.fp32"; its own gate failed too: '
        "max_abs_over_std is 1, not <= 0.001"
    )
    assert found["pipeline.fp16.ada"].reason == 'not judged, since decoder failed in "about decoder.fp32"'


def test_several_roots_are_all_named() -> None:
    rows = []
    for c in comparisons():
        value = 1.0 if c.name in ("decoder.fp32", "vision_encoder.fp16") else 0.0
        rows.append((c, judge(c, {"outputs": {"masks": {"metrics": {"max_abs_over_std": value}}}})))
    found = {c.name: row for c, (row,) in propagate_failures(rows)}
    assert str(found["pipeline.fp16"].reason).endswith('"about vision_encoder.fp16" (and decoder.fp32)')


def test_verdicts_are_worst_in_this_order() -> None:
    assert worst([Verdict.INFO, Verdict.PASS]) == Verdict.PASS, (
        "what is told takes nothing away from what is judged beside it"
    )
    assert worst([Verdict.PASS, Verdict.NOT_RUN]) == Verdict.NOT_RUN
    assert worst([Verdict.NOT_RUN, Verdict.NOT_JUDGED]) == Verdict.NOT_JUDGED
    assert worst([Verdict.NOT_JUDGED, Verdict.FAIL, Verdict.PASS]) == Verdict.FAIL


def test_the_report_counts_and_shows_what_is_not_judged(tmp_path: Path) -> None:
    plan = Plan("toy", (), comparisons())
    for c in plan.comparisons:
        value = 0.25 if c.name == "decoder.fp32" else 0.0
        found = {"outputs": {"masks": {"metrics": {"max_abs_over_std": value}}}}
        (tmp_path / c.name).mkdir()
        (tmp_path / c.name / "statistics.json").write_text(json.dumps(found))

    def read(action: str) -> Path:
        return tmp_path / action

    out = io.StringIO()
    assert report(plan, judged(plan, read), read, tmp_path / "report.json", out) == Counts(6, 1, 0, not_judged=11)
    text = out.getvalue()
    assert text.endswith("\n6 passed, 1 failed, 11 not judged, 0 not run\n")
    assert text.count('- not judged, since decoder failed in "about decoder.fp32"') == 11
    assert "  not judged  decoder    masks   0\n" in text
    rows = json.loads((tmp_path / "report.json").read_bytes())
    assert [row["verdict"] for row in rows].count(Verdict.NOT_JUDGED) == 11
    assert all(row["value"] is not None for row in rows)


def told(informs: dict[str, str], metrics: dict[str, float | None], not_run: dict[str, str]) -> tuple[Row, ...]:
    gates = {"masks": (GATE, Gate("mask_iou", 0.98, at_least=True))}
    comparison = Comparison(PIPELINE, "", "fp16", None, "", None, ("masks",), gates, kind=Kind.RESULT, informs=informs)
    return judge(comparison, {"outputs": {"masks": {"metrics": metrics, "not_run": not_run}}})


def test_a_metric_that_only_informs_neither_passes_nor_fails() -> None:
    rows = told({"mask_iou": "random weights"}, {"max_abs_over_std": 0.5, "mask_iou": 0.1}, {})
    assert [(r.metric, r.verdict, r.value) for r in rows] == [
        ("max_abs_over_std", Verdict.FAIL, 0.5),
        ("mask_iou", Verdict.INFO, 0.1),
    ]
    assert rows[1].reason == "random weights"
    assert told({"mask_iou": "random weights"}, {"mask_iou": None}, {})[1].verdict == Verdict.INFO


def test_a_metric_that_had_nothing_to_measure_on_is_not_run_and_a_value_is_judged_whatever_is_claimed() -> None:
    why = {"mask_iou": "no pair in any case"}
    assert told({}, {"mask_iou": None}, why)[1].verdict == Verdict.NOT_RUN
    assert told({}, {"mask_iou": 0.1}, why)[1].verdict == Verdict.FAIL
    assert told({}, {"mask_iou": None}, {})[1].verdict == Verdict.FAIL


def test_what_a_later_pipeline_measures_depends_on_what_it_measures_itself_and_on_nothing_of_the_first() -> None:
    own = dependencies.of_component("decoder", "fp16", "ada", fp32_engines=True, suffix="@video")
    assert own == ("decoder.fp32@video", "decoder.fp32.ada@video", "decoder.fp16@video")
    parts = [("encoder", "@video"), ("state", "")]
    assert dependencies.of_pipeline("video", parts, "fp16", None, fp32_engines=False) == (
        "encoder.fp16@video",
        "state.fp16",
        "video.fp32",
    )
