"""Takes a session, raises a ManifestError of all that is wrong with its samples, with file and line. Runs nothing.

What is wrong is found by the family's own check, which the `samples` action runs as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sam3_build.errors import BuildError, Keys, ManifestError, shown
from sam3_build.execution.session import Session
from sam3_build.manifest import samples
from sam3_build.spec import SAMPLES


def refuse_wrong_samples(session: Session) -> None:
    """Raise a ManifestError of all that can be known to be wrong. Opens no picture while `samples` is fresh."""
    manifest = session.manifest
    tokenizer, config = manifest.tokenizer, manifest.checkpoint.files.get("config")
    actions = [action for action in session.plan.actions if action.stage == SAMPLES]
    try:
        answers = [session.resolver.resolve(action.name) for action in actions]
        if all(answer.record for answer in answers):
            return
        if not answers[0].waits_for:  # then the checkpoint has made what the action will be given
            paths = session.resolver.input_paths(actions[0])
            tokenizer, config = paths.get("tokenizer"), paths["config"]
    except BuildError:
        pass  # a picture that cannot be read is reported below, with its line
    found = samples.problems(manifest.family, dict(enumerate(manifest.samples)), tokenizer, config)
    if found:
        raise ManifestError(located(manifest.path, found))


def located(manifest: Path, problems: Sequence[tuple[Keys, str]]) -> list[str]:
    """Return each problem as `file:line: path: what`, of the file as it is now; without a place where it has none.

    To look up the lines only here keeps them out of plans and keys.
    """
    from sam3_build.manifest.extends import read
    from sam3_build.manifest.load import line
    from sam3_build.manifest.yaml_tree import Problem

    root = read(manifest).root
    if root is None:
        return [f"{shown(keys)}: {text}" for keys, text in problems]
    return [line(Problem(root.value_place(keys), keys, text)) for keys, text in problems]
