"""What a search adds to a plan: the ranges of a component, a trial for each set of FP32 nodes, and locks. Pure.

ranges:<component>.<precision>                             which nodes may be low, and how large their tensors become
trial:<component>.<precision>[.<target>].<digest of the set>   statistics of a component with these nodes in FP32
trial:<precision>[.<target>].<digest of the set>               the same of a pipeline's result

Nothing depends on these, and no plan of doit holds them: a search makes them one after another. A trial's name is its
set, so that the history of its name keeps it through garbage collection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from sam3_build import registry
from sam3_build.digest import digest
from sam3_build.documents import Params
from sam3_build.manifest.types import Lock, Manifest
from sam3_build.params import CompareParams, PrecisionParams, RangesParams, TrialParams, TrialStep, VerifyParams
from sam3_build.spec import Action, Input, Json, Plan


def with_locks(manifest: Manifest, precision: str, locks: Mapping[str, Lock | None]) -> Manifest:
    """Return the manifest with other locks for components in a precision, or (None) without one."""
    held = {name: dict(of) for name, of in manifest.locks.items()}
    for component, lock in locks.items():
        held.setdefault(component, {}).pop(precision, None)
        if lock:
            held[component][precision] = lock
    return replace(manifest, locks=held)


def ranges(plan: Plan, component: str, precision: str, cases: int | None) -> Action:
    """Return the action that measures ranges. `plan` has no lock for this component and precision."""
    typed = plan.action(f"precision:{component}.{precision}")
    return Action(
        name=f"ranges:{component}.{precision}",
        stage="ranges",
        arguments=RangesParams(
            component=component, precision=precision, typed=PrecisionParams.of(typed.params), cases=cases
        ),
        inputs={**typed.inputs, "reference": plan.action(f"verify:{component}.{precision}").inputs["reference"]},
        recipe=("stages.ranges", *typed.recipe),
        tools=_each_once(*registry.stage("ranges").tools, *typed.tools),
    )


def trial(plan: Plan, measured: Action, typed: Collection[str], cases: int | None = None) -> Action:
    """Return the action that does in one worker what `measured` does, and all that leads to it from `typed`.

    typed: names of precision actions; the locks of the plan are the set that is tried
    """
    actions = _between(plan, typed, measured)
    names = {action.name for action in actions}
    steps = tuple(_step(action, names, is_last=action is measured) for action in actions)
    locks: Json = [[action.name, action.params.get("locked")] for action in actions if action.name in typed]
    return Action(
        name=f"trial:{measured.name.partition(':')[2]}.{digest([locks, cases])[:12]}",
        stage="trial",
        arguments=TrialParams(steps=steps, cases=cases),
        inputs={
            source: action.inputs[role]
            for action, step in zip(actions, steps, strict=True)
            for role, source in step.inputs.items()
            if role in action.inputs and action.inputs[role].action not in names
        },
        files={role: path for action in actions for role, path in action.files.items()},
        recipe=_each_once("stages.trial", *(name for action in actions for name in action.recipe)),
        tools=_each_once(*(tool for action in actions for tool in action.tools)),
        device={name: value for action in actions for name, value in action.device.items()},
        gpu=next((action.gpu for action in actions if action.gpu), None),
        processor=next((action.processor for action in actions if action.processor), None),
        env={name: value for action in actions for name, value in action.env.items()},
        blocked=next((action.blocked for action in actions if action.blocked), None),
    )


def _between(plan: Plan, typed: Collection[str], measured: Action) -> list[Action]:
    """Return the actions that lead from `typed` to `measured`, in the plan's order, both ends among them."""
    reached, needed = set(typed), {measured.name}
    for action in plan.actions:
        if any(source.action in reached for source in action.inputs.values()):
            reached.add(action.name)
    for action in reversed(plan.actions):
        if action.name in needed:
            needed.update(source.action for source in action.inputs.values())
    return [action for action in plan.actions if action.name in reached & needed]


def _step(action: Action, steps: Collection[str], *, is_last: bool) -> TrialStep:
    """Return an action as a step. steps: the names of all of them; what they do not make is an input of the trial."""
    arguments = _in_a_trial(action, is_last=is_last)
    needless = {"fp32"} if isinstance(arguments, VerifyParams) else set[str]()
    inputs = {
        role: _within(source) if source.action in steps else f"{role}_{action.name}"
        for role, source in action.inputs.items()
        if role not in needless
    }
    files = {role: role for role in action.files}
    return TrialStep(name=action.name, stage=action.stage, params=arguments.document(), inputs=inputs | files)


def _within(source: Input) -> str:
    return "/".join(part for part in (source.action, source.file or source.folder) if part)


def _in_a_trial(action: Action, *, is_last: bool) -> Params:
    """Return the parameters of an action where only values are measured, and nothing need become low."""
    arguments = action.arguments
    if isinstance(arguments, PrecisionParams):
        return PrecisionParams.of({**action.params, "require_low": False})
    if isinstance(arguments, VerifyParams):
        plain = {name: value for name, value in action.params.items() if name != "types"}
        return VerifyParams.of({**plain, "rows": 0, "keep_outputs": arguments.keep_outputs and not is_last})
    if isinstance(arguments, CompareParams):
        return CompareParams.of({**action.params, "draws": False})
    return arguments


def _each_once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def lock_of(graph: str, nodes: Iterable[str]) -> Lock | None:
    """Return the lock that keeps `nodes` of a graph; None for no nodes."""
    names = tuple(sorted(nodes))
    return Lock(graph, names) if names else None
