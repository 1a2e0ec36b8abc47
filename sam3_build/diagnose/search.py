"""Takes a component or pipeline and a precision, finds the nodes that must stay FP32 for its gates to pass, locks them.

The result is measured once more as `doit` will build it before it is written.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sam3_build.compare.judge import condition
from sam3_build.diagnose.delta_debugging import NOTHING, Nodes, minimal, one_by_one, starts
from sam3_build.diagnose.trials import Candidate, Goal, Locks, Runs, Say, Trials, failing
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.execution.local import readable
from sam3_build.execution.session import Session
from sam3_build.folders import write_atomically
from sam3_build.manifest.lock import lock_path
from sam3_build.manifest.lock_file import read_lock, with_entry
from sam3_build.spec import BASELINE, Json, Kind
from sam3_build.store.writing import hold, writing


@dataclass(frozen=True)
class SearchResult:
    """The nodes that stay FP32 of so many that could be low; sets tried, and how many actions ran for them."""

    nodes: tuple[Candidate, ...]
    candidates: int
    trials: int
    ran: int


def search(session: Session, goal: Goal, say: Say) -> SearchResult:
    """Find nodes none of which can be left out, write them to the manifest's lock file, and report line by line.

    BuildError when there is nothing to search, when no set passes, or when what was found does not pass as built.
    """
    _check(session, goal)
    runs = Runs(session, goal, say)
    trials = Trials(runs)
    names = list(trials.candidates)
    seeds = frozenset(name for name, node in trials.candidates.items() if node.document["beyond"])
    say(f"{goal.stem}: {len(names)} nodes can be low; rules on ranges and weights name {len(seeds)} of them")
    runs.say_how_long()
    kept = _minimal(trials, names, seeds, _locked(session, trials, goal))
    if kept is None:
        raise BuildError(
            f"{goal.stem}: its gates fail even with every node in FP32 ({trials.last}), so no set of FP32 nodes helps: "
            f"look at its tolerances; `sam3-build localize {runs.components[-1]} --precision {goal.precision}` shows "
            "where the error begins"
        )
    locks = trials.locks(kept)
    nodes = tuple(trials.candidates[name] for name in names if name in kept)
    found = SearchResult(nodes, len(names), len(trials.known), runs.ran)
    _require_that_it_passes(runs, locks)
    _write(session, goal, locks, _provenance(trials, runs))
    for line in _summary(session, found, runs):
        say(line)
    return replace(found, ran=runs.ran)


def _locked(session: Session, trials: Trials, goal: Goal) -> Nodes:
    """Return the candidates that the manifest's lock keeps in FP32 now."""
    locks = {name: of[goal.precision].keep_fp32 for name, of in session.manifest.locks.items() if goal.precision in of}
    return frozenset(name for name, one in trials.candidates.items() if one.node in locks.get(one.component, ()))


def _minimal(trials: Trials, names: Sequence[str], seeds: Nodes, locked: Nodes) -> Nodes | None:
    """Return a set that passes, none of which can be left out; None where no set passes.

    What is locked is near to one, whatever has changed since; any other start is far from it.
    """
    if not trials.passes(frozenset(), NOTHING) and locked and trials.passes(locked, "the lock"):
        return one_by_one(names, locked, trials.passes)
    begin = next((nodes for name, nodes in starts(names, seeds) if trials.passes(nodes, name)), None)
    return None if begin is None else minimal(names, begin, seeds, trials.passes)


def _check(session: Session, goal: Goal) -> None:
    """BuildError for a precision or target that the manifest does not have, or where nothing is to be kept."""
    manifest = session.manifest
    if goal.precision == BASELINE:
        raise BuildError(f"{BASELINE} is what others are compared with; search a reduced precision, such as fp16")
    if goal.precision not in manifest.precisions:
        hint = did_you_mean(goal.precision, [p for p in manifest.precisions if p != BASELINE])
        raise BuildError(f"manifest {manifest.name!r} does not build precision {goal.precision!r}{hint}")
    if goal.target is not None and goal.target not in manifest.targets:
        hint = did_you_mean(goal.target, manifest.targets)
        raise BuildError(f"manifest {manifest.name!r} has no target {goal.target!r}{hint}")
    if goal.cases is not None and goal.name not in manifest.components:
        raise BuildError("--cases counts recorded cases of a component; a pipeline is tried on all of its samples")


# ------------------------------------------------------------------ the result


def _require_that_it_passes(runs: Runs, locks: Locks) -> None:
    """Build and verify as `doit` will with these locks, in all pipelines. BuildError when a gate fails.

    That is every comparison of the components, of graphs and of the target's engines, then of the results of the
    pipelines that run them: nodes that its tensors' gates allow to be low may still lose an instance.
    """
    goal, plan = runs.goal, runs.plan(locks)
    by_name = {c.name: c for c in plan.comparisons if c.action}
    side = [c for c in by_name.values() if c.precision == goal.precision and c.target in (None, goal.target)]
    own = [c for c in side if c.component in runs.components and c.kind == Kind.PARITY]
    results = [c for c in side if c.kind == Kind.RESULT and {one.name for one in own} & set(c.depends_on)]
    for comparison in (*own, *results):
        others = [by_name[name] for name in comparison.depends_on if name in by_name and by_name[name] not in own]
        if wrong_one := next((c for c in others if failing(runs.judged(plan, c))), None):
            runs.say(f"  {comparison.name} is not judged, since {wrong_one.name} fails")
            continue
        if wrong := failing(runs.judged(plan, comparison)):
            more = f"; it was found on {goal.cases} of the cases: search with more of them" if goal.cases else ""
            raise BuildError(
                f"{goal.stem}: what was found does not pass as it is built, and no lock was written: "
                f"{comparison.label}: {wrong[0].output}: {wrong[0].reason}{more}"
            )


def _provenance(trials: Trials, runs: Runs) -> dict[str, dict[str, Json]]:
    """Return how each component's entry was found."""
    gates = {
        (f"{comparison.target} {output}" if comparison.target else output): ", ".join(
            f"{gate.metric} {condition(gate)}" for gate in comparison.gates[output]
        )
        for comparison in runs.judging
        for output in sorted(comparison.gates)
    }
    low = [candidate.component for candidate in trials.candidates.values()]
    return {
        component: {
            "nodes": low.count(component),
            "trials": len(trials.known),
            "cases": runs.cases(),
            "gates": gates,
        }
        for component in runs.components
    }


def _write(session: Session, goal: Goal, locks: Locks, provenance: Mapping[str, Mapping[str, Json]]) -> None:
    """Put the result into the lock file; a component without nodes loses its entry. An equal file is not written."""
    path = lock_path(session.manifest.path)
    with hold(session.view.root.with_name(f".{session.view.root.name}.lock"), fcntl.LOCK_EX), writing(path):
        manifest = session.manifest
        if wrong := read_lock(manifest.path, manifest.components, manifest.precisions).problems:
            raise BuildError(f"{path.name} was changed while it was searched, and cannot be read: {wrong[0].text}")
        before = after = path.read_bytes() if path.is_file() else None
        for component, lock in locks.items():
            of = provenance[component]
            entry = {**of, "graph": lock.graph, "keep_fp32": list(lock.keep_fp32)} if lock else None
            after = with_entry(after, component, goal.precision, entry)
        if after is None:
            path.unlink(missing_ok=True)
        elif after != before:
            write_atomically(path, after)


def _summary(session: Session, found: SearchResult, runs: Runs) -> Iterator[str]:
    goal, path = runs.goal, readable(lock_path(session.manifest.path))
    tried = f"{found.trials} {'set' if found.trials == 1 else 'sets'} tried, {runs.ran} actions run"
    if not found.nodes:
        is_locked = any(goal.precision in session.manifest.locks.get(name, {}) for name in runs.components)
        what = f"its entry is removed from {path}" if is_locked else "nothing to lock"
        yield f"{goal.stem} passes its gates with no node kept in FP32: {what}; {tried}"
        return
    count = f"{len(found.nodes)} of {found.candidates} nodes in FP32"
    yield f"{goal.stem} passes its gates with {count}, none of which can be left out:"
    for candidate in found.nodes:
        node = candidate.document
        reaches = f"{node['tensor']} reaches {node['largest']:.4g}"
        of = f"{candidate.component}: " if len(runs.components) > 1 else ""
        yield f"  {of}{candidate.node}  {node['beyond'] or 'within range'}, {reaches}"
    yield f"{path} holds them; {tried}"
