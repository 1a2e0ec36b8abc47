"""What PyTorch does in a plan: takes a resolved model, returns the actions that read weights or samples. Pure.

checkpoint, samples -> reference:<component>, export:<component>
                       reference -> reference_gap:<component>.<reference>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from sam3_build import registry
from sam3_build.params import (
    CheckpointParams,
    ExportParams,
    InterfaceParams,
    LoopParams,
    ReferenceGapParams,
    ReferenceLoopParams,
    ReferenceParams,
    SamplesParams,
    TorchParams,
)
from sam3_build.plan.resolved import ResolvedComponent, ResolvedGap, ResolvedModel, ResolvedPipeline, ResolvedStep
from sam3_build.spec import SAMPLES, Action, Input, Json, Loop


def checkpoint(model: ResolvedModel) -> Action:
    """Return the action that lists the tensors of the weights, and downloads them where they are not here."""
    declared, source, family = model.checkpoint, dict(model.source), model.family
    if hub := declared.hub:
        source = {"hub": hub.repo, "revision": hub.revision, "tokenizer": _is_tokenizer_downloaded(model)}
    elif download := declared.download:
        source = {"url": download.url, "sha256": download.sha256}
    if declared.weights is not None:
        source["weights"] = declared.weights
    return Action(
        name="checkpoint",
        stage="checkpoint",
        arguments=CheckpointParams(
            family=family.name, layout=family.layout, source=source, image_size=model.image_size
        ),
        uses=model.recorded,
        files=declared.files,
        recipe=("stages.checkpoint", *registry.code_modules(family.name, "family", "keys", "modules")),
        tools=registry.stage("checkpoint").tools,
    )


def samples(model: ResolvedModel, pipeline: ResolvedPipeline) -> Action:
    """Return the action that turns a pipeline's samples into inputs."""
    tokenizer = model.tokenizer
    return Action(
        name=pipeline.samples_action,
        stage="samples",
        arguments=SamplesParams(
            family=model.family.name,
            layout=model.family.layout,
            pipeline=pipeline.spec.name,
            reference=model.reference,
            samples=pipeline.samples,
            padding=model.padding,
        ),
        inputs={
            "config": Input("checkpoint", "config.json"),
            **tokenizer_input(model),
        },
        files={**({"tokenizer": tokenizer} if tokenizer else {}), **pipeline.files},
        recipe=("stages.samples", *registry.code_modules(model.family.name, "prompts")),
        tools=(*registry.stage("samples").tools, *pipeline.tools),
    )


def tokenizer_input(model: ResolvedModel) -> dict[str, Input]:
    """Return the input that is the tokenizer, where the checkpoint action gets it from the hub."""
    return {"tokenizer": Input("checkpoint", "tokenizer.json")} if _is_tokenizer_downloaded(model) else {}


def _is_tokenizer_downloaded(model: ResolvedModel) -> bool:
    """Whether the family reads text, and the checkpoint action gets the tokenizer from the hub."""
    return model.family.text_tokenizer is not None and model.tokenizer is None


def reference(model: ResolvedModel, pipeline: ResolvedPipeline, resolved: ResolvedStep) -> Action:
    """Return the action that records what a step or loop of a pipeline computes in PyTorch."""
    step = resolved.step
    inputs = {SAMPLES: Input(pipeline.samples_action), **_recorded(pipeline, resolved.before)}
    if isinstance(step, Loop):
        return _loop(model, resolved, step, inputs)
    params = ReferenceParams(**_torch(model, model.components[step.component]), feeds=step.feeds, per=step.per)
    return _action(model, "reference", params, inputs, side=resolved.suffix)


def _loop(model: ResolvedModel, resolved: ResolvedStep, loop: Loop, inputs: dict[str, Input]) -> Action:
    components = [model.components[name] for name in loop.components]
    params = ReferenceLoopParams(
        family=model.family.name,
        loop=loop_params(loop),
        networks=tuple(TorchParams(**_torch(model, component)) for component in components),
    )
    tensors = {f"tensors_{name}": Input("checkpoint", f"{name}.json") for name in loop.components}
    return Action(
        name=resolved.reference,
        stage="reference_loop",
        arguments=params,
        inputs={"config": Input("checkpoint", "config.json"), **tensors, **inputs},
        reads=model.reads,
        recipe=("stages.reference_loop", *registry.code_modules(model.family.name, "keys", "modules", "loops")),
        tools=registry.stage("reference_loop").tools,
    )


def loop_params(loop: Loop) -> LoopParams:
    """Return what stages get of a loop."""
    return LoopParams(name=loop.name, outputs=loop.outputs, given=loop.given, feeds=loop.feeds, frames=loop.frames)


def export(model: ResolvedModel, component: ResolvedComponent) -> Action:
    """Return the action that writes a component as ONNX, open in those of the family's dynamic dims that it has."""
    params = ExportParams(**_torch(model, component), opset=component.opset, dynamic_dims=component.dynamic_dims)
    return _action(model, "export", params, {}, after=model.after_samples, code=("family", "keys", "modules"))


def gap(model: ResolvedModel, found: ResolvedGap) -> Action:
    """Return what measures, for the samples that another reference feeds differently, how much that changes."""
    spec, pipeline = found.component.spec, found.pipeline
    params = ReferenceGapParams(
        **_torch(model, found.component), feeds=found.feeds, samples=found.samples, absent=found.absent
    )
    before = tuple(dict.fromkeys(source for feed in found.feeds for source, _ in feed.sources))
    inputs = {
        SAMPLES: Input(pipeline.samples_action),
        "recorded": Input(pipeline.steps[spec.name].reference),
        **_recorded(pipeline, before),
        **{f"tensors_{name}": Input("checkpoint", f"{name}.json") for name in found.owners},
    }
    return _action(model, "reference_gap", params, inputs, side=f".{found.name}")


class _Torch(TypedDict):
    family: str
    component: str
    network: str
    source: Mapping[str, Json]
    spec: InterfaceParams


def _torch(model: ResolvedModel, component: ResolvedComponent) -> _Torch:
    """Return the parameters of whatever runs a component in PyTorch."""
    spec = component.spec
    return {
        "family": model.family.name,
        "component": spec.name,
        "network": component.network,
        "source": model.source,
        "spec": InterfaceParams(inputs=spec.inputs, outputs=spec.outputs),
    }


def _action(
    model: ResolvedModel,
    stage: str,
    params: TorchParams,
    inputs: dict[str, Input],
    side: str = "",
    after: tuple[str, ...] = (),
    code: tuple[str, ...] = ("keys", "modules"),
) -> Action:
    """Return an action that runs the component in PyTorch, with the config and its part of the weights as inputs.

    code: what its stage uses of the family's code
    """
    tensors = Input("checkpoint", f"{params.component}.json")
    return Action(
        name=f"{stage}:{params.component}{side}",
        stage=stage,
        arguments=params,
        inputs={"config": Input("checkpoint", "config.json"), "tensors": tensors, **inputs},
        reads=model.reads,
        after=after,
        recipe=(f"stages.{stage}", *registry.code_modules(model.family.name, *code)),
        tools=registry.stage(stage).tools,
    )


def _recorded(pipeline: ResolvedPipeline, steps: Iterable[str]) -> dict[str, Input]:
    return {name: Input(pipeline.steps[name].reference) for name in steps}
