"""Takes a checkpoint and what its action wrote, returns the file of the weights' licence, and says what that allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sam3_build.manifest.types import Checkpoint
from sam3_build.spec import Licence, ModelFamily
from sam3_build.weights.files import LICENCE_NAMES

# The name under which it is published, and under which the `checkpoint` action keeps that of a repository at the hub.
LICENCE = LICENCE_NAMES[0]


def licence_file(checkpoint: Checkpoint, made: Path | None) -> Path | None:
    """Return the file that the manifest names, else the one beside the weights; None where there is neither.

    made: the output of the `checkpoint` action, where there is one
    """
    if checkpoint.licence:
        return checkpoint.licence
    folder = made
    if checkpoint.path:
        folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    return next((folder / name for name in LICENCE_NAMES if (folder / name).is_file()), None) if folder else None


def missing(family: ModelFamily, checkpoint: Checkpoint, file: Path | None) -> str | None:
    """Return why what is made of the weights cannot be passed on without a licence file; None where it can."""
    all_licences = (family.licence, *family.licence.parts) if family.licence else ()
    wanted = [licence for licence in all_licences if licence.must_accompany]
    if file or checkpoint.seed is not None or not wanted:
        return None
    names, urls = (" and the ".join(each.name for each in wanted), " and ".join(each.url for each in wanted))
    wants = "wants a copy of its text" if len(wanted) == 1 else "want copies of their texts"
    return (
        f"the {names}, under which the official weights of {family.name} are, {wants} beside "
        f"whatever is made of them: save it from {urls} as {LICENCE} beside the weights, or name the file with "
        "`licence:` in the manifest's `checkpoint`; for weights that are not derived from them, their own licence"
    )


def notes(family: ModelFamily, checkpoint: Checkpoint, has_file: bool) -> Iterator[str]:
    """Yield the lines of a card: which licence holds for the published file."""
    yield "sam3_build, which made this file, is Apache-2.0."
    if checkpoint.seed is not None:
        yield "The weights are random numbers."
        return
    if has_file:
        yield f"The weights' licence is the file {LICENCE} of this folder, and it holds for this file too."
    else:
        yield "No licence lay beside the weights. They keep the one that they came with, and so does this file: read it"
        yield "before you pass it on."
    if checkpoint.hub:
        yield f"The weights come from https://huggingface.co/{checkpoint.hub.repo}."
    if family.licence:
        yield _official(family.name, family.licence)
        for part in family.licence.parts:
            yield f"Parts of them are under, or were made of weights under, the {part.name}: {part.url}"


def _official(name: str, licence: Licence) -> str:
    return f"The official weights of {name} are under the {licence.name}: {licence.url}"
