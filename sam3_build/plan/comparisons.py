"""What the judge compares: takes a resolved model, returns comparisons with their gates. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sam3_build.compare import dependencies
from sam3_build.compare.judge import ENGINE_PARITY, NOT_EMULATED, gates_for, result_gates, type_gates
from sam3_build.plan.resolved import (
    GRAPH,
    Recording,
    ResolvedGap,
    ResolvedModel,
    ResolvedPipeline,
    ResolvedPrecision,
    ResolvedTarget,
)
from sam3_build.plugins import Threshold
from sam3_build.spec import BASELINE, PIPELINE, TYPES, Comparison, Gate, Kind, TensorSpec

WITHOUT_ROWS = "not checked: its inputs and outputs have no batch in common"

RANDOM = (
    "the weights are random: what they find in a picture hangs on rounding, so this is reported and not judged; "
    "the gates of FP32's pipeline, and those of tensors, mean what they say"
)


# What a reference gap reports, of outputs that are compared by values and by equality.
GAP_METRICS = ("cosine", "max_abs_over_std", "mismatches")
ONLY_REPORTED = "reported, not judged: code bases differ in how they feed such prompts"


def comparisons(model: ResolvedModel) -> Iterator[Comparison]:
    """Yield those of each component in each precision, those of the pipelines, and reference gaps."""
    for precisions in model.built.values():
        for resolved in precisions.values():
            recordings = resolved.component.recordings
            for recording in recordings:
                yield from _of_component(model, resolved, recording)
            if not recordings:
                yield _without_samples(model, resolved)
    for pipeline in model.pipelines:
        if pipeline.result is None:
            continue
        one = next(iter(pipeline.built(model)))
        for resolved in model.built[one].values():
            for target in (None, *(target for target in resolved.targets.values() if target.is_run)):
                yield _of_pipeline(model, pipeline, resolved, target)
    for gap in model.gaps:
        yield _of_gap(gap)


def _of_component(model: ResolvedModel, resolved: ResolvedPrecision, recording: Recording) -> Iterator[Comparison]:
    """Yield what ONNX Runtime shows of this precision, then one for each engine that has to be run to be judged."""
    spec, precision = resolved.component.spec, resolved.recipe.name
    measure = "pytorch" if resolved.is_baseline else GRAPH
    inside = f", in {recording.pipeline}" if recording.suffix else ""
    graph = Comparison(
        component=spec.name,
        label=f"{measure} {BASELINE} vs {GRAPH} {precision}{resolved.parity(None)}{inside}",
        precision=precision,
        target=None,
        action=f"verify:{resolved.stem}{recording.suffix}",
        not_run=None,
        outputs=(*(tensor.name for tensor in spec.outputs), TYPES),
        gates=_gates(resolved),
        depends_on=dependencies.of_component(spec.name, precision, None, fp32_engines=False, suffix=recording.suffix),
        informs={} if resolved.component.row_dim else {"rows": WITHOUT_ROWS},
        pipeline=model.family.label(recording.pipeline),
        suffix=recording.suffix,
    )
    yield graph
    if resolved.recipe.onnx_type == "BFLOAT16":
        label = f"{GRAPH} {BASELINE} vs {GRAPH} {precision}, the file itself{inside}"
        yield replace(graph, label=label, action=None, not_run=NOT_EMULATED, kind=Kind.FILE)
    for target in resolved.targets.values():
        if target.is_run:
            yield _of_engine(resolved, target, graph, inside)


def _gates(resolved: ResolvedPrecision) -> dict[str, tuple[Gate, ...]]:
    """Return the gates of each output, and of the types. An output that is the same for all rows has none of these."""
    precision, tolerances, component = resolved.recipe.name, resolved.tolerances, resolved.component
    gates = {t.name: gates_for(precision, t.dtype, tolerances.get(t.name, {})) for t in component.spec.outputs}
    if component.row_dim:
        rowless = gates.keys() - component.row_axes.keys()
        gates |= {name: tuple(gate for gate in gates[name] if gate.metric != "rows") for name in rowless}
    return {**gates, TYPES: type_gates(precision)}


def _without_samples(model: ResolvedModel, resolved: ResolvedPrecision) -> Comparison:
    """Return what stands for a component that no sample of the manifest runs."""
    spec, precision, gates = resolved.component.spec, resolved.recipe.name, _gates(resolved)
    takers = [p.name for p in model.family.pipelines if spec.name in p.components]
    advice = f"add one that pipeline {takers[0]} takes" if takers else "no pipeline of the layout runs it"
    return Comparison(
        component=spec.name,
        label=f"{'pytorch' if resolved.is_baseline else GRAPH} {BASELINE} vs {GRAPH} {precision}",
        precision=precision,
        target=None,
        action=None,
        not_run=f"no sample of the manifest runs {spec.name}: {advice}",
        outputs=tuple(gates),
        gates=gates,
    )


def _of_engine(resolved: ResolvedPrecision, target: ResolvedTarget, graph: Comparison, inside: str) -> Comparison:
    alone = "" if target.builds_fp32 or resolved.is_baseline else "; no FP32 engine is built"
    informs, row_dim = dict(graph.informs), resolved.component.row_dim
    if row_dim and target.takes_one_row(row_dim):
        informs["rows"] = f"not applicable: {target.name}'s shape profiles allow one row at a time"
    if target.backend.layer_types is None:
        product = target.backend.product
        why = f"not checked: {product} do not report their layers' types; they follow the ONNX, whose types are"
        informs |= dict.fromkeys((gate.metric for gate in graph.gates[TYPES]), why)
    return replace(
        graph,
        label=f"{GRAPH} {BASELINE} vs {target.name} {graph.precision} ({ENGINE_PARITY}{alone}){inside}",
        target=target.name,
        action=None if target.cannot_run else f"verify:{resolved.stem}.{target.name}{graph.suffix}",
        not_run=target.cannot_run,
        depends_on=dependencies.of_component(
            graph.component,
            graph.precision,
            target.name,
            fp32_engines=target.builds_fp32,
            suffix=graph.suffix,
        ),
        informs=informs,
    )


def _of_pipeline(
    model: ResolvedModel, pipeline: ResolvedPipeline, resolved: ResolvedPrecision, target: ResolvedTarget | None
) -> Comparison:
    """Return the comparison of a pipeline's result. resolved: one of its components in this precision."""
    precision, name, kind = resolved.recipe.name, target.name if target else None, pipeline.kind
    assert kind is not None
    random, not_run = model.checkpoint.seed is not None, target.cannot_run if target else None
    if pipeline.missing:
        not_run = f"the manifest does not build {', '.join(pipeline.missing)}"
    side = f"{precision}.{name}" if name else precision
    components = [
        (component, recording.suffix)
        for component in pipeline.built(model)
        for recording in model.components[component].recordings
        if recording.pipeline == pipeline.spec.name
    ]
    whole = "whole pipeline" if pipeline.label == PIPELINE else f"pipeline {pipeline.label}"
    return Comparison(
        component=pipeline.label,
        label=f"pytorch {BASELINE} vs {name or GRAPH} {precision}, {whole}{resolved.parity(target)}",
        precision=precision,
        target=name,
        action=None if not_run else f"compare:{side}{pipeline.suffix}",
        not_run=not_run,
        outputs=(kind.output,),
        gates={kind.output: result_gates(kind, precision, pipeline.tolerances.get(precision, {}))},
        kind=Kind.RESULT,
        depends_on=dependencies.of_pipeline(
            pipeline.label,
            components,
            precision,
            name,
            fp32_engines=target is not None and target.builds_fp32,
            suffix=pipeline.suffix,
        ),
        informs=dict.fromkeys((m.name for m in kind.metrics), RANDOM) if random and not resolved.is_baseline else {},
        pipeline=pipeline.label,
        suffix=pipeline.suffix,
        result=kind.name,
    )


def _no_gap(tensor: TensorSpec) -> dict[str, Threshold]:
    """Return what is shown beside the gates of FP32: the cosine of floats, and what it would be without a gap."""
    return {"cosine": 1.0} if tensor.dtype.startswith("float") else {}


def _of_gap(gap: ResolvedGap) -> Comparison:
    """Return what is reported of another reference."""
    spec = gap.component.spec
    gates = {
        tensor.name: tuple(g for g in gates_for(BASELINE, tensor.dtype, _no_gap(tensor)) if g.metric in GAP_METRICS)
        for tensor in spec.outputs
    }
    return Comparison(
        component=spec.name,
        label=gap.title,
        precision=BASELINE,
        target=None,
        action=f"reference_gap:{spec.name}.{gap.name}",
        not_run=None,
        outputs=tuple(gates),
        gates=gates,
        kind=Kind.GAP,
        informs=dict.fromkeys(GAP_METRICS, ONLY_REPORTED),
        pipeline=gap.pipeline.label,
        suffix=f"@{gap.name}",
    )
