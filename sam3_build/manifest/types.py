"""What a manifest says, once it is checked: frozen dataclasses, and no code that reads anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sam3_build.spec import Json, Profile


class Hub(NamedTuple):
    """A model at the Hugging Face hub, and its branch, tag or commit."""

    repo: str
    revision: str


class Download(NamedTuple):
    """A file at a URL, and the sha256 (hex) of its bytes."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """Where weights come from, as declared: drawn from a `seed`, a model at the `hub`, a file or folder at `path`, or
    a `download`.

    The other three are None. `config` is the model's as declared, if it was. `files` are the files of this machine that
    all this leads to, by role (see weight_files.py); those at a path are looked for anew on every start. `weights` is
    the name of a state dict in the file, and `licence` the file of the weights' licence, if they were declared.
    """

    seed: int | None
    hub: Hub | None
    path: Path | None
    config: Path | None
    files: Mapping[str, Path]
    weights: str | None = None
    licence: Path | None = None
    download: Download | None = None

    @property
    def is_downloaded(self) -> bool:
        """Whether the `checkpoint` action downloads the weights."""
        return self.hub is not None or self.download is not None


@dataclass(frozen=True)
class PrecisionOptions:
    """What a component adds to a precision: `fnmatch` patterns on node names that stay FP32, and the recipe's options.

    The options are JSON, defaults filled in.
    """

    keep_fp32: tuple[str, ...]
    options: Mapping[str, Json]


@dataclass(frozen=True)
class Component:
    """A component to build; `opset` None means the manifest's."""

    opset: int | None
    patches: tuple[str, ...]
    precisions: Mapping[str, PrecisionOptions]


@dataclass(frozen=True)
class Target:
    """What to build for: a backend, the profiles of its engines, and its options as JSON, defaults filled in.

    precisions: those of the manifest that are built for it, in its order
    allow_unverified: whether what was not run is published all the same, and says so; no key has it
    """

    backend: str
    shape_profiles: tuple[str, ...]
    options: Mapping[str, Json]
    precisions: tuple[str, ...]
    allow_unverified: bool = False


@dataclass(frozen=True)
class Sample:
    """A picture or a clip, and what is asked of it, by the pipeline that takes that.

    pictures: the picture; of a clip its first frames, in order, or the one file that holds them all
    video:    the folder or file of a clip
    frames:   how many frames of a clip are taken; reverse: from the last one to the first
    prompts:  a `Pipeline.prompts` as a document (`documents.document_of`); a mask is a key of `masks`
    """

    pipeline: str
    pictures: tuple[Path, ...]
    prompts: Mapping[str, Json]
    masks: Mapping[str, Path] = field(default_factory=dict)
    video: Path | None = None
    frames: int = 0
    reverse: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it reads."""
        return (*self.pictures, *self.masks.values())


class Lock(NamedTuple):
    """What a search found: the fingerprint of the graph that it searched, and its nodes that stay FP32.

    Nodes are named literally, sorted.
    """

    graph: str
    keep_fp32: tuple[str, ...]


class SourceFile(NamedTuple):
    """A file that was read, and the sha256 (hex) of the bytes it held then."""

    path: Path
    sha256: str


Tolerances = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float | tuple[float, float]]]]]


@dataclass(frozen=True)
class Manifest:
    """A checked manifest: every name in it exists, every path leads to a file. All mappings keep the YAML's order.

    tokenizer:      None for the one that the checkpoint brings from the hub
    shape_profiles: profile -> dim -> (min, opt, max)
    score_threshold: what an instance's score must be above, 0 to 1
    tolerances:     precision -> component -> output -> metric -> threshold or (low, high)
    files:          the files read: the manifest, then what it extends, its lock, and the model config
    locks:          component -> precision -> what `sam3-build search` found, from the manifest's lock file
    padding:        how many ignored boxes pad a batch of samples: 0 where a target takes no more than they have
    notes:          what a user must know before anything is built, and is no error, one `file:line: ...` each
    image_size:     height and width of the pictures that networks see; None for what the model's config says
    """

    name: str
    path: Path
    family: str
    layout: str
    checkpoint: Checkpoint
    reference: str
    tokenizer: Path | None
    opset: int
    components: Mapping[str, Component]
    shape_profiles: Mapping[str, Profile]
    precisions: tuple[str, ...]
    targets: Mapping[str, Target]
    samples: tuple[Sample, ...]
    score_threshold: float
    tolerances: Tolerances
    files: tuple[SourceFile, ...]
    locks: Mapping[str, Mapping[str, Lock]] = field(default_factory=dict)
    padding: int = 1
    notes: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
