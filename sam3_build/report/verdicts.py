"""Takes a session, judges its comparisons, prints the table and writes the reports beside the view. Runs nothing.

`doit verify`, publish and nightly tell the same, because they ask here.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sam3_build.errors import BuildError
from sam3_build.execution.session import Session
from sam3_build.model_format import VERDICTS

if TYPE_CHECKING:
    from sam3_build.compare.dependencies import Judged
    from sam3_build.report.table import Counts


def judge(session: Session) -> Judged:
    """Return every comparison of the plan with its rows, from what is fresh now."""
    from sam3_build.report.table import judged

    return judged(session.plan, lambda name: output_folder(session, name))


def tell(session: Session, out: TextIO) -> tuple[Judged, Counts]:
    """Judge, print the table to `out` and write the reports where that changes them."""
    from sam3_build.report.file_verdicts import write_verdicts
    from sam3_build.report.html.page import write_page
    from sam3_build.report.table import report

    session.ownership.claim()
    found, (rows, page) = judge(session), reports(session)
    counts = report(session.plan, found, lambda name: output_folder(session, name), rows, out)
    write_verdicts(session, found)
    write_page(session, found, page)
    return found, counts


def forget(session: Session) -> None:
    """Remove the reports: when an action failed they would go on telling of what no longer is."""
    for path in reports(session):
        with suppress(OSError, BuildError):
            session.ownership.check()
            path.unlink()


def output_folder(session: Session, name: str) -> Path | None:
    """Return the folder of an action's output, or None while it is not built."""
    record = session.resolver.resolve(name).record
    return session.store.object_path(record.object) if record else None


def report_path(session: Session) -> Path:
    """Return where the verdicts go: `artifacts/<manifest>/report.json`."""
    return session.view.root / "report.json"


def verdicts_path(session: Session) -> Path:
    """Return where the verdicts on files go, for those who run them. They speak of bytes, whatever failed since."""
    return session.view.root / VERDICTS


def reports(session: Session) -> tuple[Path, ...]:
    """Return the files that tell the verdicts, there or not: `report.json` and the page made of it, `report.html`."""
    path = report_path(session)
    return path, path.with_suffix(".html")
