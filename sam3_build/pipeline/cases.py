"""Cases: what a family makes of samples, what a `samples` action wrote, and what was recorded or computed of them.

A case is one run of a pipeline: `<case>.npz` has what is given once. Of a case of a clip each frame has a file of its
own, `<case>.<frame>.npz`, from `<case>.00000.npz` on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.digest import canonical
from sam3_build.documents import document_of, value_of
from sam3_build.errors import BuildError
from sam3_build.params import SampleParams
from sam3_build.spec import Json, Per

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

# Of a recorded case, what the names of a component's inputs and outputs begin with.
INPUTS, OUTPUTS = "inputs/", "outputs/"

# Beside what was computed of cases: those that were not fed, and why.
SKIPPED = "skipped.json"

# The list of cases, in the output of `samples` and of what records or computes.
CASES = "cases.json"


@dataclass(frozen=True)
class PromptRequest:
    """What a family's `prompts.make_cases` gets: the samples of one pipeline, their files by role, the model's config.

    tokenizer: where the family has one
    padding:   by how much a batch is padded
    logits:    by role, masks that the network gave before, [h, w] float32, where prompts name such a one
    """

    layout: str
    pipeline: str
    reference: str
    samples: Sequence[SampleParams]
    tokenizer: Path | None
    files: Mapping[str, Path]
    config: Mapping[str, Json]
    padding: int = 1
    logits: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One run of a pipeline: which samples its rows are, by their positions, and its inputs by name, batch first.

    frames: of a clip, what is given for each frame, made when it is asked for
    like:   the case of the same clip whose frames it shares, with the same prompts in another order
    """

    name: str
    samples: tuple[int, ...]
    arrays: Mapping[str, Array]
    frames: Iterable[Mapping[str, Array]] = ()
    like: str = ""


@dataclass(frozen=True)
class ListedCase:
    """A case as the list has it.

    samples: positions among the pipeline's samples
    frames:  how many it has; 0 of pictures
    like:    the case whose frames it shares, where it has none of its own
    """

    name: str
    samples: tuple[int, ...]
    frames: int = 0
    like: str = ""

    @property
    def owner(self) -> str:
        """The name of the case that the frames belong to."""
        return self.like or self.name

    def frame(self, position: int) -> str:
        """Return the name of a frame."""
        return f"{self.owner}.{position:05}"

    def runs(self, per: str = Per.CASE) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield what is run, once or for each frame: its name, and the files that may have what it is given."""
        if per == Per.CASE:
            yield self.name, (self.name,)
        elif not self.like:
            for name in map(self.frame, range(self.frames)):
                yield name, (name, self.name)


def write_cases(cases: Iterable[Case], out: Path) -> list[ListedCase]:
    """Write each case's arrays and the list of them; return the list."""
    import numpy as np

    listed: dict[str, ListedCase] = {}
    for case in cases:
        if case.name in listed:
            raise BuildError(
                f"the family's `make_cases` gives two cases called {case.name!r}; of a clip, the one whose sample "
                "`is_reordered` needs a name of its own, and `like`"
            )
        np.savez(out / f"{case.name}.npz", allow_pickle=False, **dict(case.arrays))
        count = listed[case.like].frames if case.like else 0
        for arrays in () if case.like else case.frames:
            np.savez(out / f"{case.name}.{count:05}.npz", allow_pickle=False, **dict(arrays))
            count += 1
        listed[case.name] = ListedCase(case.name, case.samples, count, case.like)
    documents: list[Json] = [document_of(case) for case in listed.values()]
    (out / CASES).write_bytes(canonical(documents))
    return list(listed.values())


def listed_cases(samples: Path) -> list[ListedCase]:
    """Return the cases that a `samples` action listed."""
    return [value_of(ListedCase, document) for document in json.loads((samples / CASES).read_bytes())]


def write_recorded(file: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Write a recorded case: the inputs and outputs of a component."""
    import numpy as np

    arrays = {f"{INPUTS}{n}": a for n, a in inputs.items()} | {f"{OUTPUTS}{n}": a for n, a in outputs.items()}
    with file.open("xb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


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
