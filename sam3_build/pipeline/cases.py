"""Reads the recorded cases that a `reference` action wrote, and notes which cases were not run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of a recorded case, what the names of a component's inputs and outputs begin with.
INPUTS, OUTPUTS = "inputs/", "outputs/"

# Beside what was computed of cases: those that were not fed, and why.
SKIPPED = "skipped.json"


def recorded_cases(reference: Path, component: str, count: Json = None) -> list[Path]:
    """Return the first `count` `<case>.npz` of a folder, or all of them (None). BuildError when there is none."""
    cases = sorted(reference.glob("*.npz"))
    if not cases:
        raise BuildError(
            f"no recorded case runs {component!r}, so there is nothing to run it on; "
            "add a sample to the manifest that uses this component"
        )
    assert count is None or isinstance(count, int)
    return [case.absolute() for case in cases[:count]]


@contextmanager
def opened(case: Path) -> Iterator[Mapping[str, NDArray[np.generic]]]:
    """Open the `.npz` file of a case; each array is read when it is asked for. BuildError without file."""
    import numpy as np

    if not case.is_file():
        raise BuildError(f"case {case.stem!r} is missing from the outputs to compare with ({case.name})")
    with np.load(case, allow_pickle=False) as arrays:
        yield arrays


def arrays_of(case: Path, prefix: str) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a case whose names begin with `prefix`, without it. BuildError without file."""
    with opened(case) as arrays:
        return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def outputs_of(case: Path) -> dict[str, NDArray[np.generic]]:
    """Return the outputs of a case, recorded (beside its inputs) or computed (alone). BuildError without file."""
    return arrays_of(case, OUTPUTS) or arrays_of(case, "")


def array_in(file: Path, *names: str) -> NDArray[np.generic] | None:
    """Return the array that an `.npz` file has under the first of `names` that it knows; None without any, or file."""
    if not file.is_file():
        return None
    with opened(file) as arrays:
        return next((arrays[name] for name in names if name in arrays), None)


def write_skipped(folder: Path, skipped: Mapping[str, str]) -> None:
    """Write case -> why it was not fed; no file where all were."""
    if skipped:
        (folder / SKIPPED).write_text(json.dumps(skipped, indent=1, sort_keys=True) + "\n")


def skipped_in(folder: Path) -> dict[str, str]:
    """Return case -> why it was not fed, as `write_skipped` wrote it."""
    file = folder / SKIPPED
    return json.loads(file.read_bytes()) if file.is_file() else {}
