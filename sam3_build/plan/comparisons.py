"""What the judge compares: takes a resolved model, returns comparisons with their gates. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sam3_build.compare import dependencies, instance_gates
from sam3_build.compare.judge import ENGINE_PARITY, NOT_EMULATED, gates_for, type_gates
from sam3_build.plan.resolved import GRAPH, ResolvedModel, ResolvedPrecision, ResolvedTarget
from sam3_build.spec import BASELINE, INSTANCES, PIPELINE, TYPES, Comparison, Kind

RANDOM = (
    "the weights are random: what they find in a picture hangs on rounding, so this is reported and not judged; "
    "the gates of FP32's pipeline, and those of tensors, mean what they say"
)


def comparisons(model: ResolvedModel) -> Iterator[Comparison]:
    """Yield those of each component in each precision, then those of the pipeline."""
    for precisions in model.built.values():
        for resolved in precisions.values():
            yield from _of_component(resolved)
    for resolved in model.built[model.result].values() if model.result else ():
        for target in (None, *(target for target in resolved.targets.values() if target.is_run)):
            yield _of_pipeline(model, resolved, target)


def _of_component(resolved: ResolvedPrecision) -> Iterator[Comparison]:
    """Yield what ONNX Runtime shows of this precision, then one for each engine that has to be run to be judged."""
    spec, precision = resolved.component.spec, resolved.recipe.name
    gates = {t.name: gates_for(precision, t.dtype, resolved.tolerances.get(t.name, {})) for t in spec.outputs}
    gates[TYPES] = type_gates(precision)
    measure = "pytorch" if resolved.is_baseline else GRAPH
    without_rows = "not checked: its inputs and outputs have no batch in common"
    graph = Comparison(
        component=spec.name,
        label=f"{measure} {BASELINE} vs {GRAPH} {precision}{resolved.parity(None)}",
        precision=precision,
        target=None,
        action=f"verify:{resolved.stem}",
        not_run=None,
        outputs=tuple(gates),
        gates=gates,
        depends_on=dependencies.of_component(spec.name, precision, None, fp32_engines=False),
        informs={} if resolved.component.row_dim else {"rows": without_rows},
    )
    yield graph
    if resolved.recipe.onnx_type == "BFLOAT16":
        label = f"{GRAPH} {BASELINE} vs {GRAPH} {precision}, the file itself"
        yield replace(graph, label=label, action=None, not_run=NOT_EMULATED, kind=Kind.FILE)
    for target in resolved.targets.values():
        if target.is_run:
            yield _of_engine(resolved, target, graph)


def _of_engine(resolved: ResolvedPrecision, target: ResolvedTarget, graph: Comparison) -> Comparison:
    alone = "" if resolved.fp32_engines or resolved.is_baseline else "; no FP32 engine is built"
    informs, row_dim = dict(graph.informs), resolved.component.row_dim
    if row_dim and target.takes_one_row(row_dim):
        informs["rows"] = f"not applicable: {target.name}'s shape profiles allow one row at a time"
    if target.backend.layer_types is None:
        product = target.backend.product
        why = f"not checked: {product} do not report their layers' types; they follow the ONNX, whose types are"
        informs |= dict.fromkeys((gate.metric for gate in graph.gates[TYPES]), why)
    return replace(
        graph,
        label=f"{GRAPH} {BASELINE} vs {target.name} {graph.precision} ({ENGINE_PARITY}{alone})",
        target=target.name,
        action=None if target.cannot_run else f"verify:{resolved.stem}.{target.name}",
        not_run=target.cannot_run,
        depends_on=dependencies.of_component(graph.component, graph.precision, target.name, resolved.fp32_engines),
        informs=informs,
    )


def _of_pipeline(model: ResolvedModel, resolved: ResolvedPrecision, target: ResolvedTarget | None) -> Comparison:
    precision, name = resolved.recipe.name, target.name if target else None
    random, not_run = model.checkpoint.seed is not None, target.cannot_run if target else None
    return Comparison(
        component=PIPELINE,
        label=f"pytorch {BASELINE} vs {name or GRAPH} {precision}, whole pipeline{resolved.parity(target)}",
        precision=precision,
        target=name,
        action=None if not_run else f"compare:{precision}.{name}" if name else f"compare:{precision}",
        not_run=not_run,
        outputs=(INSTANCES,),
        gates={INSTANCES: instance_gates.gates(precision, model.result_tolerances.get(precision, {}))},
        kind=Kind.RESULT,
        depends_on=dependencies.of_pipeline(model.built, precision, name, resolved.fp32_engines),
        informs=dict.fromkeys(instance_gates.REDUCED, RANDOM) if random and not resolved.is_baseline else {},
    )
