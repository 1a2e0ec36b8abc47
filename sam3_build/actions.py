"""The vocabulary of plans: actions, the devices that they may be bound to, and what is judged of what they make.

Imported through `spec`, as all of the vocabulary is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from sam3_build.documents import Json, Params

# The stage that looks into samples, and its first action. What takes long waits for it: a mistake costs no building.
SAMPLES = "samples"

# What comparisons and tolerances call the pipeline of a layout that has one only.
PIPELINE = "pipeline"


# ------------------------------------------------------------------ devices


@dataclass(frozen=True)
class DeviceFingerprint:
    """One NVIDIA GPU, as far as engines are bound to it.

    gpu_class: os, name, compute_capability, sm_count, l2_bytes, memory_bus_bits, shared_memory_per_block_optin,
               shared_memory_per_sm, reserved_shared_memory_per_block, texture_alignment, integrated, ecc, memory_mib
    driver:    version of the driver, such as "580.65.06"; cuda: the newest CUDA that it runs, such as "13.0"
    uuid, index: which GPU it is. They lead to its lock and enter no key: equal GPUs share engines
    """

    gpu_class: Mapping[str, Json]
    driver: str
    cuda: str
    uuid: str
    index: int

    @property
    def fields(self) -> dict[str, Json]:
        """Return all that a key may take: the class and the driver, whole and its major version."""
        major = self.driver.partition(".")[0]
        return {**self.gpu_class, "driver_major": major, "driver": self.driver, "cuda": self.cuda}


@dataclass(frozen=True)
class Processors:
    """What a backend's own library finds on this machine: by its name for a device, the fields that keys may take.

    problem: why the library could not be asked; None when it answered
    """

    devices: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    problem: str | None = None


def first_difference(expected: Mapping[str, Json], actual: Mapping[str, Json]) -> str | None:
    """Return the first of the `expected` fields of a device that is another one in `actual`, in words, or None."""
    for name, value in expected.items():
        if actual.get(name) != value:
            return f"its {name} is {value!r}, and this machine has {actual.get(name)!r}"
    return None


# What a backend is asked about: the GPU or, of one whose library has devices of its own, those.
Device = DeviceFingerprint | Processors


# ------------------------------------------------------------------ plan


@dataclass(frozen=True)
class Input:
    """An input from another action: its whole output folder, or one file or subfolder of it, and then only that digest.

    file: a file's name; folder: a subfolder's, in which there is no other one
    """

    action: str
    file: str | None = None
    folder: str | None = None


@dataclass(frozen=True)
class Action:
    """One step of a plan. No key has its name, `uses`, `reads`, `after`, `gpu`, `processor`, `view`, `env`, `blocked`.

    arguments: the parameters of its stage, typed; `params` is the document of them that the key holds
    recipe: module names below `sam3_build` whose code the action uses (`stages.export`, `families.sam3_image.modules`)
    uses:   names of the parts of its output that the plan uses: it fails when its record refuses one of them, such as a
            component whose weights are not finite. They are no parameter of the stage
    files:  role -> source file outside the store; its content digest enters the key, never its path
    reads:  role -> what another input already digests (a checkpoint, by its inventory of tensors): a source file, or
            a file of an action that stands among `inputs`
    after:  actions of which it reads nothing, and which must not have failed before it runs; they enter no key
    device: the device fields that the backend asked for; empty for actions that no device matters to
    gpu:    the UUID of the GPU that the action works on, whose lock it holds; enters no key
    processor: the backend on whose library's device it works; enters no key
    view:   output file -> readable path relative to `artifacts/<manifest>/`
    """

    name: str
    stage: str
    arguments: Params
    recipe: tuple[str, ...]
    tools: tuple[str, ...]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    uses: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    reads: Mapping[str, Path | Input] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    device: Mapping[str, Json] = field(default_factory=dict)
    gpu: str | None = None
    processor: str | None = None
    view: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    blocked: str | None = None

    @cached_property
    def params(self) -> Mapping[str, Json]:
        """The parameters as the JSON document that the key holds and the worker gets."""
        return self.arguments.document()


@dataclass(frozen=True)
class Gate:
    """One threshold of the judge: `metric` must be at most `threshold`, `at_least` that, or within a pair of them."""

    metric: str
    threshold: float | tuple[float, float]
    at_least: bool = False


class Kind(StrEnum):
    """What a comparison looks at."""

    PARITY = "parity"  # tensors, output by output
    RESULT = "result"  # what the whole pipeline finds in pictures
    FILE = "file"  # a file that nothing runs here: an emulation of it is judged in its place
    GAP = "gap"  # what another reference changes: reported only


# Stands among a component's outputs for the types of its GEMMs.
TYPES = "types"


@dataclass(frozen=True)
class Comparison:
    """What `doit verify` judges: the action that measured (or why none can run), and the gates per output.

    component: the component, or the label of the pipeline in which several run one after another
    pipeline:  the label of the pipeline whose samples it is measured on
    suffix:    of its name, which tells it from another pipeline's
    precision, target: what is compared; without a target it is the graph on ONNX Runtime's CPU
    depends_on: names of the comparisons without which this one proves nothing: when one of them fails, it is not judged
    informs: metric -> why it is reported and not judged
    result: of a pipeline, the kind of its result
    """

    component: str
    label: str
    precision: str
    target: str | None
    action: str | None
    not_run: str | None
    outputs: tuple[str, ...]
    gates: Mapping[str, tuple[Gate, ...]]
    kind: Kind = Kind.PARITY
    depends_on: tuple[str, ...] = ()
    informs: Mapping[str, str] = field(default_factory=dict)
    pipeline: str = PIPELINE
    suffix: str = ""
    result: str | None = None

    @property
    def name(self) -> str:
        """Return what `depends_on` calls it: `decoder.fp16`, `decoder.fp16.ada`, `pipeline.fp16`."""
        own = self.kind if self.kind in (Kind.FILE, Kind.GAP) else None
        return ".".join(part for part in (self.component, self.precision, self.target, own) if part) + self.suffix


@dataclass(frozen=True)
class Plan:
    """All actions of a manifest in an order in which they can run, and what is judged or only reported."""

    manifest: str
    actions: tuple[Action, ...]
    comparisons: tuple[Comparison, ...]

    def action(self, name: str) -> Action:
        """Return the action called `name` (KeyError when there is none)."""
        return {a.name: a for a in self.actions}[name]
