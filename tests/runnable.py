"""A miniature's FP32 graphs as a folder that the runtime loads, for tests: what `doit model` and the judge write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import miniature

from sam3_build.documents import document_of, value_of
from sam3_build.model_format import VERDICTS, JudgedFile, ModelFile
from sam3_build.stages import model

COMPONENTS = ("vision_encoder", "text_encoder", "geometry_encoder", "decoder")


def write(
    folder: Path,
    precisions: tuple[str, ...] = ("fp32",),
    verdict: JudgedFile | None = None,
    manifest: str = miniature.MANIFEST,
) -> Path:
    """Write model.json, verdicts.json, the tokenizer and the graphs of a miniature into a new folder; return it.

    The stage's own code runs, on those of its inputs that need no engine. verdict: of every file; None for no entry
    """
    folder.mkdir(parents=True)
    params = miniature.params("model", manifest)
    files = [value_of(ModelFile, file) for file in params["files"]]
    graphs = [file for file in files if file.target is None and file.precision in precisions]
    stems = [f"{file.component}.{file.precision}" for file in graphs]
    inputs = {stem: miniature.folder(f"precision:{stem}", manifest) for stem in stems}
    inputs["config"] = miniature.folder("checkpoint", manifest) / "config.json"
    inputs |= miniature._session(manifest).plan.action("model").files  # the tokenizer, where the family has one
    model.run({**params, "files": [document_of(file) for file in graphs]}, inputs, folder)
    described = json.loads((folder / "model.json").read_bytes())
    for file, stem in zip(graphs, stems, strict=True):
        (folder / file.path).parent.mkdir(exist_ok=True)
        shutil.copy(inputs[stem] / f"{stem}.onnx", folder / file.path)
    if verdict:
        judged = {file["sha256"]: {"graph": document_of(verdict)} for file in described["files"]}
        (folder / VERDICTS).write_text(json.dumps(judged))
    return folder


# Of families with one pipeline, and of SAM 2, which has two.
PASSED = JudgedFile("pass", dict.fromkeys(("pipeline", "interactive", "video"), "pass"))
