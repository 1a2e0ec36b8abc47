"""Takes a session and its verdicts, returns what a target would publish, what judges it and every reason against it.

Reads records and digests only, and decides nothing.

Verdicts belong to bytes: the records of what was measured must lead, digest by digest, to the very object that is to be
published, and that to this manifest's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sam3_build import registry
from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import Row, Verdict
from sam3_build.execution.local import readable
from sam3_build.execution.session import Session
from sam3_build.publish import licence, lineage
from sam3_build.publish.deployment import format_of, network_of
from sam3_build.publish.items import Item, Part
from sam3_build.publish.reasons import Cause, Reason
from sam3_build.spec import Comparison, Kind, Pipeline
from sam3_build.store.objects import Record
from sam3_build.store.resolve import State
from sam3_build.store.view import shown_as

_MOST_ROWS = 3
_SHORT = 12


@dataclass(frozen=True)
class _Lineage:
    """The actions that an output was really made from, and each broken link: what was read, its digest then and now."""

    made_from: frozenset[str]
    broken: tuple[tuple[str, str, str], ...]


class Candidate:
    """A target of the manifest, as the store and `report.judged` have it now: all its parts, or some."""

    def __init__(self, session: Session, found: Judged, target: str, parts: Sequence[Part]) -> None:
        """Look at `target` and what these parts of it need; `found` is what `report.judged` returned."""
        self.session = session
        self.parts = tuple(parts)
        self.target = session.manifest.targets[target]
        self.name = target
        self.found = found
        self._actions = {action.name: action for action in session.plan.actions}
        self._by_name = {comparison.name: (comparison, rows) for comparison, rows in found}
        self._walked: dict[str, _Lineage] = {}

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The components of the pipelines in their precisions, in the manifest's order."""
        manifest = self.session.manifest
        run = {(name, part.precision) for part in self.parts for name in part.pipeline.components}
        return tuple(self._item(c, p) for c in manifest.components for p in self.target.precisions if (c, p) in run)

    @cached_property
    def licence(self) -> Path | None:
        """The file of the weights' licence; None where none is known."""
        made = self.record("checkpoint")
        return licence.licence_file(
            self.session.manifest.checkpoint, self.session.resolver.folder(made) if made else None
        )

    def label(self, pipeline: Pipeline) -> str:
        """Return what comparisons call a pipeline."""
        manifest = self.session.manifest
        return registry.family(manifest.family).laid_out(manifest.layout).label(pipeline.name)

    def _item(self, component: str, precision: str) -> Item:
        backend = registry.backend(self.target.backend)
        side = self.name if backend.runs(self.target.options) else None
        labels = tuple(
            self.label(part.pipeline)
            for part in self.parts
            if part.precision == precision and component in part.pipeline.components
        )
        own = [
            (comparison, rows)
            for comparison, rows in self.found
            if (comparison.precision, comparison.target) == (precision, side)
            and comparison.component in (component, *labels)
            and comparison.kind != Kind.GAP
        ]
        below = {c.name: (c, rows) for comparison, _ in own for c, rows in self._dependencies(comparison)}
        mine = {comparison.name for comparison, _ in own}
        built = self._actions[f"build:{component}.{precision}.{self.name}"]
        # What only describes a graph (a session that opened) is nothing to take away: the graph itself is.
        graph = self._actions[f"precision:{component}.{precision}"]
        source = graph if backend.extension == ".json" else built
        others = [comparison for name, comparison in below.items() if name not in mine]
        return Item(component, precision, labels, source, built, graph, own, others)

    def record(self, action: str) -> Record | None:
        """Return the record of an action that is fresh, else None."""
        return self.session.resolver.resolve(action).record

    def runs_on(self, item: Item) -> dict[str, str | None]:
        """Return compute capability -> the GPU that ran the engine there, None where none did.

        Empty for what is not made for chosen generations.
        """
        chosen = item.source.device.get("compute_capabilities")
        ran = [self._actions[c.action].device for c, _ in item.own if c.action and self.record(c.action)]
        where = {d.get("compute_capability"): f"{d.get('name')}, driver {d.get('driver')}" for d in ran}
        return {str(c): where.get(c) for c in chosen} if isinstance(chosen, list | tuple) else {}

    # ------------------------------------------------------------ what stands against it

    def reasons(self) -> tuple[Reason, ...]:
        """Return all that stands against publishing the target, each once."""
        checks = (self._missing, self._judged, self._generations, self._origin, self._licence, self._format)
        return tuple(dict.fromkeys(reason for item in self.items for check in checks for reason in check(item)))

    def _missing(self, item: Item) -> Iterator[Reason]:
        for action in (item.source, item.built):
            answer = self.session.resolver.resolve(action.name)
            if answer.state == State.BLOCKED:
                yield Reason(Cause.BLOCKED, item.name, f"not built: {action.blocked}")
            elif answer.record is None:
                yield Reason(Cause.MISSING, item.name, "not built from the present inputs: run `doit build`")

    def _judged(self, item: Item) -> Iterator[Reason]:
        if not any(comparison.component == item.component for comparison, _ in item.own):
            yield Reason(Cause.MISSING, item.name, "nothing compares it with anything")
        yield from self._uncompared(item)
        for comparison, rows in item.own:
            what = f"{comparison.component}.{comparison.precision}"
            if comparison.pipeline not in item.pipelines and not any(row.verdict == Verdict.FAIL for row in rows):
                continue  # what another pipeline did not measure of a shared component stands against that one alone
            if comparison.not_run is not None:
                yield Reason(Cause.NOT_RUN, what, comparison.not_run)
            elif self._is_measured(comparison):
                yield from _rows(what, rows)
                if item.source.name not in self._lineage(str(comparison.action)).made_from:
                    yield Reason(Cause.FOREIGN, what, f"{comparison.action} measured something else: run it again")
            elif self.record(item.source.name):  # else it is not built, which is a reason of its own
                yield Reason(Cause.MISSING, what, "not compared since its inputs changed: run `doit verify`")
            yield from self._failed_dependencies(item, comparison, what)

    def _uncompared(self, item: Item) -> Iterator[Reason]:
        """Yield the pipelines of an item whose results nothing compares: tensors alone prove no result."""
        compared = {c.component for c, _ in item.own if c.kind == Kind.RESULT}
        for pipeline in (part.pipeline for part in self.parts if part.precision == item.precision):
            label = self.label(pipeline)
            if label not in item.pipelines or label in compared or pipeline.result is None:
                continue
            what = f"{label}.{item.precision}"
            if any(c.kind == Kind.RESULT and c.component == label for c, _ in self.found):
                yield Reason(Cause.MISSING, what, "nothing compares its results")
            elif not any(sample.pipeline == pipeline.name for sample in self.session.manifest.samples):
                why = f"nothing judges its results: no sample of the manifest is one of pipeline {pipeline.name}"
                yield Reason(Cause.NOT_MEASURED, what, why)
            else:
                last = pipeline.steps[-1].name
                why = f"nothing judges its results: the manifest does not build {last}"
                yield Reason(Cause.NOT_MEASURED, what, why)

    def _failed_dependencies(self, item: Item, comparison: Comparison, what: str) -> Iterator[Reason]:
        for other, rows in self._dependencies(comparison):
            if self._is_measured(other) and any(row.verdict == Verdict.FAIL for row in rows):
                yield Reason(Cause.NOT_JUDGED, what, f'depends on {other.name}, which failed in "{other.label}"')
            elif other.action and not self._is_measured(other) and self.record(item.source.name):
                yield Reason(Cause.MISSING, other.name, "not compared since its inputs changed: run `doit verify`")

    def _dependencies(self, comparison: Comparison) -> Judged:
        """Return every comparison that this one depends on, directly or through others."""
        found: dict[str, tuple[Comparison, tuple[Row, ...]]] = {}
        queue = list(comparison.depends_on)
        while queue:
            if (name := queue.pop(0)) not in found:
                found[name] = self._by_name[name]
                queue += found[name][0].depends_on
        return tuple(found.values())

    def _is_measured(self, comparison: Comparison) -> bool:
        """Tell whether what the comparison judges is there: without it, its rows fail for want of values."""
        return comparison.action is not None and self.record(comparison.action) is not None

    def _lineage(self, name: str) -> _Lineage:
        """Walk from the fresh output of `name` upstream, and hold each record to the digests of its inputs."""
        if name not in self._walked:
            made_from, broken, queue = {name}, [], [name]
            while queue:
                action = self._actions[queue.pop()]
                record = self.record(action.name)
                given = record.document["inputs"] if record else {}
                assert isinstance(given, Mapping)
                for role, source in action.inputs.items() if record else ():
                    before = self.record(source.action)
                    present = before and before.content(source)
                    if given.get(role) != present:
                        broken.append((f"{action.name} reads as {role}", str(given.get(role)), str(present)))
                    elif source.action not in made_from:
                        made_from.add(source.action)
                        queue.append(source.action)
            self._walked[name] = _Lineage(frozenset(made_from), tuple(broken))
        return self._walked[name]

    def _generations(self, item: Item) -> Iterator[Reason]:
        """An engine for several GPU generations holds different kernels for each: a run on one proves one."""
        runs_on = self.runs_on(item)
        if len(runs_on) > 1 and (unrun := [capability for capability, where in runs_on.items() if where is None]):
            why = f"it has kernels of their own for compute capability {', '.join(unrun)}, which did not run here"
            yield Reason(
                Cause.NOT_MEASURED, item.name, f"{why}; make one target per capability, and publish each on its GPU"
            )

    def _origin(self, item: Item) -> Iterator[Reason]:
        record = self.record(item.source.name)
        if record is None:
            return
        for what, theirs, ours in self._lineage(item.source.name).broken:
            why = f"what {what} was {theirs[:_SHORT]}, and is {ours[:_SHORT]} in this store"
            if what.endswith(" tensors"):
                why = f"was made from other weights: their inventory is {theirs[:_SHORT]}, not {ours[:_SHORT]}"
            yield Reason(Cause.FOREIGN, item.name, why)
        for name in record.files:
            path = self.session.view.root / (shown_as(item.source, name) or "")
            if path.is_file() and (fault := lineage.foreign(path, name, record, self.session.store)):
                yield Reason(
                    Cause.FOREIGN, item.name, f"{readable(path)} {fault}; `doit {item.source.name}` restores it"
                )

    def _licence(self, item: Item) -> Iterator[Reason]:
        manifest = self.session.manifest
        if why := licence.missing(registry.family(manifest.family), manifest.checkpoint, self.licence):
            yield Reason(Cause.UNLICENSED, item.name, why)

    def _format(self, item: Item) -> Iterator[Reason]:
        found = format_of(self.session.manifest)
        if found is None:
            return
        if (why := found.refuses(self.target.backend)) or (
            (network := network_of(self, item)) and (why := found.unfit(network))
        ):
            yield Reason(Cause.UNSUITABLE, item.name, why)


def _rows(what: str, rows: Sequence[Row]) -> Iterator[Reason]:
    failed = [row for row in rows if row.verdict == Verdict.FAIL]
    for row in failed[:_MOST_ROWS]:
        yield Reason(Cause.FAILED, what, f"{row.output}: {row.reason}")
    if len(failed) > _MOST_ROWS:
        yield Reason(Cause.FAILED, what, f"{len(failed) - _MOST_ROWS} more of its gates")
    for row in rows:
        if row.verdict == Verdict.NOT_RUN:
            yield Reason(Cause.NOT_MEASURED, what, str(row.reason))
