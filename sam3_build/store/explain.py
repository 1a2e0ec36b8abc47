"""Takes a plan and the store, returns why each action is stale and how much a build will write. Reads records only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.spec import Action, Json, Plan
from sam3_build.store.objects import Record, Store
from sam3_build.store.resolve import Answer, Resolver, State
from sam3_build.store.view import View

# Inputs and source files are compared by digest; so many characters of one say enough.
_SHORT = 12
# Of a longer list only the first entries are shown.
_MANY = 8


@dataclass(frozen=True)
class Difference:
    """One field of a key's document that is not what it was. `None` stands for "was not there"."""

    field: str
    old: Json
    new: Json

    def __str__(self) -> str:
        """Return the difference as text: `tools.torch: 2.13.0 -> 2.14.0`; of long lists, what came and went."""
        if isinstance(self.old, list) and isinstance(self.new, list) and max(len(self.old), len(self.new)) > _MANY:
            came, went = ([i for i in a if i not in b] for a, b in ((self.new, self.old), (self.old, self.new)))
            return f"{self.field}: {len(came)} more {brief(came)}, {len(went)} less {brief(went)}"
        return f"{self.field}: {brief(self.old)} -> {brief(self.new)}"


@dataclass(frozen=True)
class Explanation:
    """The state of one action and why; `bytes_needed` is what it adds to the store, None while unknown."""

    action: str
    state: State
    because: tuple[str, ...]
    differences: tuple[Difference, ...]
    bytes_needed: int | None


def explain_plan(plan: Plan, store: Store, resolver: Resolver, view: View) -> tuple[Explanation, ...]:
    """Return the explanation of every action of the plan, in order."""
    explained: dict[str, Explanation] = {}
    for action in plan.actions:  # what an action waits for stands before it
        explained[action.name] = _explain(action, plan, store, resolver, view, explained)
    return tuple(explained.values())


def explain_action(name: str, plan: Plan, store: Store, resolver: Resolver, view: View) -> Explanation:
    """Return the explanation of the action called `name`. BuildError when the plan has no such action."""
    names = [action.name for action in plan.actions]
    if name not in names:
        raise BuildError(f"manifest {plan.manifest!r} has no action {name!r}{did_you_mean(name, names)}")
    return {found.action: found for found in explain_plan(plan, store, resolver, view)}[name]


def explain_due(action: Action, plan: Plan, store: Store, resolver: Resolver, view: View) -> Explanation:
    """Return the explanation of an action whose inputs are all fresh, without looking at any other."""
    return _explain(action, plan, store, resolver, view, {})


def _explain(
    action: Action, plan: Plan, store: Store, resolver: Resolver, view: View, explained: Mapping[str, Explanation]
) -> Explanation:
    answer = resolver.resolve(action.name)
    if answer.record:
        shown = view.intact(action, answer.record)
        because = () if shown else ("a file of it below artifacts/ is missing or was changed: it will be restored",)
        return Explanation(action.name, State.FRESH, because, (), 0)
    if answer.state == State.BLOCKED:
        return Explanation(action.name, State.BLOCKED, (str(action.blocked),), (), 0)
    last = _last_record(store, plan, action)
    needed = last.size if last else _estimate(action, store, resolver)
    if answer.state == State.PENDING:
        return Explanation(action.name, State.PENDING, tuple(_waits(answer, plan, explained)), (), needed)
    changes = tuple(differences(last.document, answer.document or {})) if last else ()
    return Explanation(action.name, State.STALE, tuple(_because(answer, last, changes, action)), changes, needed)


def _last_record(store: Store, plan: Plan, action: Action) -> Record | None:
    for key in store.history(plan.manifest, action.name):
        if record := store.record(key):
            return record
    return None


# ------------------------------------------------------------------ why


def _because(answer: Answer, last: Record | None, changes: tuple[Difference, ...], action: Action) -> Iterator[str]:
    if last is None:
        yield "never built"
    elif last.key == answer.key:
        yield "its output in the store is missing or damaged"
    for change in changes:
        kind, _, role = change.field.partition(".")
        cause = (
            f" ({action.inputs[role].action} wrote something else)"
            if kind == "inputs" and role in action.inputs
            else ""
        )
        yield f"{change}{cause}"


def _waits(answer: Answer, plan: Plan, explained: Mapping[str, Explanation]) -> Iterator[str]:
    """Yield the nearest actions upstream that are themselves stale or blocked: what stands between is only waiting."""
    queue, seen = list(answer.waits_for), set(answer.waits_for)
    while queue:
        found = explained[queue.pop(0)]
        if found.state == State.PENDING:
            upstream = [source.action for source in plan.action(found.action).inputs.values()]
            new = [
                name for name in dict.fromkeys(upstream) if name not in seen and explained[name].state != State.FRESH
            ]
            seen.update(new)
            queue += new
        else:
            yield f"waits for {found.action} ({found.state}: {_summary(found)})"


def _summary(found: Explanation) -> str:
    """Return why an action is not fresh in a few words: what changed, and not to what where that is only a digest."""
    changes = [f"{d.field} changed" if _is_digest(d.old) and _is_digest(d.new) else str(d) for d in found.differences]
    first, *others = changes or found.because
    return f"{first}, and {len(others)} more" if others else first


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


def brief(value: Json) -> str:
    """Return a value as text; of a digest, as much as tells it from another."""
    if value is None:
        return "absent"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {brief(entry)}' for name, entry in value.items())}}}"
    if isinstance(value, list) and len(value) > _MANY:
        return f"[{', '.join(map(brief, value[:3]))}, ... {len(value)} in all]"
    return str(value)[:_SHORT] if _is_digest(value) else str(value)


def _is_digest(value: Json) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value)


# ------------------------------------------------------------------ how large


def _estimate(action: Action, store: Store, resolver: Resolver) -> int | None:
    """Return about how many bytes an action that was never built will write, None where the weights are not known.

    Graphs and engines are about as large as the component's weights, which the checkpoint's inventory lists.
    """
    weights = _weights(action, store, resolver)
    if weights is None or action.stage not in ("export", "simplify", "patch", "precision", "quantize", "build"):
        return None
    if any(name.endswith(".json") for name in action.view):
        return 0  # a description of what runs, next to nothing
    precision = action.params.get("precision")
    if precision is None:
        return weights * 4
    recipe = registry.precision(str(precision))
    return weights * (1 if recipe.quantizes else 2 if recipe.onnx_type in ("FLOAT16", "BFLOAT16") else 4)


def _weights(action: Action, store: Store, resolver: Resolver) -> int | None:
    """Return how many numbers the component's weights are, None before the checkpoint is read."""
    record = resolver.resolve("checkpoint").record
    inventory = f"{action.params.get('component')}.json"
    if record is None or inventory not in record.files:
        return None
    tensors = json.loads((store.object_path(record.object) / inventory).read_bytes()).get("tensors")
    return sum(math.prod(tensor["shape"]) for tensor in tensors.values()) if tensors else None
