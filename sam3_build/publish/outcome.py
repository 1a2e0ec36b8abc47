"""What became of targets that were to be published, and how people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sam3_build.execution.local import readable
from sam3_build.publish.card import UNVERIFIED
from sam3_build.publish.reasons import EXCUSABLE, Cause, Reason
from sam3_build.report.text import wrapped
from sam3_build.store.sizes import readable_size


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
