"""A night: a session and a clock in; all that is stale built, judged and published, told in `nightly/<date>.json`, out.

It goes on past failures, and leaves out only what depends on one. What it comes to is its exit code.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TextIO

from sam3_build.compare.dependencies import Judged
from sam3_build.errors import BuildError
from sam3_build.execution.local import Outcome, execute, is_fresh, log_path, readable
from sam3_build.execution.session import Session, this_gpu
from sam3_build.machine.toolchain import version
from sam3_build.plan.engines import wants_device
from sam3_build.publish import nights
from sam3_build.publish.checks import Cause
from sam3_build.publish.targets import Published, Status, publish, refusal, render
from sam3_build.report.table import Counts
from sam3_build.report.verdicts import tell
from sam3_build.spec import Action, Json
from sam3_build.store.explain import explain_due
from sam3_build.store.objects import hold

# What a night comes to. This machine's limits are no failure: otherwise no machine would ever have a good night.
GOOD, BAD_GATE, BAD_BUILD = 0, 1, 2

# Reasons that another machine may not have; every other one is somebody's to mend.
_LIMITS = (Cause.NOT_RUN, Cause.BLOCKED)


@dataclass
class _Built:
    """What became of the actions, each under its own name; `outcomes` is what doit's reporter counts."""

    outcomes: dict[str, Outcome]
    built: list[Json] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)


def night(session: Session, now: Callable[[], datetime], outcomes: dict[str, Outcome], out: TextIO) -> int:
    """Build, judge and publish, tell it to `out` and in the night's file, and return GOOD, BAD_GATE or BAD_BUILD.

    now: the clock; the night is called after the date on which it began there. StoreError when nothing can be written
    """
    began = now()
    session.ownership.claim()
    path = session.view.root / "nightly" / f"{began.date().isoformat()}.json"
    earlier = nights.before(path, out.write)
    nights.runs(path)  # what cannot be read is better said now than after hours
    made = _build(session, outcomes, out)
    found, counts = tell(session, out)
    done = publish(session, found, list(session.manifest.targets))
    out.write(render(done))
    if refused := refusal(done):
        out.write(f"{refused}\n")
    code = _code(made, counts, done)
    run = {
        "began": began.isoformat(timespec="seconds"),
        "seconds": round((now() - began).total_seconds(), 3),
        "exit_code": code,
        **_machine(session),
        **_told(session, made, found, counts, done),
    }
    since = nights.changes(earlier[1], run) if earlier else None
    with hold(session.view.root.with_name(f".{session.view.root.name}.nightly.lock"), fcntl.LOCK_EX):
        nights.append(path, {**run, "since": {"date": earlier[0], **since} if earlier and since else None})
    if earlier and since:
        said = list(nights.lines(since))
        out.write("".join(f"{line}\n" for line in (f"since {earlier[0]}:" + ("" if said else " nothing"), *said)))
    out.write(
        f"{readable(path)}: {len(made.built)} built, {len(made.fresh)} fresh, {len(made.failed)} FAILED; {counts}\n"
    )
    return code


def verdict(code: int) -> str:
    """Return in words what a night that is not GOOD came to."""
    return {BAD_GATE: "a gate failed, or a target cannot be published", BAD_BUILD: "a build failed"}[code]


def _code(made: _Built, counts: Counts, done: list[Published]) -> int:
    if made.failed:
        return BAD_BUILD
    refused = {reason.kind for p in done if p.is_refused for reason in p.reasons}
    return BAD_GATE if counts.failed or counts.not_judged or refused.difference(_LIMITS) else GOOD


# ------------------------------------------------------------------ building


def _build(session: Session, outcomes: dict[str, Outcome], out: TextIO) -> _Built:
    """Make every action fresh that can be, in the plan's order."""
    made = _Built(outcomes)
    for action in session.plan.actions:
        causes = [source.action for source in action.inputs.values() if source.action in _gone(made)]
        if action.blocked:
            made.blocked[action.name] = action.blocked
        elif causes:
            made.skipped[action.name] = made.skipped.get(causes[0], causes[0])
        else:
            _make(session, action, made, out)
    return made


def _gone(made: _Built) -> set[str]:
    return {*made.failed, *made.skipped, *made.blocked}


def _make(session: Session, action: Action, made: _Built, out: TextIO) -> None:
    try:
        if is_fresh(action, session):
            made.fresh.append(action.name)
            return
        if causes := [name for name in action.after if name in _gone(made)]:
            made.skipped[action.name] = made.skipped.get(causes[0], causes[0])
            return
        because = explain_due(action, session.plan, session.store, session.resolver, session.view).because
        out.write(f"  run       {action.name:<40} {readable(log_path(session.view, action))}\n")
        out.flush()
        outcome = made.outcomes[action.name] = execute(action, session)
    except (BuildError, OSError) as error:
        made.failed[action.name] = str(error)
        out.write(f"  FAILED    {action.name}\n{error}\n")
        return
    out.write(f"  {outcome.how:<8}  {action.name:<40} {outcome.seconds:7.1f} s\n")
    if outcome.how == "built":
        made.built.append({"action": action.name, "because": list(because), "seconds": round(outcome.seconds, 3)})
    else:
        made.restored.append(action.name)


# ------------------------------------------------------------------ telling


def _machine(session: Session) -> dict[str, Json]:
    gpu = this_gpu(session.view.root.parent, os.environ)[0] if wants_device(session.manifest) else None
    known: Mapping[str, Json] | None = {"name": gpu.gpu_class["name"], "driver": gpu.driver} if gpu else None
    return {"gpu": known, "sam3_build": version("sam3-build"), "manifest": session.plan.manifest}


def _told(session: Session, made: _Built, found: Judged, counts: Counts, done: list[Published]) -> dict[str, Json]:
    answers = {action.name: session.resolver.resolve(action.name).record for action in session.plan.actions}
    return {
        "built": made.built,
        "restored": made.restored,
        "fresh": len(made.fresh),
        "failed": [{"action": name, "error": error} for name, error in made.failed.items()],
        "skipped": [{"action": name, "because_of": cause} for name, cause in made.skipped.items()],
        "blocked": [{"action": name, "because": why} for name, why in made.blocked.items()],
        "counts": asdict(counts),
        "verdicts": nights.verdicts(found),
        "published": [_target(p) for p in done],
        "outputs": nights.outputs({name: record for name, record in answers.items() if record}),
    }


def _target(p: Published) -> Json:
    """Return a target as the night's file tells it. `holds`: what people find in its folder, now that this is done."""
    fine = "unverified" if p.reasons else "verified"
    holds = fine if not p.is_refused else ("an earlier state" if Path(p.folder).is_dir() else "nothing")
    holds = "what nobody judges" if p.state == Status.ORPHANED else holds
    reasons: list[Json] = [asdict(reason) for reason in p.reasons]
    return {"target": p.target, "state": p.state, "holds": holds, "bytes": p.size, "reasons": reasons}
