"""The plan: a manifest and its family in; actions in the order of the pipeline, and what the judge compares, out. Pure.

checkpoint, samples -> reference:<component>
                       -> contrast:<component>.<reference>
export -> simplify -> patch -> precision:<component>.<precision> -> build:<component>.<precision>.<target>
                                                                 -> verify:<component>.<precision>[.<target>]
verify -> chain:<component>.<precision>[.<target>] -> compare:<precision>[.<target>]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from sam3_build import registry
from sam3_build.manifest.samples import as_json
from sam3_build.manifest.types import Manifest
from sam3_build.plan import engines, pipelines, reference, search
from sam3_build.spec import (
    BASELINE,
    SAMPLES,
    Action,
    Comparison,
    ComponentSpec,
    DeviceFingerprint,
    Input,
    ModelFamily,
    Plan,
)


def make_plan(manifest: Manifest, device: DeviceFingerprint | None = None, no_device: str = "there is none") -> Plan:
    """Return the actions and comparisons of `manifest` on a machine with this GPU, or without one and why.

    Reads no file and asks no device; blocked actions say why.
    """
    family = registry.family(manifest.family).laid_out(manifest.layout)
    specs = [spec for spec in family.components if spec.name in manifest.components]
    actions = [_checkpoint(manifest, family), _samples(manifest, family)]
    actions += [reference.reference(manifest, family, spec) for spec in _needed(family, specs)]
    contrasts = list(reference.contrasts(manifest, family))
    actions += [action for action, _ in contrasts]
    comparisons: list[Comparison] = []
    here = engines.here(manifest, engines.Machine(device, no_device))
    for spec in specs:
        actions += _graph(manifest, family, spec)
        for precision in _precisions(manifest):
            types = _precision(manifest, spec, precision)
            actions.append(types)
            built = manifest.targets if precision in manifest.precisions else ()
            actions += [engines.build(manifest, spec, precision, name, here) for name in built]
            actions.append(engines.verify(family, spec, types))
            for name in built:
                actions += engines.verify_built(manifest, family, spec, types, name, here)
            comparisons += engines.comparisons(manifest, family, spec, precision, here)
    actions, of_task = pipelines.with_task(manifest, family, actions, here)
    return Plan(manifest.name, tuple(actions), (*comparisons, *of_task), tuple(contrast for _, contrast in contrasts))


def _precisions(manifest: Manifest) -> tuple[str, ...]:
    return (BASELINE, *(p for p in manifest.precisions if p != BASELINE))


def _needed(family: ModelFamily, specs: list[ComponentSpec]) -> list[ComponentSpec]:
    """Return the components that PyTorch must run: those listed, and all that feed them."""
    wanted = {spec.name for spec in specs}
    for spec in reversed(family.components):
        if spec.name in wanted:
            wanted.update(family.upstream(spec.name))
    return [spec for spec in family.components if spec.name in wanted]


# ------------------------------------------------------------------ weights and references


def _checkpoint(manifest: Manifest, family: ModelFamily) -> Action:
    source, hub = reference.source(manifest), manifest.checkpoint.hub
    used = _needed(family, [spec for spec in family.components if spec.name in manifest.components])
    if hub:
        source = {"hub": hub.repo, "revision": hub.revision, "tokenizer": manifest.tokenizer is None}
    if manifest.checkpoint.weights is not None:
        source["weights"] = manifest.checkpoint.weights
    return Action(
        name="checkpoint",
        stage="checkpoint",
        params={"family": family.name, "layout": family.layout, "source": source},
        checks={"used": [spec.name for spec in used]},
        files=manifest.checkpoint.files,
        recipe=("stages.checkpoint", f"families.{family.name}.weights"),
        tools=registry.stage("checkpoint").tools,
    )


def _samples(manifest: Manifest, family: ModelFamily) -> Action:
    samples, images = as_json(manifest.samples)
    return Action(
        name=SAMPLES,
        stage="samples",
        params={
            "family": family.name,
            "layout": family.layout,
            "reference": manifest.reference,
            "samples": samples,
            "padding": manifest.padding,
        },
        inputs={
            "config": Input("checkpoint", "config.json"),
            **({} if manifest.tokenizer else {"tokenizer": Input("checkpoint", "tokenizer.json")}),
        },
        files={**({"tokenizer": manifest.tokenizer} if manifest.tokenizer else {}), **images},
        recipe=("stages.samples", f"families.{family.name}.prompts"),
        tools=registry.stage("samples").tools,
    )


# ------------------------------------------------------------------ graphs


def _graph(manifest: Manifest, family: ModelFamily, spec: ComponentSpec) -> Iterator[Action]:
    """Yield export, simplify and, where the manifest lists patches, patch."""
    component = manifest.components[spec.name]
    yield reference.export(manifest, family, spec)
    yield Action(
        name=f"simplify:{spec.name}",
        stage="simplify",
        params={"component": spec.name},
        inputs={"onnx": Input(f"export:{spec.name}")},
        recipe=("stages.simplify",),
        tools=registry.stage("simplify").tools,
    )
    if component.patches:
        yield Action(
            name=f"patch:{spec.name}",
            stage="patch",
            params={"component": spec.name, "patches": list(component.patches)},
            inputs={"onnx": Input(f"simplify:{spec.name}")},
            recipe=("stages.patch", *(f"patches.{name}" for name in component.patches)),
            tools=registry.stage("patch").tools,
        )


def _precision(manifest: Manifest, spec: ComponentSpec, precision: str) -> Action:
    component = manifest.components[spec.name]
    options = component.precisions.get(precision)
    recipe = registry.precision(precision)
    own = options.options if options else asdict(recipe.options())
    stem = f"{spec.name}.{precision}"
    stage = "quantize" if recipe.quantizes else "precision"
    recorded = {"reference": Input(f"reference:{spec.name}")} if recipe.quantizes else {}
    return Action(
        name=f"precision:{stem}",
        stage=stage,
        params={
            "component": spec.name,
            "precision": precision,
            "keep_fp32": list(options.keep_fp32) if options else [],
            "fp32_nodes": list(spec.fp32_nodes),
            **({"options": own} if own else {}),
            **search.locked(manifest, spec.name, precision),
        },
        inputs={"onnx": Input(f"{'patch' if component.patches else 'simplify'}:{spec.name}"), **recorded},
        recipe=(f"stages.{stage}", f"precisions.{precision}"),
        tools=registry.stage(stage).tools,
        view={f"{stem}.onnx": f"{spec.name}/{stem}.onnx"},
    )
