"""Explain: a plan and the store in; why each action is stale, and what a build will write, out. Reads records only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.resolve import Answer, Resolver
from sam3_build.spec import Action, Json, Plan
from sam3_build.store import Record, Store

# Inputs and source files are compared by digest; so many characters of one say enough.
_SHORT = 12


@dataclass(frozen=True)
class Difference:
    """One field of a key's document that is not what it was. `None` stands for "was not there"."""

    field: str
    old: Json
    new: Json

    def __str__(self) -> str:
        """Say the difference as people read it: `tools.torch: 2.13.0 -> 2.14.0`."""
        return f"{self.field}: {_brief(self.old)} -> {_brief(self.new)}"


@dataclass(frozen=True)
class Explanation:
    """The state of one action and why; `bytes_needed` is None where nothing is known of its size yet."""

    action: str
    state: str
    because: tuple[str, ...]
    differences: tuple[Difference, ...]
    bytes_needed: int | None


def explain_plan(plan: Plan, store: Store, resolver: Resolver) -> tuple[Explanation, ...]:
    """Return the explanation of every action of the plan, in order."""
    return tuple(_explain(action, _last_record(store, plan, action), resolver) for action in plan.actions)


def explain_action(name: str, plan: Plan, store: Store, resolver: Resolver) -> Explanation:
    """Return the explanation of the action called `name`. BuildError when the plan has no such action."""
    names = [action.name for action in plan.actions]
    if name not in names:
        raise BuildError(f"manifest {plan.manifest!r} has no action {name!r}{did_you_mean(name, names)}")
    action = plan.action(name)
    return _explain(action, _last_record(store, plan, action), resolver)


def _explain(action: Action, last: Record | None, resolver: Resolver) -> Explanation:
    answer = resolver.resolve(action.name)
    if answer.state == "fresh":
        return Explanation(action.name, "fresh", (), (), 0)
    if answer.state == "blocked":
        return Explanation(action.name, "blocked", (str(action.blocked),), (), 0)
    needed = last.size if last else None
    if answer.state == "pending":
        return Explanation(action.name, "pending", tuple(f"waits for {n}" for n in answer.waits_for), (), needed)
    changes = tuple(differences(last.document, answer.document or {})) if last else ()
    return Explanation(action.name, "stale", tuple(_because(answer, last, changes, action)), changes, needed)


def _last_record(store: Store, plan: Plan, action: Action) -> Record | None:
    for key in store.history(plan.manifest, action.name):
        if record := store.record(key):
            return record
    return None


def _because(answer: Answer, last: Record | None, changes: tuple[Difference, ...], action: Action) -> Iterator[str]:
    if last is None:
        yield "never built"
    elif last.key == answer.key:
        yield "its output in the store is missing or damaged"
    for change in changes:
        kind, _, role = change.field.partition(".")
        cause = (
            f" ({action.inputs[role].action} produced something else)"
            if kind == "inputs" and role in action.inputs
            else ""
        )
        yield f"{change}{cause}"


def differences(old: Json, new: Json, field: str = "") -> Iterator[Difference]:
    """Yield the fields in which two documents differ, named by their path (`params.profiles.0.batch`)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{field}.{name}".removeprefix("."))
    elif (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and any(isinstance(i, dict) for i in new)
    ):
        for position, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{field}.{position}")
    elif old != new:
        yield Difference(field, old, new)


def _brief(value: Json) -> str:
    if value is None:
        return "absent"
    if isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value):
        return value[:_SHORT]
    return str(value)
