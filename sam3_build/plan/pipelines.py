"""The pipeline in a plan: takes a resolved model, returns the actions that run its components one after another. Pure.

verify:<component>.<precision>[.<target>]   of components that nothing feeds: their outputs are kept
-> chain:<component>.<precision>[.<target>]   of those that are fed: each with what those before it computed
-> compare:<precision>[.<target>]             what is found in the pictures, against what PyTorch finds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sam3_build import registry
from sam3_build.drawing.sheet import SHEET
from sam3_build.params import ChainParams, CompareParams
from sam3_build.pipeline import chain
from sam3_build.plan.resolved import GRAPH, ResolvedModel, ResolvedPrecision, ResolvedTarget
from sam3_build.spec import PIPELINE, SAMPLES, Action, Input


def pipelines(model: ResolvedModel, verified: Mapping[str, Action]) -> Iterator[Action]:
    """Yield the actions of each precision, on ONNX Runtime's CPU and on each target that runs here.

    verified: the actions that verify components, by name. There is no pipeline without a result
    """
    for resolved in model.built[model.result].values() if model.result else ():
        for target in (None, *(target for target in resolved.targets.values() if target.runs_here)):
            side = f"{resolved.recipe.name}.{target.name}" if target else resolved.recipe.name
            for name, precisions in model.built.items():
                if model.components[name].upstream:
                    fed = precisions[resolved.recipe.name]
                    own = fed.targets[target.name] if target else None
                    yield _chain(model, fed, own, side, verified[f"verify:{name}.{side}"])
            yield _compare(model, resolved, target, side)


def _chain(
    model: ResolvedModel, resolved: ResolvedPrecision, target: ResolvedTarget | None, side: str, verified: Action
) -> Action:
    """Return the action that runs a component on what those before it computed: as `verified` runs it on recordings."""
    component = resolved.component
    return replace(
        verified,
        name=f"chain:{component.spec.name}.{side}",
        stage="chain",
        arguments=ChainParams(
            component=component.spec.name,
            precision=resolved.recipe.name,
            backend=target.backend.name if target else None,
            options=target.options if target else {},
            profiles=target.profiles if target else (),
            row_dim=component.row_dim if target and target.backend.uses_profiles else None,
            inputs=tuple(tensor.name for tensor in component.spec.inputs),
            feeds=component.feeds,
        ),
        inputs={role: source for role, source in verified.inputs.items() if role in ("onnx", "built")}
        | {chain.GIVEN: Input(SAMPLES)}
        | {name: _computed(model, name, side) for name in component.upstream},
        recipe=("stages.chain", *(name for name in verified.recipe if name != "stages.verify")),
    )


def _compare(model: ResolvedModel, resolved: ResolvedPrecision, target: ResolvedTarget | None, side: str) -> Action:
    """Return the action that compares what is found in the pictures."""
    family, result = model.family.name, resolved.component.spec.name
    return Action(
        name=f"compare:{side}",
        stage="compare",
        arguments=CompareParams(
            family=family,
            precision=resolved.recipe.name,
            # The backend, and not the target's name: two names for one thing are one key.
            target=f"{target.backend.name if target else GRAPH} {resolved.recipe.name}",
            parity=resolved.parity(target),
            score_threshold=model.score_threshold,
            samples=model.samples,
        ),
        inputs={
            SAMPLES: Input(SAMPLES),
            "reference": Input(f"reference:{result}"),
            "actual": _computed(model, result, side),
        },
        files=model.pictures,
        recipe=("stages.compare", f"families.{family}.instances"),
        tools=registry.stage("compare").tools,
        view={SHEET: f"{PIPELINE}/overlay.{side}.png"},
    )


def _computed(model: ResolvedModel, name: str, side: str) -> Input:
    """Return what holds the outputs of a component on one side; of one that is not built, PyTorch's."""
    if name not in model.built:
        return Input(f"reference:{name}")
    return Input(f"{'chain' if model.components[name].upstream else 'verify'}:{name}.{side}")
