"""Takes a component and a precision, finds the nodes that must stay FP32 for its gates to pass, writes the lock file.

Sets are tried by ordinary actions, so that the store remembers each: an interrupted search goes on where it was, and a
second one runs nothing. The result is measured once more as `doit` will build it before it is written.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sam3_build import registry
from sam3_build.compare.judge import Row, Verdict, condition, judge
from sam3_build.diagnose.delta_debugging import Nodes, minimal, starts
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.execution import schedule
from sam3_build.execution.local import How, Outcome, readable
from sam3_build.execution.session import Session
from sam3_build.folders import write_atomically
from sam3_build.manifest.lock import lock_path
from sam3_build.manifest.lock_file import read_lock, with_entry
from sam3_build.manifest.types import Lock, Manifest
from sam3_build.plan.make import make_plan
from sam3_build.plan.search import lock_of, ranges, trial, with_lock
from sam3_build.report.text import duration
from sam3_build.spec import BASELINE, TYPES, Action, Comparison, Json, Kind, Plan
from sam3_build.store.objects import Record, hold, writing

# A trial that takes longer than this is worth a warning beforehand.
_LONG_SECONDS = 20
_USUAL_TRIALS = (10, 60)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Goal:
    """What is searched: a component in a precision, measured on the first `cases` recorded ones (None: on all)."""

    component: str
    precision: str
    cases: int | None = None

    @property
    def stem(self) -> str:
        """Return `<component>.<precision>`."""
        return f"{self.component}.{self.precision}"


@dataclass(frozen=True)
class SearchResult:
    """The nodes that stay FP32 of so many that could be low; sets tried, and how many actions ran for them."""

    nodes: tuple[str, ...]
    candidates: int
    trials: int
    ran: int


def search(session: Session, goal: Goal, say: Say) -> SearchResult:
    """Find nodes none of which can be left out, write them to the manifest's lock file, and report line by line.

    BuildError when there is nothing to search, when no set passes, or when what was found does not pass as built.
    """
    _check(session.manifest, goal)
    runs = _Runs(session, goal, say)
    trials = _Trials(runs)
    seeds = frozenset(name for name, node in trials.nodes.items() if node["beyond"])
    say(f"{goal.stem}: {len(trials.nodes)} nodes can be low; rules on ranges and weights name {len(seeds)} of them")
    runs.say_how_long()
    begin = next((nodes for name, nodes in starts(list(trials.nodes), seeds) if trials.passes(nodes, name)), None)
    if begin is None:
        raise BuildError(
            f"{goal.stem}: its gates fail even with every node in FP32 ({trials.last}), so no set of FP32 nodes helps: "
            f"look at its tolerances; `sam3-build localize {goal.component} --precision {goal.precision}` shows where "
            "the error begins"
        )
    kept = minimal(list(trials.nodes), begin, seeds, trials.passes)
    lock = lock_of(trials.graph, kept)
    found = SearchResult(tuple(n for n in trials.nodes if n in kept), len(trials.nodes), len(trials.known), runs.ran)
    _require_that_it_passes(runs, lock)
    _write(session, goal, lock, _provenance(found, runs))
    for line in _summary(session, goal, found, trials.nodes, runs):
        say(line)
    return replace(found, ran=runs.ran)


def _check(manifest: Manifest, goal: Goal) -> None:
    """BuildError for a component or precision that the manifest does not build, or that has nothing to be kept."""
    if goal.component not in manifest.components:
        hint = did_you_mean(goal.component, manifest.components)
        raise BuildError(f"manifest {manifest.name!r} has no component {goal.component!r}{hint}")
    if goal.precision == BASELINE:
        raise BuildError(f"{BASELINE} is what others are compared with; search a reduced precision, such as fp16")
    if goal.precision not in manifest.precisions:
        hint = did_you_mean(goal.precision, [p for p in manifest.precisions if p != BASELINE])
        raise BuildError(f"manifest {manifest.name!r} does not build precision {goal.precision!r}{hint}")
    if registry.precision(goal.precision).quantizes:
        raise BuildError(
            f"{goal.precision} quantizes; a search takes recipes that put nodes into a lower floating type"
        )


# ------------------------------------------------------------------ running


class _Runs:
    """Makes actions fresh, each in the plan that the manifest has with one lock or another."""

    def __init__(self, session: Session, goal: Goal, say: Say) -> None:
        """Plan as if `goal` had no lock, and run all that trials need."""
        self.goal = goal
        self.ran = 0
        self._session = session
        self.say = say
        bare = self.plan(None)
        self.comparison = _comparison(bare, goal.component, goal.precision)
        # A trial does not measure of what types a graph is: in many sets all products are FP32.
        values = tuple(output for output in self.comparison.outputs if output != TYPES)
        gates = {output: gates for output, gates in self.comparison.gates.items() if output != TYPES}
        self.of_values = replace(self.comparison, outputs=values, gates=gates)
        self.baseline = self.fresh(bare, bare.action(f"verify:{goal.component}.{BASELINE}"))
        fp32 = _comparison(bare, goal.component, BASELINE)
        if wrong := _failing(judge(fp32, self.statistics(self.baseline))):
            raise BuildError(
                f"{goal.component}.{BASELINE} fails its own gates, and a search would measure against it: "
                f"{wrong[0].output}: {wrong[0].reason}; run `doit verify`"
            )

    def plan(self, lock: Lock | None) -> Plan:
        """Return the plan of the manifest with another lock for what is searched."""
        goal = self.goal
        return make_plan(with_lock(self._session.manifest, goal.component, goal.precision, lock))

    def fresh(self, plan: Plan, action: Action) -> Record:
        """Return the record of `action`, after running it and what it needs where these are not fresh."""
        session = schedule.restrict(self._session, plan, [action])
        schedule.run(session, ended=self._ended)
        record = session.resolver.resolve(action.name).record
        assert record is not None
        return record

    def _ended(self, action: Action, outcome: Outcome) -> None:
        self.ran += outcome.how == How.BUILT
        if outcome.how != How.FRESH and action.stage != "trial":  # a trial is printed with its verdict
            self.say(f"  {outcome.how}  {action.name}  {outcome.seconds:.1f} s")

    def judged(self, plan: Plan, comparison: Comparison) -> tuple[Row, ...]:
        """Return the rows of a comparison of `plan`, after running what it needs."""
        return judge(comparison, self.statistics(self.fresh(plan, plan.action(str(comparison.action)))))

    def read(self, record: Record, file: str) -> Mapping[str, Json]:
        """Return a JSON file of what an action wrote."""
        found = json.loads((self._session.store.object_path(record.object) / file).read_bytes())
        assert isinstance(found, dict)
        return found

    def statistics(self, record: Record) -> Mapping[str, Json]:
        """Return what a trial or verify measured."""
        return self.read(record, "statistics.json")

    def say_how_long(self) -> None:
        """Warn of a search that will take long, by what the FP32 graph took."""
        seconds, cases = self.baseline.provenance.get("seconds"), self.baseline.facts.get("cases")
        if not isinstance(seconds, int | float) or not isinstance(cases, int):
            return
        one = seconds * min(self.goal.cases or cases, cases) / cases
        if one > _LONG_SECONDS:
            low, high = _USUAL_TRIALS
            self.say(
                f"  a trial takes {duration(one)} or more (verify:{self.goal.component}.{BASELINE} took "
                f"{duration(seconds)}), and a search makes some {low} to {high} of them: {duration(one * low)} to "
                f"{duration(one * high)}. Interrupt it whenever you "
                "like: the same command goes on. --cases 1 makes a trial shorter"
            )


class _Trials:
    """Tries sets of nodes, each once: the test that a reduction asks."""

    def __init__(self, runs: _Runs) -> None:
        self.known: dict[Nodes, bool] = {}
        self.last = ""
        self._runs = runs
        goal, bare = runs.goal, runs.plan(None)
        measured = runs.read(runs.fresh(bare, ranges(bare, goal.component, goal.precision, goal.cases)), "ranges.json")
        listed = measured["nodes"]
        assert isinstance(listed, Sequence)
        self.graph = str(measured["graph"])
        self.nodes: dict[str, Mapping[str, Json]] = {}
        for node in listed:
            assert isinstance(node, Mapping)
            self.nodes[str(node["name"])] = node

    def passes(self, nodes: Nodes, name: str = "") -> bool:
        """Tell whether every gate passes with `nodes` in FP32; say what came out, and what the set is."""
        if nodes not in self.known:
            self.known[nodes] = self._passes(nodes, f" ({name})" if name else "")
        return self.known[nodes]

    def _passes(self, nodes: Nodes, name: str) -> bool:
        goal, runs = self._runs.goal, self._runs
        everything = len(nodes) == len(self.nodes)
        plan = runs.plan(None if everything else lock_of(self.graph, nodes))
        before = runs.ran
        precision = BASELINE if everything else goal.precision
        record = runs.fresh(plan, trial(plan, goal.component, precision, goal.cases))
        rows = judge(runs.of_values, runs.statistics(record))
        wrong = _failing(rows)
        assert wrong or any(row.verdict == Verdict.PASS for row in rows), "a trial that nothing judges proves nothing"
        self.last = f"{wrong[0].output}: {wrong[0].reason}" if wrong else ""
        took = f"{record.provenance.get('seconds')} s" if runs.ran > before else "known"
        verdict = f"fails, {self.last}" if wrong else "passes"
        runs.say(f"  trial {len(self.known) + 1:>3}  {len(nodes):>4} nodes in FP32{name}: {verdict} ({took})")
        return not wrong


def _comparison(plan: Plan, component: str, precision: str) -> Comparison:
    """Return the comparison of a component's graph on ONNX Runtime's CPU; BuildError where no sample runs it."""
    wanted = (component, precision, None, Kind.PARITY)
    found = [c for c in plan.comparisons if (c.component, c.precision, c.target, c.kind) == wanted]
    measured = [c for c in found if c.action]  # some only say what cannot be run
    if not measured:
        raise BuildError(f"{component}.{precision} cannot be measured: {found[0].not_run}")
    return measured[0]


def _failing(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that fail, NaN and infinities first: they are why other metrics could not be measured."""
    return sorted((row for row in rows if row.verdict == Verdict.FAIL), key=lambda row: row.metric != "nonfinite")


# ------------------------------------------------------------------ the result


def _require_that_it_passes(runs: _Runs, lock: Lock | None) -> None:
    """Build and verify as `doit` will with this lock, in all pipelines. BuildError when a gate fails.

    That is every comparison of the component's graph, then of the results of the pipelines that run it: nodes that its
    tensors' gates allow to be low may still lose an instance.
    """
    goal, plan = runs.goal, runs.plan(lock)
    by_name = {c.name: c for c in plan.comparisons if c.action}
    side = [c for c in by_name.values() if (c.precision, c.target) == (goal.precision, None)]
    own = [c for c in side if c.component == goal.component and c.kind == Kind.PARITY]
    results = [c for c in side if c.kind == Kind.RESULT and {one.name for one in own} & set(c.depends_on)]
    for comparison in (*own, *results):
        others = [by_name[name] for name in comparison.depends_on if name in by_name and by_name[name] not in own]
        if failing := next((c for c in others if _failing(runs.judged(plan, c))), None):
            runs.say(f"  {comparison.name} is not judged, since {failing.name} fails")
            continue
        if wrong := _failing(runs.judged(plan, comparison)):
            more = f"; it was found on {goal.cases} of the cases: search with more of them" if goal.cases else ""
            raise BuildError(
                f"{goal.stem}: what was found does not pass as it is built, and no lock was written: "
                f"{comparison.label}: {wrong[0].output}: {wrong[0].reason}{more}"
            )


def _provenance(found: SearchResult, runs: _Runs) -> dict[str, Json]:
    cases = runs.baseline.facts.get("cases")
    assert isinstance(cases, int)
    gates = runs.of_values.gates
    return {
        "nodes": found.candidates,
        "trials": found.trials,
        "cases": min(runs.goal.cases or cases, cases),
        "gates": {output: ", ".join(f"{g.metric} {condition(g)}" for g in gates[output]) for output in sorted(gates)},
    }


def _write(session: Session, goal: Goal, lock: Lock | None, provenance: Mapping[str, Json]) -> None:
    """Put the result into the lock file; without nodes, remove its entry. An equal file is not written."""
    path = lock_path(session.manifest.path)
    entry = {**provenance, "graph": lock.graph, "keep_fp32": list(lock.keep_fp32)} if lock else None
    with hold(session.view.root.with_name(f".{session.view.root.name}.lock"), fcntl.LOCK_EX), writing(path):
        manifest = session.manifest
        if wrong := read_lock(manifest.path, manifest.components, manifest.precisions).problems:
            raise BuildError(f"{path.name} was changed while it was searched, and cannot be read: {wrong[0].text}")
        before = path.read_bytes() if path.is_file() else None
        after = with_entry(before, goal.component, goal.precision, entry)
        if after is None:
            path.unlink(missing_ok=True)
        elif after != before:
            write_atomically(path, after)


def _summary(
    session: Session, goal: Goal, found: SearchResult, nodes: Mapping[str, Mapping[str, Json]], runs: _Runs
) -> Iterator[str]:
    path = readable(lock_path(session.manifest.path))
    tried = f"{found.trials} {'set' if found.trials == 1 else 'sets'} tried, {runs.ran} actions run"
    if not found.nodes:
        is_locked = goal.precision in session.manifest.locks.get(goal.component, {})
        what = f"its entry is removed from {path}" if is_locked else "nothing to lock"
        yield f"{goal.stem} passes its gates with no node kept in FP32: {what}; {tried}"
        return
    count = f"{len(found.nodes)} of {found.candidates} nodes in FP32"
    yield f"{goal.stem} passes its gates with {count}, none of which can be left out:"
    for name in found.nodes:
        node = nodes[name]
        why = f"{node['beyond']}, {node['tensor']} reaches {node['largest']:.4g}" if node["beyond"] else "within range"
        yield f"  {name}  {why}"
    yield f"{path} holds them; {tried}"
