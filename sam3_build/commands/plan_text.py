"""Takes explanations and records; returns what `sam3-build plan` and `explain` print, in 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from sam3_build.report.text import WIDTH, wrapped
from sam3_build.store.explain import Explanation, brief
from sam3_build.store.objects import Record
from sam3_build.store.resolve import State
from sam3_build.store.sizes import readable_size

STATES = tuple(State)
TO_DO = (State.STALE, State.PENDING)
INDENT = " " * 21


def render_plan(manifest: str, found: Sequence[Explanation], free: int) -> str:
    """Return each action with its state, bytes to write and reasons, then counts; `free` bytes are left on the disk."""
    lines = [line for e in found for line in _lines(e)]
    todo = [e.bytes_needed for e in found if e.state in TO_DO]
    needed, unknown = sum(size or 0 for size in todo), todo.count(None)
    counts = ", ".join(f"{sum(e.state == state for e in found)} {state}" for state in STATES)
    more = f" and {unknown} outputs of unknown size" if unknown else ""
    lines += wrapped(f"{manifest}: {counts}; about {readable_size(needed)}{more} to write", then="  ", cut_words=True)
    if needed > free:
        advice = "free some space (`sam3-build gc` may help) or set SAM3_STORE to another disk"
        lines += wrapped(
            f"It does not fit: {readable_size(free)} are free on the disk of the store; {advice}",
            then="  ",
            cut_words=True,
        )
    return "\n".join(lines) + "\n"


def render_record(record: Record) -> str:
    """Return when an action was built, and every field of the document that its key is made of."""
    lines = [f"  built {record.provenance.get('began')} in {record.provenance.get('seconds')} s from"]
    for field, value in record.document.items():
        entries = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, entry in entries:
            lines.append(textwrap.shorten(f"{field}.{name}".removesuffix(".") + f": {brief(entry)}", WIDTH - 4))
    return f"\n{' ' * 4}".join(lines)


def _lines(e: Explanation) -> Iterator[str]:
    size = readable_size(e.bytes_needed) if e.state in TO_DO else ""
    line = f"{e.state:<8}{size:>9}  {e.action:<37}"
    if len(e.because) == 1 and len(line) + 2 + len(e.because[0]) <= WIDTH:
        yield f"{line}  {e.because[0]}"
        return
    yield line.rstrip()
    for reason in e.because:
        yield from wrapped(reason, INDENT, f"{INDENT}  ", cut_words=True)
