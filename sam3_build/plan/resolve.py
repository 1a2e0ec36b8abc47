"""Takes a manifest and what is known of this machine, returns the resolved model. Reads no file, asks no device."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sam3_build import registry
from sam3_build.digest import canonical
from sam3_build.documents import value_of
from sam3_build.manifest.samples import as_params
from sam3_build.manifest.types import Manifest
from sam3_build.params import SampleParams
from sam3_build.pipeline.profiles import restricted
from sam3_build.plan.resolved import (
    Recording,
    ResolvedComponent,
    ResolvedGap,
    ResolvedModel,
    ResolvedPipeline,
    ResolvedPrecision,
    ResolvedStep,
    ResolvedTarget,
)
from sam3_build.plugins import Backend, Precision
from sam3_build.spec import (
    BASELINE,
    ComponentSpec,
    Device,
    DeviceFingerprint,
    Input,
    Json,
    Loop,
    ModelFamily,
    Pipeline,
    Processors,
    Step,
)


@dataclass(frozen=True)
class Machine:
    """This machine's GPU, if it has one that can be used; else `no_device` says why, after "needs a CUDA GPU; ".

    processors: backend -> the devices that its own library finds here
    """

    device: DeviceFingerprint | None
    no_device: str
    processors: Mapping[str, Processors] = field(default_factory=dict)

    def device_of(self, backend: Backend) -> Device | None:
        """Return what the backend's callables get."""
        return self.processors.get(backend.name) if backend.probe else self.device

    def blocked(self, backend: Backend, options: Mapping[str, Json]) -> str | None:
        """Return why a backend cannot build here with these options, or None."""
        if self.device is None and "build" in backend.needs_gpu(options):
            return f"building {backend.product} needs a CUDA GPU; {self.no_device}"
        return backend.missing(options, self.device_of(backend))

    def cannot_run(self, backend: Backend, options: Mapping[str, Json]) -> str | None:
        """Return why what a backend builds with these options cannot be run here, or None."""
        if self.device is None and "run" in backend.needs_gpu(options):
            return f"running {backend.product} needs a CUDA GPU; {self.no_device}"
        return backend.cannot_run(options, self.device_of(backend)) or self.blocked(backend, options)


def wants_device(manifest: Manifest) -> bool:
    """Tell whether a target of the manifest is built or run on a GPU, so that it matters which one is here."""
    return any(registry.backend(t.backend).needs_gpu(t.options) for t in manifest.targets.values())


def resolve(manifest: Manifest, machine: Machine) -> ResolvedModel:
    """Return the model of a checked manifest on this machine. Reads no file and asks no device."""
    family = registry.family(manifest.family).laid_out(manifest.layout)
    pipelines = tuple(_pipelines(manifest, family))
    components = {spec.name: _component(manifest, family, spec, pipelines) for spec in family.components}
    recipes = [registry.precision(name) for name in dict.fromkeys((BASELINE, *manifest.precisions))]
    targets = list(_targets(manifest, machine))
    return ResolvedModel(
        family=family,
        reference=manifest.reference,
        checkpoint=manifest.checkpoint,
        tokenizer=manifest.tokenizer,
        image_size=manifest.image_size,
        padding=manifest.padding,
        score_threshold=manifest.score_threshold,
        source=_source(manifest),
        reads=_reads(manifest),
        components=components,
        pipelines=pipelines,
        built={
            name: {r.name: _precision(manifest, r, component, targets) for r in recipes}
            for name, component in components.items()
            if name in manifest.components
        },
        gaps=tuple(_gaps(manifest, family, components, pipelines)),
    )


def _source(manifest: Manifest) -> Mapping[str, Json]:
    """Return what keys have of where weights come from: equal tensors are equal, whatever file has them."""
    seed = manifest.checkpoint.seed
    return {"path": True} if seed is None else {"random": {"seed": seed}}


def _reads(manifest: Manifest) -> Mapping[str, Path | Input]:
    """Return what a component's weights are read from; the inventory stands for their bytes."""
    checkpoint = manifest.checkpoint
    if checkpoint.is_downloaded:
        return {"weights": Input("checkpoint", "weights.json")}
    return {"weights": checkpoint.files["weights"]} if checkpoint.path else {}


def _pipelines(manifest: Manifest, family: ModelFamily) -> Iterator[ResolvedPipeline]:
    """Yield the pipelines that have samples. What the first of several runs has plain names."""
    listed, files = as_params(manifest.samples)
    named: set[str] = set()
    for number, pipeline in enumerate(p for p in family.pipelines if any(p.name == name for name, _ in listed)):
        samples = tuple(sample for name, sample in listed if name == pipeline.name)
        after = f"@{pipeline.name}"
        steps = {
            step.name: ResolvedStep(
                step,
                after if step.name in named else "",
                pipeline.before(step.name),
                all(name in manifest.components for name in step.components),
            )
            for step in _wanted(pipeline, manifest.components)
        }
        last, label = pipeline.steps[-1], family.label(pipeline.name)
        kind = registry.result(pipeline.result) if pipeline.result else None
        result = steps.get(last.name) if kind else None
        if result and isinstance(last, Step) and not result.is_built:
            result = None
        if kind and steps and isinstance(last, Loop) and not result:  # none of its components is built
            result = ResolvedStep(last, "", pipeline.before(last.name), is_built=False)
        loops = [step for step in pipeline.steps if isinstance(step, Loop)]
        yield ResolvedPipeline(
            spec=pipeline,
            label=label,
            suffix=after if number else "",
            samples=samples,
            files=_files_of(samples, files),
            steps=steps,
            result=result,
            missing=tuple(n for loop in loops for n in loop.components if n not in manifest.components),
            kind=kind,
            tolerances={
                name: of.get(label, {}).get(kind.output, {}) if kind else {} for name, of in manifest.tolerances.items()
            },
        )
        named.update(steps)


def _files_of(samples: Iterable[SampleParams], files: Mapping[str, Path]) -> Mapping[str, Path]:
    """Return the files whose roles stand in the samples, as pictures or in prompts."""
    used = {role for sample in samples for role in sample.pictures}
    written = canonical([sample.prompts for sample in samples]).decode()
    return {role: path for role, path in files.items() if role in used or f'"{role}"' in written}


def _wanted(pipeline: Pipeline, built: Collection[str]) -> list[Step | Loop]:
    """Return the steps that PyTorch must run: those with a component that is built, and all that feed them."""
    wanted = {step.name for step in pipeline.steps if any(name in built for name in step.components)}
    for step in reversed(pipeline.steps):
        if step.name in wanted:
            wanted.update(pipeline.before(step.name))
    return [step for step in pipeline.steps if step.name in wanted]


def _component(
    manifest: Manifest, family: ModelFamily, spec: ComponentSpec, pipelines: Sequence[ResolvedPipeline] = ()
) -> ResolvedComponent:
    own = manifest.components.get(spec.name)
    recordings: list[Recording] = []
    for pipeline in pipelines:
        for step in pipeline.steps.values():
            if spec.name in step.step.components:
                suffix = f"@{pipeline.spec.name}" if recordings else ""
                folder = spec.name if isinstance(step.step, Loop) else None
                source = Input(step.reference, folder=folder)
                recordings.append(Recording(pipeline.spec.name, suffix, source, _goes_on(pipeline, step)))
    return ResolvedComponent(
        spec=spec,
        network=spec.network(manifest.reference),
        row_dim=family.row_dim(spec),
        dynamic_dims=tuple(dim for dim in family.dynamic_dims if dim in spec.symbolic_dims),
        opset=(own and own.opset) or manifest.opset,
        patches=own.patches if own else (),
        recordings=tuple(recordings),
    )


def _goes_on(pipeline: ResolvedPipeline, step: ResolvedStep) -> bool:
    """Whether a compared pipeline reads what `verify` computes of a step: of one that nothing feeds."""
    read = {name for other in pipeline.steps.values() for name in other.before} | {
        pipeline.result.name if pipeline.result else ""
    }
    return pipeline.is_compared and isinstance(step.step, Step) and not step.before and step.name in read


def _targets(manifest: Manifest, machine: Machine) -> Iterator[ResolvedTarget]:
    """Yield the targets with whole profiles; what is alike is asked once: whether a library is there takes longest."""
    answers: dict[bytes, tuple[str | None, str | None]] = {}
    for name, target in manifest.targets.items():
        backend = registry.backend(target.backend)
        kind = canonical([target.backend, target.options])
        if kind not in answers:
            answers[kind] = machine.blocked(backend, target.options), machine.cannot_run(backend, target.options)
        blocked, cannot_run = answers[kind]
        profiles = tuple(manifest.shape_profiles[p] for p in target.shape_profiles) if backend.uses_profiles else ()
        is_run = backend.runs(target.options)
        yield ResolvedTarget(
            name=name,
            backend=backend,
            options=target.options,
            profiles=profiles,
            device=machine.device_of(backend),
            precisions=target.precisions,
            blocked=blocked,
            cannot_run=cannot_run,
            is_run=is_run,
        )


def _in_precision(target: ResolvedTarget, recipe: Precision, dims: frozenset[str]) -> ResolvedTarget:
    """Return a target as one component has it in one precision: its dims alone; blocked where kernels are missing."""
    lacks = target.backend.lacks_kernels
    why = lacks(target.options, target.device, recipe) if lacks and not target.blocked else None
    return replace(
        target,
        profiles=restricted(target.profiles, dims),
        blocked=target.blocked or why,
        cannot_run=target.cannot_run or why,
    )


def _precision(
    manifest: Manifest,
    recipe: Precision,
    component: ResolvedComponent,
    targets: Iterable[ResolvedTarget],
) -> ResolvedPrecision:
    name, dims = component.spec.name, component.spec.symbolic_dims
    own = manifest.components[name].precisions.get(recipe.name)
    return ResolvedPrecision(
        component=component,
        recipe=recipe,
        keep_fp32=own.keep_fp32 if own else (),
        options=own.options if own else asdict(recipe.options()),
        lock=manifest.locks.get(name, {}).get(recipe.name),
        tolerances=manifest.tolerances.get(recipe.name, {}).get(name, {}),
        targets={t.name: _in_precision(t, recipe, dims) for t in targets if recipe.name in t.precisions},
    )


def _gaps(
    manifest: Manifest,
    family: ModelFamily,
    components: Mapping[str, ResolvedComponent],
    pipelines: Sequence[ResolvedPipeline],
) -> Iterator[ResolvedGap]:
    """Yield, where there are samples that references feed differently, the references that are not the manifest's.

    A component of this layout that feeds itself measures that; else one of another layout, for the component of its
    name: its sources run in this layout too, and its weights are those of the components that own its modules.
    """
    gap = family.layouts[family.layout].gap
    if gap is None:
        return
    own = next((component.name for component in family.components if component.networks), None)
    layout, name = (family.layout, own) if own else gap.network
    cut = family.laid_out(layout)
    spec, feeds = cut.component(name), cut.pipelines[0].step(name).feeds
    if name not in components or name not in manifest.components:
        return
    pipeline = next((p for p in pipelines if p.spec.name == cut.pipelines[0].name), None)
    if pipeline is None:
        return
    prompts: list[object] = [value_of(pipeline.spec.prompts, sample.prompts) for sample in pipeline.samples]
    concerned = tuple(i for i, given in enumerate(prompts) if gap.concerns(given))
    owners = tuple(c.name for c in family.components if c.name != name and set(c.modules) & set(spec.modules))
    for other in family.references if concerned else ():
        if other != manifest.reference:
            usual, code = family.references[manifest.reference], family.references[other]
            yield ResolvedGap(
                name=other,
                pipeline=pipeline,
                component=replace(_component(manifest, cut, spec), network=spec.network(other)),
                feeds=feeds,
                absent=gap.absent,
                owners=owners,
                samples=concerned,
                title=f"{gap.prompts} fed as {code} does instead of as {usual} does",
            )
