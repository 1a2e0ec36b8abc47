"""Takes a session and its verdicts, publishes a folder of verified files with cards per target, or says why not.

Builds and runs nothing. All files of a pipeline in one precision or none are published; what was published stays until
its own bytes fail.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sam3_build.compare.dependencies import Judged
from sam3_build.execution.local import readable
from sam3_build.execution.session import Session
from sam3_build.publish import folder
from sam3_build.publish.card import UNVERIFIED
from sam3_build.publish.checks import Candidate
from sam3_build.publish.content import content_of
from sam3_build.publish.items import Item, Part, parts_of, shown
from sam3_build.publish.outcome import Published, Status
from sam3_build.publish.reasons import EXCUSABLE, Cause, Reason
from sam3_build.store.writing import hold


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
    content = content_of(candidate, reasons, withheld)
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
