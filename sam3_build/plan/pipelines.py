"""Pipelines in a plan: takes a resolved model, returns the actions that run components one after another. Pure.

verify:<component>.<precision>[.<target>]   of components that nothing feeds: their outputs are kept
-> chain:<step>.<precision>[.<target>]      of those that are fed, each with what those before it computed; of loops
-> compare:<precision>[.<target>]           the result, against what PyTorch's is

What a pipeline after the first one runs has its name behind it: `compare:fp16@video`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sam3_build import registry
from sam3_build.drawing.sheet import SHEET
from sam3_build.params import ChainLoopParams, ChainParams, CompareParams, NetworkParams
from sam3_build.pipeline import chain
from sam3_build.plan.reference import loop_params
from sam3_build.plan.resolved import GRAPH, ResolvedModel, ResolvedPipeline, ResolvedPrecision, ResolvedStep
from sam3_build.spec import SAMPLES, Action, Input, Loop, Step

# The roles of what runs a component: the graph and, of a target, what was built of it.
FILES = ("onnx", "built")


@dataclass(frozen=True)
class _Side:
    """A precision of a pipeline, on ONNX Runtime's CPU or on a target."""

    model: ResolvedModel
    pipeline: ResolvedPipeline
    precision: str
    target: str | None

    @property
    def name(self) -> str:
        """`fp16`, `fp16.ada`."""
        return f"{self.precision}.{self.target}" if self.target else self.precision

    def resolved(self, component: str) -> ResolvedPrecision:
        """Return the component in this precision."""
        return self.model.built[component][self.precision]

    def network(self, component: str) -> NetworkParams:
        """Return what runs a component."""
        resolved = self.resolved(component)
        target = resolved.targets[self.target] if self.target else None
        return NetworkParams(
            component=component,
            precision=self.precision,
            backend=target.backend.name if target else None,
            options=target.options if target else {},
            profiles=target.profiles if target else (),
            row_dim=resolved.component.row_dim if target and target.backend.uses_profiles else None,
            row_axes=resolved.component.row_axes,
        )

    def computed(self, name: str) -> Input:
        """Return what holds the outputs of a step on this side; of one that is not built, PyTorch's."""
        step = self.pipeline.steps[name]
        if not step.is_built:
            return Input(step.reference)
        if isinstance(step.step, Loop) or step.before:
            return Input(f"chain:{name}.{self.name}{step.suffix}")
        recordings = self.model.components[name].recordings
        (suffix,) = (r.suffix for r in recordings if r.pipeline == self.pipeline.spec.name)
        return Input(f"verify:{name}.{self.name}{suffix}")


def pipelines(model: ResolvedModel, verified: Mapping[str, Action]) -> Iterator[Action]:
    """Yield the actions of each pipeline in each precision, on ONNX Runtime's CPU and on each target that runs here.

    verified: the actions that verify components, by name
    """
    for pipeline in model.pipelines:
        if not pipeline.is_compared:
            continue
        one = next(iter(pipeline.built(model)))
        for resolved in model.built[one].values():
            for target in (None, *(target.name for target in resolved.targets.values() if target.runs_here)):
                side = _Side(model, pipeline, resolved.recipe.name, target)
                for step in pipeline.steps.values():
                    if isinstance(step.step, Loop):
                        yield _loop(side, step, step.step, verified)
                    elif step.before and step.is_built:
                        yield _chain(side, step, step.step, verified)
                yield _compare(side)


def _chain(side: _Side, resolved: ResolvedStep, step: Step, verified: Mapping[str, Action]) -> Action:
    """Return the action that runs a component on what those before it computed: as `verify` runs it on recordings."""
    like, spec = _verify(side, step.component, verified), side.model.components[step.component].spec
    network = side.network(step.component)
    return replace(
        like,
        name=f"chain:{step.name}.{side.name}{resolved.suffix}",
        stage="chain",
        arguments=ChainParams(
            component=network.component,
            precision=network.precision,
            backend=network.backend,
            options=network.options,
            profiles=network.profiles,
            row_dim=network.row_dim,
            row_axes=network.row_axes,
            inputs=tuple(tensor.name for tensor in spec.inputs),
            feeds=step.feeds,
            per=step.per,
        ),
        inputs={role: like.inputs[role] for role in FILES if role in like.inputs} | _given(side, resolved),
        recipe=("stages.chain", *(name for name in like.recipe if name != "stages.verify")),
    )


def _loop(side: _Side, resolved: ResolvedStep, loop: Loop, verified: Mapping[str, Action]) -> Action:
    """Return the action that runs a loop with all its components on one side, in one worker."""
    family, likes = side.model.family.name, {name: _verify(side, name, verified) for name in loop.components}
    like = likes[loop.components[0]]
    files = {
        f"{role}_{name}": source
        for name, action in likes.items()
        for role, source in action.inputs.items()
        if role in FILES
    }
    recipe = (name for action in likes.values() for name in action.recipe if name != "stages.verify")
    return replace(
        like,
        name=f"chain:{loop.name}.{side.name}{resolved.suffix}",
        stage="chain_loop",
        arguments=ChainLoopParams(
            family=family, loop=loop_params(loop), networks=tuple(side.network(name) for name in loop.components)
        ),
        inputs=files | _given(side, resolved),
        recipe=tuple(dict.fromkeys(("stages.chain_loop", *registry.code_modules(family, "loops"), *recipe))),
    )


def _verify(side: _Side, component: str, verified: Mapping[str, Action]) -> Action:
    """Return the first action that verifies a component on a side: it says what runs it, and where."""
    return verified[f"verify:{component}.{side.name}"]


def _given(side: _Side, resolved: ResolvedStep) -> dict[str, Input]:
    """Return the cases, and what the steps before one computed of them."""
    given = Input(side.pipeline.samples_action)
    return {chain.GIVEN: given} | {name: side.computed(name) for name in resolved.before}


def _compare(side: _Side) -> Action:
    """Return the action that compares results."""
    model, pipeline, result, kind = side.model, side.pipeline, side.pipeline.result, side.pipeline.kind
    assert result is not None and kind is not None
    family = model.family.name
    resolved = side.resolved(next(iter(pipeline.built(model))))
    target = resolved.targets[side.target] if side.target else None
    return Action(
        name=f"compare:{side.name}{pipeline.suffix}",
        stage="compare",
        arguments=CompareParams(
            family=family,
            result=kind.name,
            precision=side.precision,
            # The backend, and not the target's name: two names for one thing are one key.
            target=f"{target.backend.name if target else GRAPH} {side.precision}",
            parity=resolved.parity(target),
            score_threshold=model.score_threshold,
            samples=pipeline.samples,
        ),
        inputs={
            SAMPLES: Input(pipeline.samples_action),
            "reference": Input(result.reference),
            "actual": side.computed(result.name),
        },
        files=pipeline.files,
        recipe=("stages.compare", f"results.{kind.name}.result", *registry.code_modules(family, "results")),
        tools=(*registry.stage("compare").tools, *pipeline.tools),
        view={SHEET: f"{pipeline.label}/overlay.{side.name}.png"},
    )
