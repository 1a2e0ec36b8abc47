"""The vocabulary: frozen dataclasses that every folder shares. Standard library only, small lookups at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from sam3_build.documents import Json as Json
from sam3_build.documents import Params

# The action that looks into the samples. What takes long waits for it: a mistake in a sample costs no hour of building.
SAMPLES = "samples"

# Every other precision is compared with this one, so it is planned and measured even where it is not selected.
BASELINE = "fp32"

# Smallest, usual and largest size of an open dim.
Range = tuple[int, int, int]

# The ranges of one optimization profile, by dim.
Profile = Mapping[str, Range]

# The smallest, usual and largest shape of a tensor.
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


# ------------------------------------------------------------------ models


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a component: numpy dtype name, and dims that are an int or a symbolic name.

    A name that the family's `dynamic_dims` lists stays symbolic in the ONNX; every other name is a size that the
    family's `static_dims(config)` gives.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class ComponentSpec:
    """One exported network: its tensors in order, the checkpoint prefixes it owns, and the nodes that stay FP32.

    `fp32_nodes` are `fnmatch` patterns on node names (coordinate arithmetic) that every reduced precision keeps.
    `networks` maps a reference to what the family's forward code calls the network that feeds itself that way; empty
    where the reference is a matter of feeding alone, and the network bears the component's name.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    modules: tuple[str, ...]
    fp32_nodes: tuple[str, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)

    @property
    def symbolic_dims(self) -> frozenset[str]:
        """The symbolic dims of the inputs."""
        return frozenset(dim for tensor in self.inputs for dim in tensor.dims if isinstance(dim, str))

    def network(self, reference: str) -> str:
        """Return the network that computes this component under `reference`."""
        return self.networks.get(reference, self.name)


@dataclass(frozen=True)
class Feed:
    """Declares that an input is made of other components' outputs, joined along `axis` in the order given.

    A source whose component did not run in a case (no geometry prompt under `reference: hf`) is left out of the join.
    """

    component: str
    input: str
    sources: tuple[tuple[str, str], ...]
    axis: int = 1


@dataclass(frozen=True)
class Layout:
    """One way to cut a model into files: components in topological order, the feeds between them, dims left open."""

    components: tuple[ComponentSpec, ...]
    feeds: tuple[Feed, ...]
    dynamic_dims: tuple[str, ...]


# The layout of a manifest that names none.
USUAL_LAYOUT = "v1"


@dataclass(frozen=True)
class CaseShape:
    """One run of the whole model on recorded samples: which samples its rows are, and the sizes of its open dims.

    A dim that the case does not have, or whose size cannot be known yet, is left out of `sizes`.
    """

    name: str
    samples: tuple[int, ...]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class CaseRequest:
    """What shapes of cases follow from: how many boxes each sample has, and by how many ignored ones a batch is padded.

    static: the model's static dims, as far as they are known
    """

    layout: str
    reference: str
    boxes: Sequence[int]
    padding: int
    static: Mapping[str, int]


def _no_cases(request: CaseRequest) -> tuple[CaseShape, ...]:
    return ()


@dataclass(frozen=True)
class ModelFamily:
    """A model family: its layouts, of which `layout` is the one meant, and how to size the static dims.

    `references` maps the name of each way to feed the model to the code base that feeds it so.
    `largest_tensor(component, config)` gives the bytes, in FP32, of the largest tensor inside a component for one row
    of a batch: how much memory running it takes.
    `cases` gives the shapes of the cases that samples become, so that profiles are checked against them before
    anything is built; `usual_static` are the published model's sizes, for a checkpoint whose config is not known yet.
    """

    name: str
    layouts: Mapping[str, Layout]
    references: Mapping[str, str]
    static_dims: Callable[[Mapping[str, Json]], Mapping[str, int]]
    largest_tensor: Callable[[str, Mapping[str, Json]], int]
    cases: Callable[[CaseRequest], tuple[CaseShape, ...]] = _no_cases
    usual_static: Mapping[str, int] = field(default_factory=dict)
    layout: str = USUAL_LAYOUT

    def laid_out(self, layout: str) -> ModelFamily:
        """Return the same family cut in another way."""
        return replace(self, layout=layout)

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """The components, in topological order."""
        return self.layouts[self.layout].components

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """Which outputs are which inputs."""
        return self.layouts[self.layout].feeds

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """The dims that stay symbolic in the ONNX."""
        return self.layouts[self.layout].dynamic_dims

    def component(self, name: str) -> ComponentSpec:
        """Return the component called `name` (KeyError when there is none)."""
        return {c.name: c for c in self.components}[name]

    def row_dim(self, component: ComponentSpec) -> str | None:
        """Return the open dim that comes first in all inputs and outputs, the rows of a batch; None without one."""
        first = {tensor.dims[0] if tensor.dims else 0 for tensor in (*component.inputs, *component.outputs)}
        return str(first.pop()) if len(first) == 1 and first <= set(self.dynamic_dims) else None

    def upstream(self, name: str) -> tuple[str, ...]:
        """Return the components whose outputs feed `name`, in topological order."""
        feeding = {source for f in self.feeds if f.component == name for source, _ in f.sources}
        return tuple(c.name for c in self.components if c.name in feeding)


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


# ------------------------------------------------------------------ plan


@dataclass(frozen=True)
class Input:
    """An input from another action: its whole output folder, or one file of it (and then only that file's digest)."""

    action: str
    file: str | None = None


@dataclass(frozen=True)
class Action:
    """One step of a plan. All but `name`, `uses`, `reads`, `after`, `gpu`, `view`, `env`, `blocked` enters its key.

    arguments: the parameters of its stage, typed; `params` is the document of them that the key holds
    recipe: module names below `sam3_build` whose code the action uses (`stages.export`, `families.sam3_image.forward`)
    uses:   names of the parts of its output that the plan uses: it fails when its record refuses one of them, such as a
            component whose weights are not finite. They are no parameter of the stage
    files:  role -> source file outside the store; its content digest enters the key, never its path
    reads:  role -> what another input already digests (a checkpoint, by its inventory of tensors): a source file, or
            a file of an action that stands among `inputs`
    after:  actions of which it reads nothing, and which must not have failed before it runs; they enter no key
    device: the device fields that the backend asked for; empty for actions that no device matters to
    gpu:    the UUID of the GPU that the action works on, whose lock it holds; enters no key
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
    view: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    blocked: str | None = None

    @cached_property
    def params(self) -> Mapping[str, Json]:
        """The parameters as the JSON document that the key holds and the worker gets."""
        return self.arguments.document()


@dataclass(frozen=True)
class Gate:
    """One threshold of the judge: `metric` must be at most / at least / within `threshold` (a number or a pair)."""

    metric: str
    threshold: float | tuple[float, float]


class Kind(StrEnum):
    """What a comparison looks at."""

    PARITY = "parity"  # tensors, output by output
    RESULT = "result"  # what the whole pipeline finds in pictures
    FILE = "file"  # a file that nothing runs here: an emulation of it is judged in its place


# Stands among a component's outputs for the types of its GEMMs.
TYPES = "types"
# Stands in a comparison for all components, run one after another.
PIPELINE = "pipeline"
# Its one output: what is found in the pictures.
INSTANCES = "instances"


@dataclass(frozen=True)
class Comparison:
    """What `doit verify` judges: the action that measured (or why none can run), and the gates per output.

    component: the component, or PIPELINE where all of them run one after another
    precision, target: what is compared; without a target it is the graph on ONNX Runtime's CPU
    depends_on: names of the comparisons without which this one proves nothing: when one of them fails, it is not judged
    informs: metric -> why it is reported and not judged
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

    @property
    def name(self) -> str:
        """Return what `depends_on` calls it: `decoder.fp16`, `decoder.fp16.ada`, `pipeline.fp16`."""
        own = Kind.FILE if self.kind == Kind.FILE else None
        return ".".join(part for part in (self.component, self.precision, self.target, own) if part)


@dataclass(frozen=True)
class Contrast:
    """A reference gap, reported and never judged: how far results differ when text-only prompts are fed another way.

    `reference` and `other` are the code bases whose ways are compared; `action` measured.
    """

    component: str
    reference: str
    other: str
    action: str


@dataclass(frozen=True)
class Plan:
    """All actions of a manifest in an order in which they can run, what is judged, and what is only reported."""

    manifest: str
    actions: tuple[Action, ...]
    comparisons: tuple[Comparison, ...]
    contrasts: tuple[Contrast, ...] = ()

    def action(self, name: str) -> Action:
        """Return the action called `name` (KeyError when there is none)."""
        return {a.name: a for a in self.actions}[name]
