"""Takes a session and its verdicts, publishes a folder of verified files with cards per target, or says why not.

Builds and runs nothing. All files of a pipeline in one precision or none are published; what was published stays until
its own bytes fail.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from sam3_build import registry
from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import worst
from sam3_build.execution.local import readable
from sam3_build.execution.session import Session
from sam3_build.manifest.paths import doit_call
from sam3_build.publish import folder
from sam3_build.publish.card import GRAPH, UNVERIFIED, Subject, card
from sam3_build.publish.checks import EXCUSABLE, Candidate, Cause, Item, Part, Reason, parts_of, shown
from sam3_build.publish.description import description
from sam3_build.report.text import wrapped
from sam3_build.store.objects import Record, hold
from sam3_build.store.sizes import readable_size
from sam3_build.store.view import sidecar


class Status(StrEnum):
    """What became of a target, as a night's file has it."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    KEPT = "kept"  # what is published is verified, and this machine could only verify less of the same bytes
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    ORPHANED = "orphaned"  # a folder of a target that the manifest no longer has


@dataclass(frozen=True)
class Published:
    """What became of a target.

    files, size, kind: how many graphs or engines are there as the manifest makes them, and their bytes
    reasons:     what stands against it; where it is published all the same, why it is UNVERIFIED
    withheld:    what is left out, by `pipeline video`, `bf16`, `pipeline video in bf16`, with the files that nothing
                 else needs: what stands against each
    notes:       what else there is to say of its folder
    """

    target: str
    state: Status
    folder: Path
    files: int = 0
    size: int = 0
    kind: str = ""
    reasons: tuple[Reason, ...] = ()
    withheld: Mapping[str, tuple[Reason, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether the folder does not hold what the manifest makes now."""
        return self.state in (Status.REFUSED, Status.WITHDRAWN)


@dataclass(frozen=True)
class _Content:
    """What a folder has to hold: every file, its sha256, and the bytes of those that are no cards or records."""

    files: Mapping[str, Path | bytes]
    digests: Mapping[str, str]
    sizes: Mapping[str, int]


def publish(session: Session, found: Judged, targets: Sequence[str]) -> list[Published]:
    """Publish what of `targets` may be; return what became of each, and orphans. StoreError when it cannot be written.

    found: what `report.judged` returned
    """
    lock = session.view.root.with_name(f".{session.view.root.name}.published.lock")
    session.ownership.claim()
    with session.store.using(), hold(lock, fcntl.LOCK_EX):
        return [*(_publish(session, found, name) for name in targets), *_orphans(session)]


def _orphans(session: Session) -> list[Published]:
    """Return the published folders that no target of the manifest is called after. Hidden ones are our own."""
    root = session.view.root / "published"
    paths = sorted(root.iterdir()) if root.is_dir() else []
    names = [p.name for p in paths if p.is_dir() and not p.name.startswith(".")]
    return [Published(name, Status.ORPHANED, root / name) for name in names if name not in session.manifest.targets]


def published_folder(session: Session, target: str) -> Path:
    """Return where a target is published: `artifacts/<manifest>/published/<target>`."""
    return session.view.root / "published" / target


def _publish(session: Session, found: Judged, target: str) -> Published:
    """Publish the pipelines that pass, in the precisions in which they pass.

    Nothing that was published is left out for what this machine cannot show, or has not built yet.
    """
    parts = parts_of(session.manifest, target)
    whole = Candidate(session, found, target, parts)
    each = {part: Candidate(session, found, target, (part,)).reasons() for part in parts}
    passing = [part for part, reasons in each.items() if not _stands_against(whole, reasons)]
    if not passing or len(passing) == len(parts):
        return _publish_all(whole)
    withheld = {part: reasons for part, reasons in each.items() if part not in passing}
    rest = Candidate(session, found, target, passing)
    if any(_refuses_all(rest, Candidate(session, found, target, (part,)), withheld[part]) for part in withheld):
        return _publish_all(whole)
    return _publish_all(rest, _named(whole, withheld))


def _named(whole: Candidate, withheld: Mapping[Part, tuple[Reason, ...]]) -> dict[str, tuple[Reason, ...]]:
    """Return what is withheld by what people call it: a pipeline in all its precisions, or a precision of all."""
    pipelines = list(dict.fromkeys(part.pipeline for part in whole.parts))
    found: dict[str, tuple[Reason, ...]] = {}
    for part, reasons in withheld.items():
        alike = [p for p in whole.parts if p.pipeline == part.pipeline]
        if len(pipelines) == 1:
            name = part.precision
        elif all(p in withheld for p in alike):
            name = f"pipeline {whole.label(part.pipeline)}"
        elif all(p in withheld for p in whole.parts if p.precision == part.precision):
            name = part.precision
        else:
            name = f"pipeline {whole.label(part.pipeline)} in {part.precision}"
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *reasons)))
    return found


def _refuses_all(rest: Candidate, part: Candidate, reasons: Iterable[Reason]) -> bool:
    """Whether a part that does not pass stops the rest: it is foreign, or published and not known to be wrong.

    What the rest needs too is published with it, and says nothing of the part.
    """
    kinds = {reason.kind for reason in reasons}
    if Cause.FOREIGN in kinds or kinds & {Cause.FAILED, Cause.NOT_JUDGED}:
        return Cause.FOREIGN in kinds
    published = folder.listed(published_folder(part.session, part.name))
    own = {file for item in part.items for file in _files(item)}
    return not own.isdisjoint(published.keys() - {file for item in rest.items for file in _files(item)})


def _files(item: Item) -> set[str]:
    """Return the names of an item's files in a published folder."""
    return {Path(shown).name for shown in item.source.view.values()}


def _stands_against(candidate: Candidate, reasons: Iterable[Reason]) -> bool:
    """Whether something stands against publishing that the target does not excuse."""
    excused = EXCUSABLE if candidate.target.allow_unverified else ()
    return any(reason.kind not in excused for reason in reasons)


def _publish_all(candidate: Candidate, withheld: Mapping[str, tuple[Reason, ...]] = MappingProxyType({})) -> Published:
    """Publish all parts of a candidate. withheld: what else the manifest makes, and why it is not published."""
    digests = candidate.session.store.digests
    reasons, place = candidate.reasons(), published_folder(candidate.session, candidate.name)
    folder.recover(place)
    published, unexpected = folder.listed(place), folder.unexpected_files(place, digests)
    if _stands_against(candidate, reasons):
        return replace(_refuse(candidate, place, reasons, unexpected), withheld=withheld)
    content = _content(candidate, reasons, withheld)
    done = Published(
        candidate.name,
        Status.PUBLISHED,
        place,
        files=len(candidate.items),
        size=sum(content.sizes.values()),
        kind="graphs" if candidate.items[0].is_graph else "engines",
        reasons=reasons,
        withheld=withheld,
        notes=_restored(unexpected),
    )
    if not unexpected and published == content.digests:
        return replace(done, state=Status.UNCHANGED)
    same_bytes = not unexpected and all(published.get(name) == content.digests[name] for name in content.sizes)
    if same_bytes and reasons and not _is_unverified(place):
        return replace(done, state=Status.KEPT, reasons=())
    folder.replace(place, content.files, content.digests, digests)
    return done


def _refuse(
    candidate: Candidate,
    place: Path,
    reasons: tuple[Reason, ...],
    unexpected: Mapping[str, str | None],
) -> Published:
    refused = Published(candidate.name, Status.REFUSED, place, reasons=reasons)
    if not place.is_dir():
        return refused
    # Bytes that fail must go whatever SHA256SUMS says of them, or does not: people take files, not lists.
    present = folder.digests_of(place, candidate.session.store.digests)
    if _must_go(candidate.items, lambda item: _is_published(candidate, item, present), reasons):
        folder.withdraw(place)
        return replace(
            refused, state=Status.WITHDRAWN, notes=(f"{readable(place)} held these very bytes and was removed",)
        )
    note = f"{readable(place)} stays as it was published before"
    if unexpected:
        note += f"; in it, {', '.join(sorted(unexpected))} is not what was published, and is not verified"
    return replace(refused, notes=(note,))


def _must_go(items: Sequence[Item], is_published: Callable[[Item], bool], reasons: Sequence[Reason]) -> bool:
    """Tell whether what fails is what was published, to the byte.

    A file whose own comparison fails is wrong, byte for byte. What depends on another file, and what all compute
    together, says something of the published files only where every file that takes part is still the same.
    """
    for item in items:
        about = {reason.kind for reason in reasons if reason.what == item.name}
        of_component = [other for other in items if other.component == item.component]
        if Cause.FAILED in about and is_published(item):
            return True
        if Cause.NOT_JUDGED in about and all(map(is_published, of_component)):
            return True
    together = {name for item in items for name in item.together}
    whole = any(reason.what in together and reason.kind in (Cause.FAILED, Cause.NOT_JUDGED) for reason in reasons)
    return whole and all(map(is_published, items))


def _is_published(candidate: Candidate, item: Item, present: Mapping[str, str]) -> bool:
    record = candidate.record(item.source.name)
    return record is not None and all(present.get(file.name) == file.sha256 for file in shown(item, record))


def _restored(unexpected: Mapping[str, str | None]) -> tuple[str, ...]:
    return (f"restored {', '.join(sorted(unexpected))}: not as SHA256SUMS lists it",) if unexpected else ()


def _is_unverified(place: Path) -> bool:
    return any(UNVERIFIED.encode() in path.read_bytes() for path in place.glob("*.md"))


# ------------------------------------------------------------------ what a folder holds


def _content(candidate: Candidate, reasons: Sequence[Reason], withheld: Mapping[str, tuple[Reason, ...]]) -> _Content:
    """Return the files of all items, with a record and a card beside each, and what it takes to run them."""
    files: dict[str, Path | bytes] = {}
    digests: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for item in candidate.items:
        record = candidate.record(item.source.name)
        assert record, "what is missing was refused"
        for file in shown(item, record):
            files[file.name] = candidate.session.resolver.folder(record) / file.source
            digests[file.name], sizes[file.name] = file.sha256, file.size
        main = shown(item, record)[0].name
        files[f"{main}.json"] = sidecar(item.source, record)
        files[f"{main.rpartition('.')[0]}.md"] = card(
            _subject(candidate, item, record, reasons), candidate.session.manifest
        )
    for name, content in description(candidate, withheld).items():
        files[name] = content
        if isinstance(content, Path):
            digests[name] = candidate.session.store.digests.file(content)
    texts = {name: content for name, content in files.items() if isinstance(content, bytes)}
    return _Content(files, digests | {n: hashlib.sha256(t).hexdigest() for n, t in texts.items()}, sizes)


def _subject(candidate: Candidate, item: Item, record: Record, reasons: Sequence[Reason]) -> Subject:
    checkpoint = candidate.record("checkpoint")
    assert checkpoint, "a record that leads to no checkpoint was refused"
    main, *data = shown(item, record)
    tested = {"opened by": item.built.name} if item.is_graph else {}
    tested |= {f"compared as {comparison.name}": comparison.action for comparison, _ in item.own if comparison.action}
    commit = checkpoint.facts.get("commit")
    return Subject(
        file=main.name,
        sha256=main.sha256,
        size=sum(file.size for file in (main, *data)),
        kind=GRAPH if item.is_graph else registry.backend(candidate.target.backend).product.removesuffix("s"),
        component=item.component,
        precision=item.precision,
        target=candidate.name,
        record=record,
        tested={what: found for what, action in tested.items() if (found := candidate.record(action))},
        weights=checkpoint.files[f"{item.component}.json"].sha256,
        commit=str(commit) if commit else None,
        rows=tuple(row for _, rows in item.own for row in rows),
        below=tuple(
            (comparison.label, comparison.name, worst(r.verdict for r in rows)) for comparison, rows in item.below
        ),
        runs_on=candidate.runs_on(item),
        unrun=tuple(dict.fromkeys(reason.why for reason in reasons if reason.what in item.names)),
        has_licence=candidate.licence is not None,
        call=doit_call(candidate.session.ownership.manifest),
    )


# ------------------------------------------------------------------ what people read


def render(done: Sequence[Published]) -> str:
    """Return a line for each target that is published, and what is to say of it."""
    lines: list[str] = []
    for p in done:
        if p.state == Status.ORPHANED:
            why = "belongs to no target of this manifest any more, and is not verified: delete it if you do not use it"
            lines.append(f"  published/{p.target} {why}")
        elif not p.is_refused:
            unverified = f", {UNVERIFIED}" if p.reasons else ""
            size = f"{p.files} {p.kind}, {readable_size(p.size)}{unverified}"
            lines.append(f"  {p.state:<9}  {p.target:<10}  {size}: {readable(p.folder)}")
            lines += [f"    {note}" for note in p.notes]
    return "".join(f"{line}\n" for line in lines)


def refusal(done: Sequence[Published]) -> str | None:
    """Return all that was refused and why, in one text; None when nothing was. Equal reasons are given once."""
    refused: dict[tuple[Status, tuple[Reason, ...], tuple[str, ...]], list[str]] = {}
    for p in done:
        if p.is_refused:
            refused.setdefault((p.state, p.reasons, p.notes), []).append(p.target)
    lines = [line for key, targets in refused.items() for line in _refused(*key, targets)]
    withheld: dict[tuple[str, tuple[Reason, ...]], list[str]] = {}
    for p in done:
        for label, reasons in p.withheld.items():
            withheld.setdefault((label, reasons), []).append(p.target)
    for (label, reasons), targets in withheld.items():
        lines += _reasons(f"withheld: {label} of {', '.join(targets)}", reasons)
    return "\n".join(lines) or None


def _refused(state: Status, reasons: Sequence[Reason], notes: Sequence[str], targets: Sequence[str]) -> Iterator[str]:
    yield from _reasons(f"{state}: {', '.join(targets)}", reasons)
    for note in notes:
        yield from wrapped(note, "  ", "    ")
    if (kinds := {reason.kind for reason in reasons}) <= set(EXCUSABLE):
        elsewhere = "publish on a machine that runs them, or " if kinds == {Cause.NOT_RUN} else "do what that says, or "
        advice = f"{elsewhere}write `allow_unverified: true` in the target"
        yield from wrapped(f"{advice}: every card then says {UNVERIFIED}", "  ", "    ")


def _reasons(title: str, reasons: Sequence[Reason]) -> Iterator[str]:
    """Yield the title, and each reason with all that it is about."""
    yield title
    for kind, why in dict.fromkeys((reason.kind, reason.why) for reason in reasons):
        yield from wrapped(f"{kind.words}: {why}", "  ", "    ")
        what = dict.fromkeys(reason.what for reason in reasons if (reason.kind, reason.why) == (kind, why))
        yield from wrapped(", ".join(what), "    ", "    ")
