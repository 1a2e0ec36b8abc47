"""The vocabulary of models, and of actions: frozen dataclasses that every folder shares. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sam3_build.actions import PIPELINE as PIPELINE
from sam3_build.actions import SAMPLES as SAMPLES
from sam3_build.actions import TYPES as TYPES
from sam3_build.actions import Action as Action
from sam3_build.actions import Comparison as Comparison
from sam3_build.actions import Device as Device
from sam3_build.actions import DeviceFingerprint as DeviceFingerprint
from sam3_build.actions import Gate as Gate
from sam3_build.actions import Input as Input
from sam3_build.actions import Kind as Kind
from sam3_build.actions import Plan as Plan
from sam3_build.actions import Processors as Processors
from sam3_build.actions import first_difference as first_difference
from sam3_build.documents import Json as Json

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
    `meaningful_where` names an output of the same component, a logit for each row, as the first dim counts them: where
    it is not positive, such as of a hidden object, the row of this output is a constant and is not compared.
    `chosen_by` names one, too, with a score of each candidate in a row: this output is of that with the largest score.
    Where another one is taken for a difference of rounding, the row is not compared (see compare/choices.py).
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    meaningful_where: str | None = None
    chosen_by: str | None = None

    def row_axis(self, row_dim: str | None) -> int | None:
        """Return the axis whose entries are rows; None where it has none, and every row gets the whole tensor."""
        return self.dims.index(row_dim) if row_dim in self.dims else None


@dataclass(frozen=True)
class ComponentSpec:
    """One exported network: its tensors in order, the checkpoint prefixes it owns, and the nodes that stay FP32.

    `row_dim` is the dim of independent rows, where it is not the first of all outputs; those without are alike for all.
    `fp32_nodes` are `fnmatch` patterns on node names (coordinate arithmetic) that every reduced precision keeps.
    `networks` maps a reference to what the family's `modules.py` calls the network that feeds itself that way; empty
    where the reference is a matter of feeding alone, and the network bears the component's name.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    modules: tuple[str, ...]
    fp32_nodes: tuple[str, ...] = ()
    row_dim: str | None = None
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
    """Declares that an input is made of what earlier steps computed, joined along `axis` in the order given.

    A source is (step, output). One whose step did not run in a case (no geometry prompt under `reference: hf`) is left
    out of the join.
    """

    input: str
    sources: tuple[tuple[str, str], ...]
    axis: int = 1


class Per(StrEnum):
    """How often a step runs."""

    CASE = "case"
    FRAME = "frame"


@dataclass(frozen=True)
class Step:
    """A component that runs once per case or per frame, on what is given and what earlier steps computed.

    A network without state is always a step, so that a change of another one does not run it again.
    """

    component: str
    feeds: tuple[Feed, ...] = ()
    per: Per = Per.CASE

    @property
    def name(self) -> str:
        """What feeds call it: its component."""
        return self.component

    @property
    def components(self) -> tuple[str, ...]:
        """The components that it runs: one."""
        return (self.component,)


@dataclass(frozen=True)
class Loop:
    """Components with state between them, which the family's host code calls as often as it needs.

    That is `loops.<name>(networks, given, frames) -> arrays` of the family (see `pipeline/loop.py`).

    outputs: names of the arrays that it returns
    given:  names of the arrays of a case's prompts that it reads
    feeds:  what it gets of earlier steps; of steps that run per frame, an array for each frame
    frames: names of the arrays that it gets for each frame: given ones, and inputs of `feeds`
    """

    name: str
    components: tuple[str, ...]
    outputs: tuple[str, ...]
    given: tuple[str, ...] = ()
    feeds: tuple[Feed, ...] = ()
    frames: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """One way to use a layout: prompts to arrays, components one after another, arrays to a result.

    prompts: a frozen dataclass: the keys that a sample has beside its picture or video (see `pipeline/prompts.py`)
    gives:   names of the arrays that prompts, pictures and frames can give
    result:  kind of result, a file of `results/`; None where what components compute is no result that can be compared
    """

    name: str
    prompts: type
    gives: tuple[str, ...]
    steps: tuple[Step | Loop, ...]
    result: str | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """The components that it runs, in order."""
        return tuple(name for step in self.steps for name in step.components)

    def step(self, name: str) -> Step | Loop:
        """Return the step or loop called `name` (KeyError when there is none)."""
        return {step.name: step for step in self.steps}[name]

    def before(self, name: str) -> tuple[str, ...]:
        """Return the steps whose outputs feed the step `name`, in order."""
        feeding = {source for feed in self.step(name).feeds for source, _ in feed.sources}
        return tuple(step.name for step in self.steps if step.name in feeding)


@dataclass(frozen=True)
class Layout:
    """One way to cut a model into files: the components, the pipelines that run them, dims left open.

    note:         what users must know
    reads_text:   whether a family with a tokenizer needs it here
    published_as: the product for which targets are published too, a file of `publish/formats/`; None for no such one
    gap:          what the family's references feed or compute differently; None where they agree
    """

    components: tuple[ComponentSpec, ...]
    pipelines: tuple[Pipeline, ...]
    dynamic_dims: tuple[str, ...]
    note: str | None = None
    reads_text: bool = True
    published_as: str | None = None
    gap: ReferenceGap | None = None

    def label(self, pipeline: str) -> str:
        """Return what comparisons, tolerances and files of the view call a pipeline: the only one, `pipeline`."""
        return pipeline if len(self.pipelines) > 1 else PIPELINE

    def owner(self, tensor: str) -> ComponentSpec | None:
        """Return the component whose modules have a tensor of this name, by the longest module's name; or None."""
        owned = [
            (len(module), c) for c in self.components for module in c.modules if f"{tensor}.".startswith(f"{module}.")
        ]
        return max(owned, key=lambda found: found[0])[1] if owned else None


# The usual layout of a family that declares no other.
USUAL_LAYOUT = "v1"


@dataclass(frozen=True)
class CaseShape:
    """One run of a pipeline on recorded samples: which samples its rows are, and the sizes of its open dims.

    A dim that the case does not have, or whose size cannot be known yet, is left out of `sizes`.
    """

    name: str
    samples: tuple[int, ...]  # positions among the samples of the request
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class CaseRequest:
    """What shapes of cases follow from: the prompts of a pipeline's samples, and by how much a batch is padded.

    prompts: of each sample of the pipeline, in order, its `Pipeline.prompts`
    numbers: where these stand among the manifest's samples
    static:  the model's static dims, as far as they are known
    """

    layout: str
    pipeline: str
    reference: str
    prompts: Sequence[object]
    numbers: Sequence[int]
    padding: int
    static: Mapping[str, int]


def _no_cases(request: CaseRequest) -> tuple[CaseShape, ...]:
    return ()


@dataclass(frozen=True)
class ReferenceGap:
    """What code bases do differently, and what measures that.

    prompts:   the prompts concerned, in words: `text-only prompts`
    concerns:  (a sample's prompts) -> whether it is one of them
    network:   a component of one of the family's layouts, with a network for each reference, fed by the steps that feed
               the component of its name: (layout, component). A layout that has such a component itself measures that
    absent:    what one row of such a prompt gives of the network's inputs, as nested tuples
    """

    prompts: str
    concerns: Callable[[object], bool]
    network: tuple[str, str]
    absent: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Licence:
    """The licence of the weights that a family's authors publish, as their repository states it.

    name: its SPDX identifier, or what its text calls itself
    url:  where the text can be read
    must_accompany: whether it lets nobody pass on what is made of the weights without a copy of its text
    parts: those of other models from which some of the weights were made, or distilled
    """

    name: str
    url: str
    must_accompany: bool = False
    parts: tuple[Licence, ...] = ()


@dataclass(frozen=True)
class ModelFamily:
    """A model family: its layouts and how to size the static dims.

    `layout` is the one that is meant; as declared, that of a manifest that names none.
    `references` maps each way to feed the model to the code base that does so.
    `largest_tensor(component, config)` gives the bytes, in FP32, of the largest tensor inside a component for one row
    of a batch: how much memory running it takes.
    `resized(config, (height, width))` gives the config for pictures of that size, or a BuildError; None for one size.
    `tokenizer` says where the tokenizer.json of its text encoder can be had; None for a family that reads no text.
    `weight_names` are what the authors' own weight files are called in a folder or at the hub, and `official_config`
    gives the config of such a file, a torch file that comes without one, from the shapes of its tensors by our names
    (BuildError where these fit none); None where a config must be named.
    `cases` gives the shapes of the cases that samples become, so that profiles are checked against them before
    anything is built; `usual_static` are the published model's sizes, for a checkpoint whose config is not known yet.
    `licence` is that of the authors' own weights; None where they publish none.
    """

    name: str
    layouts: Mapping[str, Layout]
    references: Mapping[str, str]
    static_dims: Callable[[Mapping[str, Json]], Mapping[str, int]]
    largest_tensor: Callable[[str, Mapping[str, Json]], int]
    resized: Callable[[Mapping[str, Json], tuple[int, int]], Mapping[str, Json]] | None = None
    tokenizer: str | None = None
    weight_names: tuple[str, ...] = ()
    official_config: Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Json]] | None = None
    cases: Callable[[CaseRequest], tuple[CaseShape, ...]] = _no_cases
    usual_static: Mapping[str, int] = field(default_factory=dict)
    licence: Licence | None = None
    layout: str = USUAL_LAYOUT

    def laid_out(self, layout: str) -> ModelFamily:
        """Return the same family cut in another way."""
        return replace(self, layout=layout)

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """The components, in topological order."""
        return self.layouts[self.layout].components

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """The ways to use them, the usual one first."""
        return self.layouts[self.layout].pipelines

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """The dims that stay symbolic in the ONNX."""
        return self.layouts[self.layout].dynamic_dims

    @property
    def text_tokenizer(self) -> str | None:
        """`tokenizer`, where this layout reads texts."""
        return self.tokenizer if self.layouts[self.layout].reads_text else None

    def component(self, name: str) -> ComponentSpec:
        """Return the component called `name` (KeyError when there is none)."""
        return {c.name: c for c in self.components}[name]

    def pipeline(self, name: str) -> Pipeline:
        """Return the pipeline called `name` (KeyError when there is none)."""
        return {p.name: p for p in self.pipelines}[name]

    def label(self, pipeline: str) -> str:
        """Return what comparisons, tolerances and files of the view call a pipeline: the only one, `pipeline`."""
        return self.layouts[self.layout].label(pipeline)

    def row_dim(self, component: ComponentSpec) -> str | None:
        """Return the open dim whose rows do not depend on each other: all outputs have it, and an input; or None."""
        first = {tensor.dims[0] if tensor.dims else 0 for tensor in component.outputs}
        usual = str(first.pop()) if len(first) == 1 else None
        found = component.row_dim or usual
        return found if found in self.dynamic_dims and found in component.symbolic_dims else None
