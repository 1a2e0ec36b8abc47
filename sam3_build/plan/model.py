"""The description of a model in a plan: takes a resolved model, returns the action that writes model.json. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sam3_build import registry
from sam3_build.model_format import MODEL, TOKENIZER, ModelComponent, ModelFile, ModelPipeline, ModelStep
from sam3_build.params import ModelParams
from sam3_build.plan.reference import tokenizer_input
from sam3_build.plan.resolved import GRAPH, ResolvedModel, ResolvedPrecision, ResolvedTarget
from sam3_build.spec import Action, Input, Loop, Pipeline, Step

# The action, its stage and what the view shows: one word.
NAME = "model"


def model_action(model: ResolvedModel, actions: Mapping[str, Action]) -> Iterator[Action]:
    """Yield the action that describes what is built; none where no pipeline gives a result that anybody could use.

    Of what this machine cannot build nothing is described.

    actions: those that build, by name
    """
    family = model.family
    if not any(pipeline.result for pipeline in family.pipelines):
        return
    files = [
        (file, source)
        for precisions in model.built.values()
        for resolved in precisions.values()
        for file, source in _files(resolved, actions)
    ]
    yield Action(
        name=NAME,
        stage=NAME,
        arguments=ModelParams(
            family=family.name,
            layout=family.layout,
            reference=model.reference,
            score_threshold=model.score_threshold,
            components=tuple(ModelComponent(spec.name, spec.inputs, spec.outputs) for spec in family.components),
            pipelines=tuple(_pipeline(family.label(pipeline.name), pipeline) for pipeline in family.pipelines),
            files=tuple(file for file, _ in files),
        ),
        inputs={
            "config": Input("checkpoint", "config.json"),
            **tokenizer_input(model),
            **{name.partition(":")[2]: Input(name) for name in dict.fromkeys(source for _, source in files)},
        },
        files={"tokenizer": model.tokenizer} if model.tokenizer else {},
        recipe=("stages.model", *registry.code_modules(family.name, "family")),
        tools=registry.stage(NAME).tools,
        view={MODEL: MODEL, **({TOKENIZER: TOKENIZER} if family.text_tokenizer else {})},
    )


def _pipeline(label: str, pipeline: Pipeline) -> ModelPipeline:
    return ModelPipeline(
        name=pipeline.name,
        label=label,
        gives=pipeline.gives,
        steps=tuple(ModelStep(s.component, s.feeds, s.per.value) for s in pipeline.steps if isinstance(s, Step)),
        loops=tuple(step for step in pipeline.steps if isinstance(step, Loop)),
        result=pipeline.result,
    )


def _files(resolved: ResolvedPrecision, actions: Mapping[str, Action]) -> Iterator[tuple[ModelFile, str]]:
    """Yield the graph, then what is built of it for each target; each with the action that makes the file."""
    graph = actions[f"precision:{resolved.stem}"]
    yield _file(resolved, graph.view[f"{resolved.stem}.onnx"], None), graph.name
    for target in resolved.targets.values():
        extension = target.backend.extension
        # What only proves that a session opens is nothing that anybody runs: the graph is.
        made = graph if extension == ".json" else actions[f"build:{resolved.stem}.{target.name}"]
        if not target.blocked:
            name = f"{resolved.stem}{'.onnx' if made is graph else extension}"
            companions = tuple(path for file, path in made.view.items() if file != name)
            yield _file(resolved, made.view[name], target, companions, made), made.name


def _file(
    resolved: ResolvedPrecision,
    path: str,
    target: ResolvedTarget | None,
    companions: tuple[str, ...] = (),
    made: Action | None = None,
) -> ModelFile:
    component = resolved.component
    return ModelFile(
        component=component.spec.name,
        precision=resolved.recipe.name,
        backend=target.backend.name if target else GRAPH,
        path=path,
        target=target.name if target else None,
        options=target.options if target else {},
        companions=dict.fromkeys(companions, ""),
        device=made.device if made else {},
        profiles=target.profiles if target else (),
        row_dim=component.row_dim if target and target.backend.uses_profiles else None,
        row_axes=component.row_axes,
    )
