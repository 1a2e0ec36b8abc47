"""Takes a manifest and what is known of this machine, returns the resolved model. Reads no file, asks no device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sam3_build import registry
from sam3_build.digest import canonical
from sam3_build.manifest.samples import as_params
from sam3_build.manifest.types import Manifest
from sam3_build.pipeline.profiles import restricted
from sam3_build.plan.resolved import ResolvedComponent, ResolvedGap, ResolvedModel, ResolvedPrecision, ResolvedTarget
from sam3_build.plugins import Backend, Precision
from sam3_build.spec import BASELINE, INSTANCES, PIPELINE, ComponentSpec, DeviceFingerprint, Input, Json, ModelFamily


@dataclass(frozen=True)
class Machine:
    """This machine's GPU, if it has one that can be used; else `no_device` says why, after "needs a CUDA GPU; "."""

    device: DeviceFingerprint | None
    no_device: str

    def blocked(self, backend: Backend, options: Mapping[str, Json]) -> str | None:
        """Return why a backend cannot build here with these options, or None."""
        if self.device is None and "build" in backend.needs_gpu(options):
            return f"building {backend.product} needs a CUDA GPU; {self.no_device}"
        return backend.missing(options, self.device)

    def cannot_run(self, backend: Backend, options: Mapping[str, Json]) -> str | None:
        """Return why what a backend builds with these options cannot be run here, or None."""
        if self.device is None and "run" in backend.needs_gpu(options):
            return f"running {backend.product} needs a CUDA GPU; {self.no_device}"
        return backend.cannot_run(options, self.device) or self.blocked(backend, options)


def wants_device(manifest: Manifest) -> bool:
    """Tell whether a target of the manifest is built or run on a GPU, so that it matters which one is here."""
    return any(registry.backend(t.backend).needs_gpu(t.options) for t in manifest.targets.values())


def resolve(manifest: Manifest, machine: Machine) -> ResolvedModel:
    """Return the model of a checked manifest on this machine. Reads no file and asks no device."""
    family = registry.family(manifest.family).laid_out(manifest.layout)
    has_pipeline = family.components[-1].name in manifest.components and registry.finds_instances(family.name)
    samples, pictures = as_params(manifest.samples)
    components = {spec.name: _component(manifest, family, spec, has_pipeline) for spec in family.components}
    recipes = [registry.precision(name) for name in dict.fromkeys((BASELINE, *manifest.precisions))]
    targets = list(_targets(manifest, machine))
    return ResolvedModel(
        family=family,
        reference=manifest.reference,
        checkpoint=manifest.checkpoint,
        tokenizer=manifest.tokenizer,
        padding=manifest.padding,
        score_threshold=manifest.score_threshold,
        source=_source(manifest),
        reads=_reads(manifest),
        samples=samples,
        pictures=pictures,
        components=components,
        recorded=tuple(_recorded(manifest, components)),
        built={
            name: {r.name: _precision(manifest, r, component, targets) for r in recipes}
            for name, component in components.items()
            if name in manifest.components
        },
        result=family.components[-1].name if has_pipeline else None,
        gaps=tuple(_gaps(manifest, family)),
        result_tolerances={name: of.get(PIPELINE, {}).get(INSTANCES, {}) for name, of in manifest.tolerances.items()},
    )


def _source(manifest: Manifest) -> Mapping[str, Json]:
    """Return what keys have of where weights come from: equal tensors are equal, whatever file has them."""
    seed = manifest.checkpoint.seed
    return {"path": True} if seed is None else {"random": {"seed": seed}}


def _reads(manifest: Manifest) -> Mapping[str, Path | Input]:
    """Return what a component's weights are read from; the inventory stands for their bytes."""
    checkpoint = manifest.checkpoint
    if checkpoint.hub:
        return {"weights": Input("checkpoint", "weights.json")}
    return {"weights": checkpoint.files["weights"]} if checkpoint.path else {}


def _component(
    manifest: Manifest, family: ModelFamily, spec: ComponentSpec, has_pipeline: bool = False
) -> ResolvedComponent:
    own, upstream = manifest.components.get(spec.name), family.upstream(spec.name)
    feeds_others = any(spec.name == source for feed in family.feeds for source, _ in feed.sources)
    return ResolvedComponent(
        spec=spec,
        network=spec.network(manifest.reference),
        upstream=upstream,
        feeds=tuple(feed for feed in family.feeds if feed.component == spec.name),
        row_dim=family.row_dim(spec),
        dynamic_dims=tuple(dim for dim in family.dynamic_dims if dim in spec.symbolic_dims),
        opset=(own and own.opset) or manifest.opset,
        patches=own.patches if own else (),
        starts_pipeline=has_pipeline and feeds_others and not upstream,
    )


def _recorded(manifest: Manifest, components: Mapping[str, ResolvedComponent]) -> list[ResolvedComponent]:
    """Return the components that PyTorch must run: those that are built, and all that feed them."""
    wanted = set(manifest.components)
    for name, component in reversed(list(components.items())):
        if name in wanted:
            wanted.update(component.upstream)
    return [component for name, component in components.items() if name in wanted]


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
        yield ResolvedTarget(name, backend, target.options, profiles, machine.device, blocked, cannot_run, is_run)


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
        targets={t.name: replace(t, profiles=restricted(t.profiles, dims)) for t in targets}
        if recipe.name in manifest.precisions
        else {},
        fp32_engines=BASELINE in manifest.precisions,
    )


def _gaps(manifest: Manifest, family: ModelFamily) -> Iterator[ResolvedGap]:
    """Yield, where there are text-only samples, the references that are not the manifest's.

    Any layout's component that feeds itself can measure that for the component of its name: its sources are upstream of
    that one too, and its weights are those of the components that own its modules.
    """
    text_only = tuple(i for i, sample in enumerate(manifest.samples) if not sample.boxes)
    able = [(family.laid_out(name), c) for name, cut in family.layouts.items() for c in cut.components if c.networks]
    if not able or not text_only or able[0][1].name not in manifest.components:
        return
    layout, spec = able[0]
    component = _component(manifest, layout, spec)
    owners = tuple(c.name for c in family.components if c.name != spec.name and set(c.modules) & set(spec.modules))
    for name in family.references:
        if name != manifest.reference:
            codes = family.references[manifest.reference], family.references[name]
            yield ResolvedGap(name, replace(component, network=spec.network(name)), owners, text_only, codes)
