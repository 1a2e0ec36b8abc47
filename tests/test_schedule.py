"""The order in which commands and nights run actions, what they skip after a failure, and where they stop."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from sam3_build.documents import Params
from sam3_build.errors import ActionError
from sam3_build.execution import schedule
from sam3_build.execution.local import How, Outcome
from sam3_build.execution.session import Session
from sam3_build.spec import Action, Input, Plan


def action(name: str, *needs: str, after: tuple[str, ...] = ()) -> Action:
    return Action(name, name, Params(), (), (), inputs={need: Input(need) for need in needs}, after=after)


# samples <- export (an order alone) <- build; reference needs samples, other needs nothing.
ACTIONS = (
    action("samples"),
    action("reference", "samples"),
    action("export", after=("samples",)),
    action("build", "export"),
    action("other"),
)


class World:
    """A session whose actions are fresh, or fail, or are built."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *actions: Action, fresh: str = "", failing: str = "") -> None:
        self.ran: list[str] = []
        self.failing = failing
        self.session = cast(Session, SimpleNamespace(plan=Plan("toy", actions, ())))
        monkeypatch.setattr(schedule, "is_fresh", lambda action, session: action.name == fresh)
        monkeypatch.setattr(schedule, "execute", self.execute)

    def execute(self, action: Action, session: Session) -> Outcome:
        if action.blocked:
            raise ActionError(f"{action.name} is blocked: {action.blocked}")
        self.ran.append(action.name)
        if action.name == self.failing:
            raise ActionError(f"{action.name} failed")
        return Outcome(How.BUILT, 1.0)


def test_a_failure_skips_what_needs_it_and_names_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, *ACTIONS, failing="samples")
    ended: dict[str, Outcome] = {}
    outcomes = schedule.run(world.session, ended=lambda a, outcome: ended.update({a.name: outcome}), keep_going=True)
    assert world.ran == ["samples", "other"]
    assert (
        outcomes
        == ended
        == {
            "samples": Outcome(How.FAILED, why="samples failed"),
            "reference": Outcome(How.SKIPPED, why="samples"),
            "export": Outcome(How.SKIPPED, why="samples"),
            "build": Outcome(How.SKIPPED, why="samples"),
            "other": Outcome(How.BUILT, 1.0),
        }
    )


def test_what_is_fresh_stays_so_after_a_failure_that_it_only_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, *ACTIONS, fresh="export", failing="samples")
    outcomes = schedule.run(world.session, keep_going=True)
    assert [outcomes[name].how for name in ("export", "build")] == [How.FRESH, How.BUILT]


def test_without_keep_going_the_first_error_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, *ACTIONS, failing="export")
    started: list[str] = []
    with pytest.raises(ActionError, match="export failed"):
        schedule.run(world.session, started=lambda a: started.append(a.name))
    assert started == world.ran == ["samples", "reference", "export"]


def test_a_blocked_action_is_skipped_over_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = replace(action("export"), blocked="no GPU")
    world = World(monkeypatch, blocked, action("build", "export"), action("other"))
    started: list[str] = []
    outcomes = schedule.run(world.session, started=lambda a: started.append(a.name), keep_going=True)
    assert list(outcomes.values()) == [
        Outcome(How.BLOCKED, why="no GPU"),
        Outcome(How.SKIPPED, why="export"),
        Outcome(How.BUILT, 1.0),
    ]
    assert started == ["other"]
    with pytest.raises(ActionError, match="export is blocked: no GPU"):
        schedule.run(world.session)
