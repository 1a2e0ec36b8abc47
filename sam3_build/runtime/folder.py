"""A folder of built files as its model.json and verdicts.json describe it: takes a path, returns both, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sam3_build.documents import Json, value_of
from sam3_build.errors import BuildError
from sam3_build.model_format import FORMAT, MODEL, VERDICTS, JudgedFile, ModelDescription, ModelFile, Verdicts

# What the graphs are called as a target: no manifest needs one for them.
GRAPHS = "onnxruntime"


@dataclass(frozen=True)
class ModelFolder:
    """A folder that was built or published.

    verdicts: by the sha256 of a file, and by the target that ran it or GRAPH; without an entry it is unverified
    """

    path: Path
    description: ModelDescription
    verdicts: Verdicts

    def file(self, name: str) -> Path:
        """Return the path of a file in it. BuildError when it is not there."""
        if not (path := self.path / name).is_file():
            raise BuildError(
                f"{self.path} lacks {name}, which its {MODEL} lists: copy the whole folder, or build again"
            )
        return path

    def require(self, file: ModelFile) -> None:
        """Hold a file and its companions to the digests that model.json lists; BuildError where one differs."""
        for name, wanted in {file.path: file.sha256, **file.companions}.items():
            with self.file(name).open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
            if found != wanted:
                raise BuildError(
                    f"{self.path / name} has the sha256 {found}, and {MODEL} lists {wanted}: it is not the file "
                    "that was described; copy it again, or run `doit model`"
                )


def open_folder(path: Path) -> ModelFolder:
    """Return what lies in a folder. BuildError when it has no model.json of this format, and what it lacks."""
    if not path.is_dir():
        raise BuildError(f"{path} is no folder; name artifacts/<manifest> or a published folder")
    document = _read(path / MODEL)
    if document is None:
        graphs = sorted(p.name for p in path.glob("*.onnx"))
        what = f"only {', '.join(graphs[:6])}" if graphs else "nothing that is described"
        raise BuildError(
            f"{path} has no {MODEL}, {what}: it says how pictures and words are prepared, which no ONNX file does; "
            "`doit model` writes it to artifacts/<manifest>, `doit publish` to what is published"
        )
    if (number := document.get("format")) != FORMAT:
        raise BuildError(
            f"{path / MODEL} has format {number!r}, and this sam3-build reads {FORMAT}: install a newer one"
        )
    verdicts = cast("Mapping[str, Mapping[str, Mapping[str, Json]]]", _read(path / VERDICTS) or {})
    try:
        return ModelFolder(
            path,
            value_of(ModelDescription, document),
            {
                sha256: {side: value_of(JudgedFile, judged) for side, judged in sides.items()}
                for sha256, sides in verdicts.items()
            },
        )
    except (BuildError, AttributeError) as error:
        raise BuildError(f"{path}: {MODEL} or {VERDICTS} is damaged: {error}") from error


def _read(path: Path) -> Mapping[str, Json] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BuildError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BuildError(f"{path} holds no object")
    return found
