"""A plan and actions that a command asks for in; a session of these and of what they rest upon, and what to run, out.

`search` and `localize` make actions up that no plan of doit holds. Runs nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sam3_build.execution.session import Session
from sam3_build.machine import toolchain
from sam3_build.spec import Action, Input, Plan
from sam3_build.store.resolve import Resolver, State


def session_of(session: Session, plan: Plan, asked: Sequence[Action]) -> Session:
    """Return a session whose plan is what `asked` rest upon in `plan`, and `asked`: those that it lacks come last."""
    known = {action.name: action for action in plan.actions}
    wanted: set[str] = set()
    queue = list(asked)
    while queue:
        if (action := queue.pop()).name not in wanted:
            wanted.add(action.name)
            queue += [known[name] for name in _sources(action)]
    held = (action for action in plan.actions if action.name in wanted)
    plan = replace(plan, actions=(*held, *(action for action in asked if action.name not in known)))
    return replace(session, plan=plan, resolver=Resolver(plan, session.store, toolchain.version))


def _sources(action: Action) -> tuple[str, ...]:
    read = (source for source in action.reads.values() if isinstance(source, Input))
    return (*action.after, *(source.action for source in (*action.inputs.values(), *read)))


def stale(session: Session) -> Iterator[Action]:
    """Yield each action of the plan that is not fresh when it is due. The caller runs it before it asks for more."""
    for action in session.plan.actions:
        if session.resolver.resolve(action.name).state != State.FRESH:
            yield action
