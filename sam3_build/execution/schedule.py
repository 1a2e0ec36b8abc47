"""Runs the actions of a session's plan in their order, each when what it needs is fresh. Whatever is no doit task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sam3_build.errors import BuildError
from sam3_build.execution.local import How, Outcome, execute, is_fresh
from sam3_build.execution.session import Session
from sam3_build.machine import toolchain
from sam3_build.spec import Action, Input, Plan
from sam3_build.store.resolve import Resolver


def restrict(session: Session, plan: Plan, asked: Sequence[Action]) -> Session:
    """Return a session whose plan is `asked` and what they need in `plan`; actions that `plan` lacks come last."""
    known = {action.name: action for action in plan.actions}
    wanted: set[str] = set()
    queue = list(asked)
    while queue:
        if (action := queue.pop()).name not in wanted:
            wanted.add(action.name)
            read = [source for source in action.reads.values() if isinstance(source, Input)]
            queue += [known[name] for name in action.after]
            queue += [known[source.action] for source in (*action.inputs.values(), *read)]
    needed = (action for action in plan.actions if action.name in wanted)
    plan = replace(plan, actions=(*needed, *(action for action in asked if action.name not in known)))
    return replace(session, plan=plan, resolver=Resolver(plan, session.store, toolchain.version))


def run(
    session: Session,
    started: Callable[[Action], None] = lambda action: None,
    ended: Callable[[Action, Outcome], None] = lambda action, outcome: None,
    *,
    keep_going: bool = False,
) -> dict[str, Outcome]:
    """Make every action of the session's plan fresh and shown, one after another; return what became of each, by name.

    started, ended: are given each action that is not fresh before it runs, and the outcome of every action
    keep_going: skip what needs an action that failed or is blocked; else the first BuildError or OSError is raised
    """
    outcomes: dict[str, Outcome] = {}
    roots: dict[str, str] = {}  # what is not there -> the failed or blocked action that it needs, or itself
    for action in session.plan.actions:
        try:
            outcome = _run(action, session, roots, started)
        except (BuildError, OSError) as error:
            if not keep_going:
                raise
            outcome = (
                Outcome(How.BLOCKED, why=action.blocked) if action.blocked else Outcome(How.FAILED, why=str(error))
            )
        if outcome.how in (How.FAILED, How.SKIPPED, How.BLOCKED):
            roots[action.name] = outcome.why if outcome.how == How.SKIPPED else action.name
        outcomes[action.name] = outcome
        ended(action, outcome)
    return outcomes


def _run(action: Action, session: Session, roots: Mapping[str, str], started: Callable[[Action], None]) -> Outcome:
    if not action.blocked:
        if root := next((roots[source.action] for source in action.inputs.values() if source.action in roots), None):
            return Outcome(How.SKIPPED, why=root)
        if is_fresh(action, session):
            return Outcome(How.FRESH)
        if root := next((roots[name] for name in action.after if name in roots), None):
            return Outcome(How.SKIPPED, why=root)
        started(action)
    return execute(action, session)
