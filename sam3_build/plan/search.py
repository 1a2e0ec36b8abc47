"""What a search adds to a plan: the ranges of a component, a trial for each set of FP32 nodes, and a lock. Pure.

ranges:<component>.<precision>                    which nodes may be low, and how large their tensors become
trial:<component>.<precision>.<digest of the set> statistics of the graph with these nodes in FP32

Nothing depends on these, and no plan of doit holds them: a search makes them one after another. A trial's name is its
set, so that the history of its name keeps it through garbage collection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sam3_build import registry
from sam3_build.digest import digest
from sam3_build.manifest.types import Lock, Manifest
from sam3_build.params import PrecisionParams, RangesParams, TrialParams, VerifyParams
from sam3_build.spec import BASELINE, Action, Input, Plan


def with_lock(manifest: Manifest, component: str, precision: str, lock: Lock | None) -> Manifest:
    """Return the manifest with another lock for a component in a precision, or (None) without one."""
    locks = {name: dict(held) for name, held in manifest.locks.items()}
    locks.setdefault(component, {}).pop(precision, None)
    if lock:
        locks[component][precision] = lock
    return replace(manifest, locks=locks)


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


def trial(plan: Plan, component: str, precision: str, cases: int | None) -> Action:
    """Return the action that measures the graph with the nodes in FP32 that the plan's lock keeps so.

    With the baseline as `precision` it is the graph in which all of them are.
    """
    stem = f"{component}.{precision}"
    typed, measured = plan.action(f"precision:{stem}"), plan.action(f"verify:{stem}")
    name = digest([typed.params.get("locked"), cases])[:12]
    return Action(
        name=f"trial:{stem}.{name}",
        stage="trial",
        arguments=TrialParams(
            component=component,
            precision=precision,
            typed=PrecisionParams.of({**typed.params, "require_low": False}),
            measured=VerifyParams(component=component, precision=precision, keep_outputs=False, rows=0),
            cases=cases,
        ),
        inputs={**measured.inputs, "baseline": Input(f"verify:{component}.{BASELINE}"), **typed.inputs},
        recipe=("stages.trial", *_each_once(*typed.recipe, *measured.recipe)),
        tools=_each_once(*registry.stage("trial").tools, *typed.tools, *measured.tools),
    )


def _each_once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def lock_of(graph: str, nodes: Iterable[str]) -> Lock | None:
    """Return the lock that keeps `nodes` of a graph; None for no nodes."""
    names = tuple(sorted(nodes))
    return Lock(graph, names) if names else None
