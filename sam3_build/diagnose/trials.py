"""Takes what is searched, tries sets of nodes in FP32: makes the actions fresh that measure them, and judges.

Sets are tried by ordinary actions, so that the store remembers each: an interrupted search goes on where it was, and a
second one runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sam3_build.compare.judge import Row, Verdict, judge
from sam3_build.diagnose.delta_debugging import Nodes
from sam3_build.diagnose.localize import without_engines
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.execution import schedule
from sam3_build.execution.local import How, Outcome
from sam3_build.execution.session import Session
from sam3_build.manifest.types import Lock, Manifest
from sam3_build.plan.search import lock_of, ranges, trial, with_locks
from sam3_build.report.text import duration
from sam3_build.spec import BASELINE, TYPES, Action, Comparison, Json, Kind, Plan
from sam3_build.store.objects import Record

# A trial that takes longer than this is worth a warning beforehand.
_LONG_SECONDS = 20
_USUAL_TRIALS = (10, 60)

Say = Callable[[str], None]
# By component.
Locks = Mapping[str, Lock | None]


@dataclass(frozen=True)
class Goal:
    """What is searched: a component, or a pipeline with all its components, in a precision.

    target: its engines are run as well as the graphs; cases: sets are measured on the first so many recorded ones
    """

    name: str
    precision: str
    target: str | None = None
    cases: int | None = None

    @property
    def stem(self) -> str:
        """Return `<component>.<precision>`, with a target `<component>.<precision>.<target>`."""
        return ".".join(part for part in (self.name, self.precision, self.target) if part)


@dataclass(frozen=True)
class Candidate:
    """A node that could be low. document: what was measured of its ranges."""

    component: str
    node: str
    document: Mapping[str, Json]


# ------------------------------------------------------------------ what judges


def judging(manifest: Manifest, plan: Plan, goal: Goal) -> tuple[Comparison, ...]:
    """Return the comparisons that a set must pass: of the graphs, and of the engines where a target is given.

    BuildError when there are none of this name, or this machine cannot run them.
    """
    known = {c.component for c in plan.comparisons if c.kind in (Kind.PARITY, Kind.RESULT)}
    if goal.name not in known:
        hint = did_you_mean(goal.name, known)
        raise BuildError(f"manifest {plan.manifest!r} has no component or pipeline {goal.name!r}{hint}")
    found = [_comparisons(plan, goal.name, goal.precision, target) for target in dict.fromkeys((None, goal.target))]
    if not found[-1]:
        raise BuildError(without_engines(manifest, goal.precision, str(goal.target)))
    return tuple(map(_measured, found))


def _comparisons(plan: Plan, name: str, precision: str, target: str | None) -> list[Comparison]:
    """Return the comparisons of the tensors of a component, or of the result of a pipeline."""
    found = [c for c in plan.comparisons if (c.component, c.precision, c.target) == (name, precision, target)]
    return [c for c in found if c.kind in (Kind.PARITY, Kind.RESULT)]


def _measured(found: Sequence[Comparison]) -> Comparison:
    """Return the first that is measured here; some only say what cannot be run."""
    measured = next((c for c in found if c.action), None)
    if measured is None:
        raise BuildError(f"{found[0].name} cannot be measured: {found[0].not_run}")
    return measured


def components_of(plan: Plan, comparison: Comparison) -> tuple[str, ...]:
    """Return the components that a comparison runs: its own, or those of its pipeline."""
    if comparison.kind == Kind.PARITY:
        return (comparison.component,)
    own = [c for c in plan.comparisons if c.kind == Kind.PARITY and c.name in comparison.depends_on]
    return tuple(dict.fromkeys(c.component for c in own))


def failing(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that fail, NaN and infinities first: they are why other metrics could not be measured."""
    return sorted((row for row in rows if row.verdict == Verdict.FAIL), key=lambda row: row.metric != "nonfinite")


def _of_values(comparison: Comparison) -> Comparison:
    """Return a comparison without GEMMs' types, which no trial measures: in many sets all products are FP32."""
    outputs = tuple(output for output in comparison.outputs if output != TYPES)
    return replace(comparison, outputs=outputs, gates={output: comparison.gates[output] for output in outputs})


# ------------------------------------------------------------------ running


class Runs:
    """Makes actions fresh, each in the plan that the manifest has with some locks or others."""

    def __init__(self, session: Session, goal: Goal, say: Say) -> None:
        """Plan as if what is searched had no locks. BuildError for what cannot be measured, or fails in FP32."""
        self.goal = goal
        self.ran = 0
        self.say = say
        self._session = session
        self.judging = tuple(map(_of_values, judging(session.manifest, session.plan, goal)))
        self.components = components_of(session.plan, self.judging[0])
        self.bare = self.plan({})
        for comparison in self.judging:
            self._require_sound(comparison)

    def _require_sound(self, comparison: Comparison) -> None:
        """BuildError where FP32 itself fails, which trials are measured against, or where nothing is judged."""
        metrics = {gate.metric for gates in comparison.gates.values() for gate in gates}
        if not metrics - comparison.informs.keys() - {"nonfinite", "incomparable"}:
            raise BuildError(f"{comparison.name} is not judged: {next(iter(comparison.informs.values()))}")
        baseline = _comparisons(self.bare, comparison.component, BASELINE, comparison.target)
        if baseline and (wrong := failing(self.judged(self.bare, _measured(baseline)))):
            raise BuildError(
                f"{baseline[0].name} fails its own gates, and a search would measure against it: "
                f"{wrong[0].output}: {wrong[0].reason}; run `doit verify`"
            )

    def plan(self, locks: Locks) -> Plan:
        """Return the plan of the manifest with these locks, and no others for what is searched."""
        every = {component: locks.get(component) for component in self.components}
        return self._session.plan_of(with_locks(self._session.manifest, self.goal.precision, every))

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
        record = self.fresh(plan, plan.action(str(comparison.action)))
        return judge(comparison, self.read(record, "statistics.json"))

    def read(self, record: Record, file: str) -> Mapping[str, Json]:
        """Return a JSON file of what an action wrote."""
        found = json.loads((self._session.store.object_path(record.object) / file).read_bytes())
        assert isinstance(found, dict)
        return found

    def baselines(self) -> list[Record]:
        """Return the records of the components' FP32 graphs, as they were measured."""
        actions = (self.bare.action(f"verify:{component}.{BASELINE}") for component in self.components)
        return [self.fresh(self.bare, action) for action in actions]

    def cases(self) -> int:
        """Return on how many recorded cases sets are measured."""
        recorded = max(int(str(record.facts["cases"])) for record in self.baselines())
        return min(self.goal.cases or recorded, recorded)

    def say_how_long(self) -> None:
        """Warn of a search that will take long, by what the FP32 graphs took."""
        seconds = sum(float(str(record.provenance.get("seconds", 0))) for record in self.baselines())
        one = seconds * self.cases() / max(int(str(record.facts["cases"])) for record in self.baselines())
        if one > _LONG_SECONDS:
            low, high = _USUAL_TRIALS
            measured = ", ".join(f"verify:{component}.{BASELINE}" for component in self.components)
            self.say(
                f"  a trial takes {duration(one)} or more ({measured} took "
                f"{duration(seconds)}), and a search makes some {low} to {high} of them: {duration(one * low)} to "
                f"{duration(one * high)}. Interrupt it whenever you "
                "like: the same command goes on" + ("" if self.goal.cases else ". --cases 1 makes a trial shorter")
            )


# ------------------------------------------------------------------ trying


class Trials:
    """Tries sets of nodes, each once: the test that delta debugging asks."""

    def __init__(self, runs: Runs) -> None:
        """Ask which nodes could be low. Those of several components are called by theirs as well."""
        self.known: dict[Nodes, bool] = {}
        self.last = ""
        self._runs = runs
        self._graphs: dict[str, str] = {}
        self.candidates: dict[str, Candidate] = {}
        goal, bare = runs.goal, runs.bare
        for component in runs.components:
            record = runs.fresh(bare, ranges(bare, component, goal.precision, goal.cases))
            measured = runs.read(record, "ranges.json")
            self._graphs[component] = str(measured["graph"])
            listed = measured["nodes"]
            assert isinstance(listed, Sequence)
            for node in listed:
                assert isinstance(node, Mapping)
                candidate = Candidate(component, str(node["name"]), node)
                name = candidate.node if len(runs.components) == 1 else f"{component}.{candidate.node}"
                self.candidates[name] = candidate

    def locks(self, nodes: Iterable[str]) -> dict[str, Lock | None]:
        """Return the locks, by component, that keep `nodes` in FP32."""
        of = [self.candidates[name] for name in nodes]
        return {
            component: lock_of(graph, (one.node for one in of if one.component == component))
            for component, graph in self._graphs.items()
        }

    def passes(self, nodes: Nodes, name: str = "") -> bool:
        """Tell whether every gate passes with `nodes` in FP32; say what came out, and what the set is."""
        if nodes not in self.known:
            self.known[nodes] = self._passes(nodes, f" ({name})" if name else "")
        return self.known[nodes]

    def _passes(self, nodes: Nodes, name: str) -> bool:
        runs, before = self._runs, self._runs.ran
        plan, seconds = runs.plan(self.locks(nodes)), 0.0
        typed = [f"precision:{component}.{runs.goal.precision}" for component in runs.components]
        for comparison in runs.judging:
            record = runs.fresh(plan, trial(plan, plan.action(str(comparison.action)), typed, runs.goal.cases))
            seconds += float(str(record.provenance.get("seconds", 0)))
            if wrong := failing(judge(comparison, runs.read(record, "statistics.json"))):
                break
        on = f"on {comparison.target}, " if comparison.target else ""
        self.last = f"{on}{wrong[0].output}: {wrong[0].reason}" if wrong else ""
        verdict = f"fails, {self.last}" if wrong else "passes"
        took = f"{seconds:.3f} s" if runs.ran > before else "known"
        runs.say(f"  trial {len(self.known) + 1:>3}  {len(nodes):>4} nodes in FP32{name}: {verdict} ({took})")
        return not wrong
