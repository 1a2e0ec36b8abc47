"""What PyTorch does in a plan: takes a resolved model, returns the actions that read weights or samples. Pure.

checkpoint, samples -> reference:<component>, export:<component>
                       reference -> contrast:<component>.<reference>
"""

from __future__ import annotations

from sam3_build import registry
from sam3_build.params import (
    CheckpointParams,
    ContrastParams,
    ExportParams,
    InterfaceParams,
    ReferenceParams,
    SamplesParams,
    TorchParams,
)
from sam3_build.plan.resolved import ResolvedComponent, ResolvedGap, ResolvedModel
from sam3_build.spec import SAMPLES, Action, ComponentSpec, Contrast, Input


def checkpoint(model: ResolvedModel) -> Action:
    """Return the action that lists the tensors of the weights, and downloads them where they are at the hub."""
    declared, source, family = model.checkpoint, dict(model.source), model.family
    if hub := declared.hub:
        source = {"hub": hub.repo, "revision": hub.revision, "tokenizer": model.tokenizer is None}
    if declared.weights is not None:
        source["weights"] = declared.weights
    return Action(
        name="checkpoint",
        stage="checkpoint",
        arguments=CheckpointParams(family=family.name, layout=family.layout, source=source),
        uses=tuple(component.spec.name for component in model.recorded),
        files=declared.files,
        recipe=("stages.checkpoint", f"families.{family.name}.weights"),
        tools=registry.stage("checkpoint").tools,
    )


def samples(model: ResolvedModel) -> Action:
    """Return the action that turns samples into inputs."""
    tokenizer = model.tokenizer
    return Action(
        name=SAMPLES,
        stage="samples",
        arguments=SamplesParams(
            family=model.family.name,
            layout=model.family.layout,
            reference=model.reference,
            samples=model.samples,
            padding=model.padding,
        ),
        inputs={
            "config": Input("checkpoint", "config.json"),
            **({} if tokenizer else {"tokenizer": Input("checkpoint", "tokenizer.json")}),
        },
        files={**({"tokenizer": tokenizer} if tokenizer else {}), **model.pictures},
        recipe=("stages.samples", f"families.{model.family.name}.prompts"),
        tools=registry.stage("samples").tools,
    )


def reference(model: ResolvedModel, component: ResolvedComponent) -> Action:
    """Return the action that records a component's inputs and outputs in PyTorch."""
    params = ReferenceParams(
        family=model.family.name,
        component=component.spec.name,
        network=component.network,
        source=model.source,
        spec=_interface(component.spec),
        feeds=component.feeds,
    )
    return _action(model, "reference", params, {SAMPLES: Input(SAMPLES), **_recorded(component)})


def export(model: ResolvedModel, component: ResolvedComponent) -> Action:
    """Return the action that writes a component as ONNX, open in those of the family's dynamic dims that it has."""
    params = ExportParams(
        family=model.family.name,
        component=component.spec.name,
        network=component.network,
        source=model.source,
        spec=_interface(component.spec),
        opset=component.opset,
        dynamic_dims=component.dynamic_dims,
    )
    return _action(model, "export", params, {}, after=(SAMPLES,))


def contrast(model: ResolvedModel, gap: ResolvedGap) -> tuple[Action, Contrast]:
    """Return what measures, for text-only samples, another reference."""
    component, spec = gap.component, gap.component.spec
    params = ContrastParams(
        family=model.family.name,
        component=spec.name,
        network=component.network,
        source=model.source,
        spec=_interface(spec),
        feeds=component.feeds,
        text_only=gap.text_only,
    )
    inputs = {
        SAMPLES: Input(SAMPLES),
        "recorded": Input(f"reference:{spec.name}"),
        **_recorded(component),
        **{f"tensors_{name}": Input("checkpoint", f"{name}.json") for name in gap.owners},
    }
    action = _action(model, "contrast", params, inputs, side=f".{gap.name}")
    return action, Contrast(spec.name, *gap.codes, action.name)


def _action(
    model: ResolvedModel,
    stage: str,
    params: TorchParams,
    inputs: dict[str, Input],
    side: str = "",
    after: tuple[str, ...] = (),
) -> Action:
    """Return an action that runs the component in PyTorch, with the config and its part of the weights as inputs."""
    family, tensors = f"families.{model.family.name}", Input("checkpoint", f"{params.component}.json")
    return Action(
        name=f"{stage}:{params.component}{side}",
        stage=stage,
        arguments=params,
        inputs={"config": Input("checkpoint", "config.json"), "tensors": tensors, **inputs},
        reads=model.reads,
        after=after,
        recipe=(f"stages.{stage}", f"{family}.forward", f"{family}.weights"),
        tools=registry.stage(stage).tools,
    )


def _recorded(component: ResolvedComponent) -> dict[str, Input]:
    return {name: Input(f"reference:{name}") for name in component.upstream}


def _interface(spec: ComponentSpec) -> InterfaceParams:
    return InterfaceParams(inputs=spec.inputs, outputs=spec.outputs)
