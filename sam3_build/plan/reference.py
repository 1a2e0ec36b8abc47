"""What PyTorch does in a plan: manifest, family and component in; reference, contrast and export actions out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sam3_build import registry
from sam3_build.manifest.types import Manifest
from sam3_build.pipeline import chain
from sam3_build.plan.engines import dims
from sam3_build.spec import SAMPLES, Action, ComponentSpec, Contrast, Input, Json, ModelFamily, TensorSpec


def source(manifest: Manifest) -> dict[str, Json]:
    """Return what a component's action is told of the weights: whatever file they lie in, equal tensors are equal."""
    seed = manifest.checkpoint.seed
    return {"path": True} if seed is None else {"random": {"seed": seed}}


def reference(manifest: Manifest, family: ModelFamily, spec: ComponentSpec) -> Action:
    """Return the action that records a component's inputs and outputs in PyTorch."""
    inputs = {"samples": Input(SAMPLES), **_recorded(family, spec)}
    return _action(manifest, family, "reference", spec, {"feeds": _feeds(family, spec)}, inputs)


def export(manifest: Manifest, family: ModelFamily, spec: ComponentSpec) -> Action:
    """Return the action that writes a component as ONNX, open in those of the family's dynamic dims that it has."""
    own = dims(spec)
    dynamic: list[Json] = [dim for dim in family.dynamic_dims if dim in own]
    opset = manifest.components[spec.name].opset or manifest.opset
    action = _action(manifest, family, "export", spec, {"opset": opset, "dynamic_dims": dynamic}, {})
    return replace(action, after=(SAMPLES,))


def contrasts(manifest: Manifest, family: ModelFamily) -> Iterator[tuple[Action, Contrast]]:
    """Yield, for text-only samples, what measures each other reference.

    Any layout's component that feeds itself can do that for the component of its name: its sources are upstream of that
    one too, and its weights are those of the components that own its modules.
    """
    text_only: list[Json] = [i for i, sample in enumerate(manifest.samples) if not sample.boxes]
    able = [(family.laid_out(name), c) for name, cut in family.layouts.items() for c in cut.components if c.networks]
    if not able or not text_only or able[0][1].name not in manifest.components:
        return
    whole, spec = able[0]
    owners = [c for c in family.components if c.name != spec.name and set(c.modules) & set(spec.modules)]
    inputs = {
        "samples": Input(SAMPLES),
        "recorded": Input(f"reference:{spec.name}"),
        **_recorded(whole, spec),
        **{f"tensors_{c.name}": Input("checkpoint", f"{c.name}.json") for c in owners},
    }
    for other in family.references:
        if other != manifest.reference:
            network = spec.network(other)
            own: dict[str, Json] = {"network": network, "feeds": _feeds(whole, spec), "text_only": text_only}
            action = _action(manifest, family, "contrast", spec, own, inputs)
            action = replace(action, name=f"contrast:{spec.name}.{other}")
            codes = family.references[manifest.reference], family.references[other]
            yield action, Contrast(spec.name, *codes, action.name)


def _action(
    manifest: Manifest,
    family: ModelFamily,
    stage: str,
    spec: ComponentSpec,
    params: dict[str, Json],
    inputs: dict[str, Input],
) -> Action:
    """Return an action that runs the component in PyTorch, with the config and its part of the weights as inputs."""
    weights = {"config": Input("checkpoint", "config.json"), "tensors": Input("checkpoint", f"{spec.name}.json")}
    return Action(
        name=f"{stage}:{spec.name}",
        stage=stage,
        params={
            "family": family.name,
            "component": spec.name,
            "network": spec.network(manifest.reference),
            "source": source(manifest),
            "spec": _io(spec),
            **params,
        },
        inputs={**weights, **inputs},
        reads=_weights(manifest),
        recipe=(f"stages.{stage}", f"families.{family.name}.forward", f"families.{family.name}.weights"),
        tools=registry.stage(stage).tools,
    )


def _weights(manifest: Manifest) -> dict[str, Path | Input]:
    """Return what a component's action reads its weights from; the inventory stands for their bytes."""
    checkpoint = manifest.checkpoint
    if checkpoint.hub:
        return {"weights": Input("checkpoint", "weights.json")}
    return {"weights": checkpoint.files["weights"]} if checkpoint.path else {}


def _feeds(family: ModelFamily, spec: ComponentSpec) -> list[Json]:
    return chain.as_json([feed for feed in family.feeds if feed.component == spec.name])


def _recorded(family: ModelFamily, spec: ComponentSpec) -> dict[str, Input]:
    return {name: Input(f"reference:{name}") for name in family.upstream(spec.name)}


def _io(spec: ComponentSpec) -> dict[str, Json]:
    def rows(tensors: tuple[TensorSpec, ...]) -> list[Json]:
        return [{"name": t.name, "dtype": t.dtype, "dims": list(t.dims)} for t in tensors]

    return {"inputs": rows(spec.inputs), "outputs": rows(spec.outputs)}
