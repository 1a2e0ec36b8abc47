"""Takes a session and its verdicts, writes `report.html`: one file that needs no other, no network and no script.

It is written only when something in it would change. Its second line tells what it was made of and what it says, so
that this is known without making it: no template is loaded for a no-op, and a page that somebody edited is replaced.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.compare.dependencies import Judged
from sam3_build.digest import PACKAGE, DigestCache
from sam3_build.execution.session import Session
from sam3_build.folders import write_atomically
from sam3_build.report.html.sources import Sources, sources
from sam3_build.store.writing import writing

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
# The folders of code whose change changes the page: templates, tables, and what puts verdicts and numbers into words.
CODE = (HERE, HERE.parent, PACKAGE / "compare")


def write_page(session: Session, found: Judged, path: Path) -> bool:
    """Write the page to `path` unless the one that is there says the same; tell whether it was written.

    found: what `report.judged` returned
    """
    known = sources(session)
    made_of = _made_of(known, found, session.store.digests)
    with writing(path):
        if _says(path, made_of):
            return False
        write_atomically(path, _stamped(render(known, found).encode(), made_of))
    return True


def render(known: Sources, found: Judged) -> str:
    """Return the page without its stamp."""
    from sam3_build.report.html.gather import gather

    style = (HERE / "page.css").read_text()
    return template().render(page=gather(known, found), style=style)


@cache
def template() -> jinja2.Template:
    """Return the compiled template of the page; compiling takes longer than all else that the page needs."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _made_of(known: Sources, found: Judged, digests: DigestCache) -> str:
    """Return a digest of everything that the page is made of. Cheap: it is asked in every no-op."""
    parts = [repr(found), repr(known.manifest), known.call]
    for action in known.plan.actions:
        record = known.records.get(action.name)
        said = f"{record.key} {record.object} {record.provenance}" if record else action.blocked
        parts.append(f"{action.name} {said}")
    parts += [digests.file(path) for folder in CODE for path in sorted(folder.iterdir()) if path.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _stamped(page: bytes, made_of: str) -> bytes:
    """Return the page with the stamp below its first line."""
    first, newline, rest = page.partition(b"\n")
    return first + newline + f"<!-- made of {made_of}, says {hashlib.sha256(rest).hexdigest()} -->\n".encode() + rest


def _says(path: Path, made_of: str) -> bool:
    """Tell whether the page at `path` is the one made of this, unaltered."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    first, _, stamped = data.partition(b"\n")
    _, _, rest = stamped.partition(b"\n")
    return data == _stamped(first + b"\n" + rest, made_of)
