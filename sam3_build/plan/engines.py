"""The graph of a component and what is made of it: takes resolved values, returns actions. Pure.

export -> simplify:<component> -> patch:<component>
precision:<component>.<precision>
-> build:<component>.<precision>.<target>    for every target
-> verify:<component>.<precision>            the graph, on ONNX Runtime's CPU
-> verify:<component>.<precision>.<target>   what was built, run on this machine's GPU, where it can be
"""

from __future__ import annotations

from collections.abc import Iterator

from sam3_build import registry
from sam3_build.compare.batch_invariance import PERMUTED_ROWS
from sam3_build.params import BuildParams, LockedNodes, PatchParams, PrecisionParams, SimplifyParams, VerifyParams
from sam3_build.plan.resolved import Recording, ResolvedComponent, ResolvedPrecision, ResolvedTarget
from sam3_build.spec import BASELINE, Action, Input, Json


def graph(component: ResolvedComponent) -> Iterator[Action]:
    """Yield simplify and, where the manifest lists patches, patch."""
    name = component.spec.name
    yield Action(
        name=f"simplify:{name}",
        stage="simplify",
        arguments=SimplifyParams(component=name),
        inputs={"onnx": Input(f"export:{name}")},
        recipe=("stages.simplify",),
        tools=registry.stage("simplify").tools,
    )
    if component.patches:
        yield Action(
            name=f"patch:{name}",
            stage="patch",
            arguments=PatchParams(component=name, patches=component.patches),
            inputs={"onnx": Input(f"simplify:{name}")},
            recipe=("stages.patch", *(f"patches.{patch}" for patch in component.patches)),
            tools=registry.stage("patch").tools,
        )


def in_precision(resolved: ResolvedPrecision, after: tuple[str, ...]) -> Iterator[Action]:
    """Yield all actions of a component in one precision. after: what builds wait for."""
    params = _types(resolved)
    yield _precision(resolved, params)
    yield from (_build(resolved, target, after) for target in resolved.targets.values())
    for recording in resolved.component.recordings:
        yield _verify(resolved, params, recording)
        for target in resolved.targets.values():
            if target.runs_here:
                yield _verify_built(resolved, params, target, recording)


def _types(resolved: ResolvedPrecision) -> PrecisionParams:
    """Return what the graph's types are written by."""
    lock = resolved.lock
    return PrecisionParams(
        component=resolved.component.spec.name,
        precision=resolved.recipe.name,
        keep_fp32=resolved.keep_fp32,
        fp32_nodes=resolved.component.spec.fp32_nodes,
        options=resolved.options,
        locked=LockedNodes(graph=lock.graph, nodes=lock.keep_fp32) if lock else None,
    )


def _precision(resolved: ResolvedPrecision, params: PrecisionParams) -> Action:
    """Return the action that writes the precision into the graph."""
    spec, stem = resolved.component.spec, resolved.stem
    stage = "quantize" if resolved.recipe.quantizes else "precision"
    recordings = resolved.component.recordings
    recorded = {"reference": recordings[0].source} if resolved.recipe.quantizes and recordings else {}
    return Action(
        name=f"precision:{stem}",
        stage=stage,
        arguments=params,
        inputs={"onnx": Input(f"{'patch' if resolved.component.patches else 'simplify'}:{spec.name}"), **recorded},
        recipe=(f"stages.{stage}", f"precisions.{resolved.recipe.name}"),
        tools=registry.stage(stage).tools,
        view={f"{stem}.onnx": f"{spec.name}/{stem}.onnx"},
    )


def _build(resolved: ResolvedPrecision, target: ResolvedTarget, after: tuple[str, ...]) -> Action:
    """Return the action that builds for a target."""
    name, stem, backend, gpu = resolved.component.spec.name, resolved.stem, target.backend, target.gpu("build")
    return Action(
        name=f"build:{stem}.{target.name}",
        stage="build",
        arguments=BuildParams(
            component=name,
            precision=resolved.recipe.name,
            backend=backend.name,
            options=target.options,
            profiles=target.profiles,
        ),
        inputs={"onnx": Input(f"precision:{stem}")},
        after=after,
        recipe=("stages.build", f"backends.{backend.name}"),
        tools=(*registry.stage("build").tools, *backend.tools(target.options)),
        device=backend.device_fields(target.options, target.device),
        gpu=gpu.uuid if gpu else None,
        processor=target.processor,
        view={
            f"{stem}{extension}": f"{name}/{stem}.{target.name}{extension}"
            for extension in (backend.extension, *backend.companions)
        },
        env=backend.env,
        blocked=target.blocked,
    )


def _verify(resolved: ResolvedPrecision, types: PrecisionParams, recording: Recording) -> Action:
    """Return the action that runs a graph on ONNX Runtime's CPU; PyTorch or the FP32 graph is its measure."""
    return Action(
        name=f"verify:{resolved.stem}{recording.suffix}",
        stage="verify",
        arguments=VerifyParams(
            component=types.component,
            precision=types.precision,
            row_axes=resolved.component.row_axes,
            keep_outputs=resolved.is_baseline or recording.keep_outputs,
            rows=_rows(resolved),
            types=types,
            meaningful_where=resolved.component.meaningful_where,
            chosen_by=resolved.component.chosen_by,
        ),
        inputs={
            **_recorded(resolved, recording),
            **({} if resolved.is_baseline else _baseline(resolved, recording)),
        },
        recipe=("stages.verify", f"precisions.{types.precision}"),
        tools=registry.stage("verify").tools,
    )


def _verify_built(
    resolved: ResolvedPrecision, types: PrecisionParams, target: ResolvedTarget, recording: Recording
) -> Action:
    """Return the action that runs what was built for a target.

    Its key takes the whole device and the exact driver: kernels differ between them, whatever the engine is made for.
    """
    backend, gpu = target.backend, target.gpu("run")
    return Action(
        name=f"verify:{resolved.stem}.{target.name}{recording.suffix}",
        stage="verify",
        arguments=VerifyParams(
            component=types.component,
            precision=types.precision,
            backend=backend.name,
            options=target.options,
            profiles=target.profiles,
            row_dim=resolved.component.row_dim if backend.uses_profiles else None,
            row_axes=resolved.component.row_axes,
            keep_outputs=recording.keep_outputs,
            rows=_rows(resolved),
            types=types if backend.layer_types else None,
            meaningful_where=resolved.component.meaningful_where,
            chosen_by=resolved.component.chosen_by,
        ),
        inputs={
            "built": Input(f"build:{resolved.stem}.{target.name}"),
            **_recorded(resolved, recording),
            **_baseline(resolved, recording),
        },
        recipe=("stages.verify", f"backends.{backend.name}", f"precisions.{types.precision}"),
        tools=_exact(*registry.stage("verify").tools, *backend.tools(target.options)),
        device=_runs_on(target),
        gpu=gpu.uuid if gpu else None,
        processor=target.processor,
        env=backend.env,
    )


def _runs_on(target: ResolvedTarget) -> dict[str, Json]:
    """Return the whole device that runs what was built; nothing where it needs none."""
    if target.processor:
        return dict(target.backend.device_fields(target.options, target.device))
    gpu = target.gpu("run")
    return {name: value for name, value in gpu.fields.items() if name != "driver_major"} if gpu else {}


def _exact(*tools: str) -> tuple[str, ...]:
    """Return tools by their whole versions, each once: what runs an engine matters even if it may be newer."""
    return tuple(dict.fromkeys(tool.partition(":")[0] for tool in tools))


def _rows(resolved: ResolvedPrecision) -> int:
    return len(PERMUTED_ROWS) if resolved.component.row_dim else 0


def _recorded(resolved: ResolvedPrecision, recording: Recording) -> dict[str, Input]:
    return {"onnx": Input(f"precision:{resolved.stem}"), "reference": recording.source}


def _baseline(resolved: ResolvedPrecision, recording: Recording) -> dict[str, Input]:
    """Return what a reduced precision is compared with: outputs of the FP32 graph, and its nodes."""
    stem = f"{resolved.component.spec.name}.{BASELINE}"
    return {"baseline": Input(f"verify:{stem}{recording.suffix}"), "fp32": Input(f"precision:{stem}")}
