"""Takes an action's record; refuses it where its facts say that what the plan uses of its output cannot be used.

A stage writes `refused` into its facts: a name -> why nothing may be made of it. The record is kept and fresh for every
manifest that uses other parts of the output, so it is held against `Action.uses` whenever it is found, and not once.
"""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import ActionError, BuildError
from sam3_build.execution.session import Session
from sam3_build.spec import Action
from sam3_build.store.objects import Record

# The name in a record's facts.
REFUSED = "refused"


def problems(action: Action, record: Record) -> list[str]:
    """Return a message for each part of an output that the plan uses and its record refuses, in the plan's order."""
    refused = record.facts.get(REFUSED, {})
    assert isinstance(refused, Mapping)
    return [f"{name}: {refused[name]}" for name in action.uses if name in refused]


def refuse_unusable(action: Action, record: Record) -> None:
    """Do nothing where all can be used that the plan uses; else raise an ActionError with all messages."""
    if found := problems(action, record):
        raise ActionError("\n".join(f"{action.name}: {message}" for message in found))


def refuse_unusable_records(session: Session) -> None:
    """Do the same for every action of the session's plan that has a record. Runs nothing."""
    for action in session.plan.actions:
        if not action.uses:
            continue
        try:
            record = session.resolver.resolve(action.name).record
        except BuildError:
            continue  # a file of it cannot be read: its own message follows
        if record:
            refuse_unusable(action, record)
