"""Takes what was built and the model config, returns model.json: what whoever runs the files has to know of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.model_format import MODEL, TOKENIZER, ModelFile, made_by, text_of
from sam3_build.params import ModelParams
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import Json


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `model.json`, and beside it `tokenizer.json` of a family that reads text.

    document: ModelParams
    inputs: config; tokenizer, where the family has one; `<component>.<precision>`, the folder of the graph, and
            `<component>.<precision>.<target>`, the folder of what was built of it
    """
    params = ModelParams.of(document)
    code = registry.family_code(params.family)
    config = json.loads(inputs["config"].read_bytes())
    tokenizer = inputs.get("tokenizer")
    files = tuple(_digested(file, inputs) for file in params.files)
    description = params.description(config, code.family.static_dims(config), files, tokenizer is not None)
    if tokenizer:
        shutil.copyfile(tokenizer, out / TOKENIZER)
    (out / MODEL).write_bytes(text_of(description))
    return {"files": len(files)}


def _digested(file: ModelFile, inputs: Mapping[str, Path]) -> ModelFile:
    """Return a file with the sha256 of its bytes and of what lies beside it."""
    role, start = made_by(file, inputs)
    folder, stem = inputs[role], f"{file.component}.{file.precision}"

    def digest(path: str) -> str | None:
        source = folder / f"{stem}{path.removeprefix(start)}"
        if not source.is_file():
            return None
        with source.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    sha256 = digest(file.path)
    if sha256 is None:
        raise BuildError(f"{file.path} was not written by the action that makes it: it wrote {_names(folder)}")
    beside = {path: digest(path) for path in (*file.companions, f"{file.path}.data")}
    return replace(file, sha256=sha256, companions={path: value for path, value in beside.items() if value})


def _names(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"


STAGE = Stage(
    name="model",
    summary="Describe what was built for those who run it",
    tools=(),
    run=run,
    memory=Memory(base=200_000_000),
)
