"""Takes a session and a clock; builds all that is stale, judges and publishes it, and writes `nightly/<date>.json`.

It goes on past failures and skips only what depends on one. Returns an exit code.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TextIO

from sam3_build.compare.dependencies import Judged
from sam3_build.execution import schedule
from sam3_build.execution.local import How, Outcome, log_path, readable
from sam3_build.execution.session import Session, this_gpu
from sam3_build.machine.toolchain import version
from sam3_build.plan.resolve import wants_device
from sam3_build.publish import nights
from sam3_build.publish.outcome import Published, Status, refusal, render
from sam3_build.publish.reasons import Cause
from sam3_build.publish.targets import publish
from sam3_build.report.table import Counts
from sam3_build.report.verdicts import tell
from sam3_build.spec import Action, Json
from sam3_build.store.explain import explain_due
from sam3_build.store.writing import hold

# Exit codes. This machine's limits are no failure: otherwise no machine would ever have a good night.
GOOD, BAD_GATE, BAD_BUILD = 0, 1, 2
MEANING = {BAD_GATE: "a gate failed, or a target cannot be published", BAD_BUILD: "a build failed"}

# Reasons that another machine may not have, or none could mend; every other one is somebody's to mend.
_LIMITS = (Cause.NOT_RUN, Cause.BLOCKED, Cause.UNSUITABLE)


def night(session: Session, now: Callable[[], datetime], outcomes: dict[str, Outcome], out: TextIO) -> int:
    """Build, judge and publish, print to `out`, write the night's file, and return GOOD, BAD_GATE or BAD_BUILD.

    The file is named after the date on which the night began by the clock `now`. `outcomes` gets each action that was
    built or restored, for doit's reporter. StoreError when nothing can be written
    """
    began = now()
    session.ownership.claim()
    path = session.view.root / "nightly" / f"{began.date().isoformat()}.json"
    earlier = nights.before(path, out.write)
    nights.runs(path)  # a file that cannot be read is reported now and not after hours
    because: dict[str, Sequence[str]] = {}
    ended = _build(session, outcomes, because, out)
    judged, counts = tell(session, out)
    done = publish(session, judged, list(session.manifest.targets))
    out.write(render(done))
    if refused := refusal(done):
        out.write(f"{refused}\n")
    number = Counter(outcome.how for outcome in ended.values())
    code = BAD_BUILD if number[How.FAILED] else _code(counts, done)
    run = {
        "began": began.isoformat(timespec="seconds"),
        "seconds": round((now() - began).total_seconds(), 3),
        "exit_code": code,
        **_machine(session),
        "counts": asdict(counts),
        **_contents(session, ended, because, judged, done),
    }
    since = nights.changes(earlier[1], run) if earlier else None
    with hold(session.view.root.with_name(f".{session.view.root.name}.nightly.lock"), fcntl.LOCK_EX):
        nights.append(path, {**run, "since": {"date": earlier[0], **since} if earlier and since else None})
    if earlier and since:
        changed = list(nights.lines(since))
        out.write("".join(f"{line}\n" for line in (f"since {earlier[0]}:" + ("" if changed else " nothing"), *changed)))
    actions = f"{number[How.BUILT]} built, {number[How.FRESH]} fresh, {number[How.FAILED]} FAILED"
    out.write(f"{readable(path)}: {actions}; {counts}\n")
    return code


def _code(counts: Counts, done: list[Published]) -> int:
    refused = {reason.kind for p in done if p.is_refused for reason in p.reasons}
    refused |= {reason.kind for p in done for reasons in p.withheld.values() for reason in reasons}
    return BAD_GATE if counts.failed or counts.not_judged or refused.difference(_LIMITS) else GOOD


# ------------------------------------------------------------------ building


def _build(
    session: Session, outcomes: dict[str, Outcome], because: dict[str, Sequence[str]], out: TextIO
) -> dict[str, Outcome]:
    """Make every action fresh that can be, in the plan's order; add to `because` why each ran."""

    def started(action: Action) -> None:
        because[action.name] = explain_due(action, session.plan, session.store, session.resolver, session.view).because
        out.write(f"  run       {action.name:<40} {readable(log_path(session.view, action))}\n")
        out.flush()

    def ended(action: Action, outcome: Outcome) -> None:
        if outcome.how == How.FAILED:
            out.write(f"  FAILED    {action.name}\n{outcome.why}\n")
        elif outcome.how in (How.BUILT, How.RESTORED):
            outcomes[action.name] = outcome
            out.write(f"  {outcome.how:<8}  {action.name:<40} {outcome.seconds:7.1f} s\n")

    return schedule.run(session, started, ended, keep_going=True)


# ------------------------------------------------------------------ what the file says


def _machine(session: Session) -> dict[str, Json]:
    gpu = this_gpu(session.view.root.parent, os.environ)[0] if wants_device(session.manifest) else None
    known: Mapping[str, Json] | None = {"name": gpu.gpu_class["name"], "driver": gpu.driver} if gpu else None
    return {"gpu": known, "sam3_build": version("sam3-build"), "manifest": session.plan.manifest}


def _contents(
    session: Session,
    outcomes: Mapping[str, Outcome],
    because: Mapping[str, Sequence[str]],
    judged: Judged,
    done: list[Published],
) -> dict[str, Json]:
    records = {action.name: session.resolver.resolve(action.name).record for action in session.plan.actions}

    def those(how: How) -> list[tuple[str, Outcome]]:
        return [(name, outcome) for name, outcome in outcomes.items() if outcome.how == how]

    return {
        "built": [
            {"action": name, "because": list(because[name]), "seconds": round(outcome.seconds, 3)}
            for name, outcome in those(How.BUILT)
        ],
        "restored": [name for name, _ in those(How.RESTORED)],
        "fresh": len(those(How.FRESH)),
        "failed": [{"action": name, "error": outcome.why} for name, outcome in those(How.FAILED)],
        "skipped": [{"action": name, "because_of": outcome.why} for name, outcome in those(How.SKIPPED)],
        "blocked": [{"action": name, "because": outcome.why} for name, outcome in those(How.BLOCKED)],
        "verdicts": nights.verdicts(judged),
        "published": [_target(p) for p in done],
        "outputs": nights.outputs({name: record for name, record in records.items() if record}),
    }


def _target(p: Published) -> Json:
    """Return a target's entry in the night's file. `holds`: what lies in its folder after this run."""
    fine = "unverified" if p.reasons else "verified"
    holds = fine if not p.is_refused else ("an earlier state" if Path(p.folder).is_dir() else "nothing")
    holds = "what nobody judges" if p.state == Status.ORPHANED else holds
    reasons: list[Json] = [asdict(reason) for reason in p.reasons]
    entry: dict[str, Json] = {"target": p.target, "state": p.state, "holds": holds, "bytes": p.size, "reasons": reasons}
    if p.withheld:
        entry["withheld"] = {label: [asdict(reason) for reason in found] for label, found in p.withheld.items()}
    return entry
