"""What a `reference` action wrote in; its recorded cases out, or the first few of them."""

from __future__ import annotations

from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.spec import Json


def recorded_cases(reference: Path, count: Json = None) -> list[Path]:
    """Return the first `count` `<case>.npz` of a folder, or all of them (None). BuildError when there is none."""
    cases = sorted(reference.glob("*.npz"))
    if not cases:
        raise BuildError("no recorded case runs this component; add a sample to the manifest that uses it")
    assert count is None or isinstance(count, int)
    return [case.absolute() for case in cases[:count]]
