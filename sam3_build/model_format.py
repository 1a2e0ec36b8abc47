"""The vocabulary of model.json: what whoever runs built files has to know of them. Standard library only.

The file lies beside what it describes, in `artifacts/<manifest>/` and in every published folder. Verdicts are not in
it, for they depend on tolerances: `verdicts.json` has them, by sha256 of the file.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sam3_build.documents import Json, document_of
from sam3_build.spec import Feed, Loop, Profile, TensorSpec

# The version of the format; a reader refuses every other one.
FORMAT = 1

MODEL, VERDICTS, TOKENIZER = "model.json", "verdicts.json", "tokenizer.json"


@dataclass(frozen=True)
class ModelComponent:
    """A network: its tensors in order. A dim is a size, a name of `static` or an open one."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ModelStep:
    """A component that runs once per case or per frame (see `spec.Step`)."""

    component: str
    feeds: tuple[Feed, ...] = ()
    per: str = "case"


@dataclass(frozen=True)
class ModelPipeline:
    """One way to use the components.

    label:  what verdicts call it
    gives:  names of the arrays that pictures and prompts give
    steps:  in order; loops come after them
    result: the kind of result
    """

    name: str
    label: str
    gives: tuple[str, ...]
    steps: tuple[ModelStep, ...]
    loops: tuple[Loop, ...] = ()
    result: str | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """The components that it runs, in order."""
        return (*(step.component for step in self.steps), *(name for loop in self.loops for name in loop.components))


@dataclass(frozen=True)
class ModelFile:
    """One component in one precision, as one backend runs it.

    target:     of the manifest; None for the graph, which ONNX Runtime runs on any CPU
    options:    the backend's
    path:       from the folder of model.json
    sha256:     of that file, hex
    companions: path -> sha256 of further files that must lie beside it
    device:     the fields of the device that it is bound to
    profiles:   shape profiles, in the engine's order; row_dim, row_axes: as `pipeline/network.py` has them
    """

    component: str
    precision: str
    backend: str
    path: str
    target: str | None = None
    options: Mapping[str, Json] = field(default_factory=dict)
    sha256: str = ""
    companions: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, Json] = field(default_factory=dict)
    profiles: tuple[Profile, ...] = ()
    row_dim: str | None = None
    row_axes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelDescription:
    """All that model.json says.

    reference: which way of feeding a prompt the files follow
    config:    the model config, which pictures and prompts are prepared by
    static:    name -> size of the dims that the config fixes
    tokenizer: the name of its file, where the family reads text
    withheld:  what a published folder leaves out although the manifest makes it, and why
    """

    format: int
    family: str
    layout: str
    reference: str
    score_threshold: float
    config: Mapping[str, Json]
    static: Mapping[str, int]
    components: tuple[ModelComponent, ...]
    pipelines: tuple[ModelPipeline, ...]
    files: tuple[ModelFile, ...]
    tokenizer: str | None = None
    withheld: Mapping[str, str] = field(default_factory=dict)


class FileVerdict(StrEnum):
    """What the judge knows of a file."""

    PASS = "pass"  # noqa: S105  (no password)
    FAIL = "fail"
    NOT_JUDGED = "not judged"  # something that it depends on failed
    NOT_RUN = "not run"


@dataclass(frozen=True)
class JudgedFile:
    """One entry of verdicts.json.

    verdict:   the worst of the component's own comparisons
    pipelines: label -> the verdict of its result in this precision, on this target
    emulated:  whether an emulation of the file was run, and not the file
    """

    verdict: str
    pipelines: Mapping[str, str] = field(default_factory=dict)
    emulated: bool = False


# What ran a graph that no target runs: ONNX Runtime on a CPU, or an emulation.
GRAPH = "graph"

# sha256 of a file -> the target that ran it, or GRAPH -> what came of it.
Verdicts = Mapping[str, Mapping[str, JudgedFile]]


def made_by(file: ModelFile, roles: Container[str]) -> tuple[str, str]:
    """Return which of the inputs of stage `model` holds a file, and how its path begins: the rest follows its stem.

    `("decoder.fp16.ada", "decoder/decoder.fp16.ada")` of an engine, `("decoder.fp16", "decoder/decoder.fp16")` of a
    graph.
    """
    stem = f"{file.component}.{file.precision}"
    role = f"{stem}.{file.target}"
    role = role if role in roles else stem
    return role, f"{file.component}/{role}"


def text_of(description: ModelDescription) -> bytes:
    """Return what is written to model.json."""
    return (json.dumps(document_of(description), indent=1, allow_nan=False) + "\n").encode()


def verdicts_text(verdicts: Verdicts) -> bytes:
    """Return what is written to verdicts.json."""
    documents = {
        sha256: {side: document_of(sides[side]) for side in sorted(sides)} for sha256, sides in sorted(verdicts.items())
    }
    return (json.dumps(documents, indent=1) + "\n").encode()
