"""A manifest with all that a plan needs looked up: plug-ins, patterns, options, profiles, what this machine can run.

`resolve` makes these values, once; actions and comparisons are made from them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sam3_build.compare.judge import ENGINE_PARITY, RANGE_PARITY
from sam3_build.graph.emulation import emulates
from sam3_build.manifest.types import Checkpoint, Lock
from sam3_build.params import SampleParams
from sam3_build.pipeline.images import is_video
from sam3_build.plugins import Backend, Precision, ResultKind
from sam3_build.spec import (
    BASELINE,
    SAMPLES,
    ComponentSpec,
    Device,
    DeviceFingerprint,
    Feed,
    Input,
    Json,
    Loop,
    ModelFamily,
    Pipeline,
    Profile,
    Step,
)

# What runs a graph that no target names.
GRAPH = "onnxruntime"

# output -> metric -> threshold
Tolerances = Mapping[str, Mapping[str, float | tuple[float, float]]]


@dataclass(frozen=True)
class ResolvedTarget:
    """What a component is built for.

    profiles:   those of the engine, in its order, of the component's own dims: others must not reach its key
    device:     this machine's GPU, or the devices that the backend's library finds
    precisions: those that are built for it
    blocked:    why it cannot be built here, or None
    cannot_run: why what is built cannot be run here, or None
    is_run:     whether what is built has to be run to be judged
    """

    name: str
    backend: Backend
    options: Mapping[str, Json]
    profiles: tuple[Profile, ...]
    device: Device | None
    precisions: tuple[str, ...]
    blocked: str | None
    cannot_run: str | None
    is_run: bool

    @property
    def runs_here(self) -> bool:
        """Whether what is built has to be run, and can be."""
        return self.is_run and not self.cannot_run

    def gpu(self, verb: str) -> DeviceFingerprint | None:
        """Return the GPU that it needs to "build" or "run"; None where it needs none."""
        needed = verb in self.backend.needs_gpu(self.options)
        return self.device if needed and isinstance(self.device, DeviceFingerprint) else None

    @property
    def processor(self) -> str | None:
        """The backend, where its own library's device builds and runs."""
        return self.backend.name if self.backend.probe else None

    @property
    def builds_fp32(self) -> bool:
        """Whether FP32 is one of its precisions."""
        return BASELINE in self.precisions

    def takes_one_row(self, row_dim: str) -> bool:
        """Return whether none of its profiles takes two rows at once."""
        largest = [profile.get(row_dim, (1, 1, 1))[2] for profile in self.profiles]
        return self.backend.uses_profiles and all(rows < 2 for rows in largest)


@dataclass(frozen=True)
class ResolvedPrecision:
    """One component in one precision.

    keep_fp32:  the manifest's patterns on the names of nodes that stay FP32
    tolerances: output -> metric -> threshold, put over the default gates
    targets:    by name, those that it is built for; none for a baseline that is only measured
    """

    component: ResolvedComponent
    recipe: Precision
    keep_fp32: tuple[str, ...]
    options: Mapping[str, Json]
    lock: Lock | None
    tolerances: Tolerances
    targets: Mapping[str, ResolvedTarget]

    @property
    def stem(self) -> str:
        """`decoder.fp16`."""
        return f"{self.component.spec.name}.{self.recipe.name}"

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with it."""
        return self.recipe.name == BASELINE

    def parity(self, target: ResolvedTarget | None) -> str:
        """Return what follows the name of what is compared: what agreement is called, and whether it is emulated."""
        if target:
            return f" ({ENGINE_PARITY})"
        emulated = ", emulated" if emulates(self.recipe.onnx_type) else ""
        return emulated if self.is_baseline else f"{emulated} ({RANGE_PARITY})"


@dataclass(frozen=True)
class Recording:
    """What PyTorch recorded of a component in one pipeline: the cases that it is measured on.

    suffix: of the names of what is measured on it; empty for the first pipeline that runs the component
    keep_outputs: whether the pipeline goes on with what the component computes of it
    """

    pipeline: str
    suffix: str
    source: Input
    keep_outputs: bool


@dataclass(frozen=True)
class ResolvedComponent:
    """One component, whatever its precision. `network` is what the family's `modules.py` calls it.

    row_dim:  the open dim whose rows are independent, if there is one
    recordings: one for each pipeline that has samples and runs it
    """

    spec: ComponentSpec
    network: str
    row_dim: str | None
    dynamic_dims: tuple[str, ...]
    opset: int
    patches: tuple[str, ...]
    recordings: tuple[Recording, ...]

    @property
    def row_axes(self) -> Mapping[str, int]:
        """The axis along which rows lie, of each input and output that has any."""
        axes = {tensor.name: tensor.row_axis(self.row_dim) for tensor in (*self.spec.inputs, *self.spec.outputs)}
        return {name: axis for name, axis in axes.items() if axis is not None}

    @property
    def meaningful_where(self) -> Mapping[str, str]:
        """The logits that say which rows of an output mean anything, of each output that has such."""
        return {tensor.name: tensor.meaningful_where for tensor in self.spec.outputs if tensor.meaningful_where}

    @property
    def chosen_by(self) -> Mapping[str, str]:
        """The scores by which an output was chosen, of each output that is one of several candidates."""
        return {tensor.name: tensor.chosen_by for tensor in self.spec.outputs if tensor.chosen_by}


@dataclass(frozen=True)
class ResolvedStep:
    """A step or loop of a pipeline.

    suffix:  of the names of its actions; empty for the first pipeline that has it
    before:  the steps whose outputs feed it
    is_built: whether the manifest builds all its components
    """

    step: Step | Loop
    suffix: str
    before: tuple[str, ...]
    is_built: bool

    @property
    def name(self) -> str:
        """Its component, or the loop's name."""
        return self.step.name

    @property
    def reference(self) -> str:
        """The action that runs it in PyTorch."""
        return f"reference:{self.name}{self.suffix}"


@dataclass(frozen=True)
class ResolvedPipeline:
    """A pipeline that the manifest has samples for.

    label:    what comparisons, tolerances and files of the view call it
    suffix:   of the names of its actions; empty for the first one
    steps:    those that PyTorch runs: all that lead to a component that is built
    result:   the step whose outputs the result is made of; None where nothing is compared
    kind:     what that result is
    missing:  components that a result needs and the manifest does not build: those of loops
    tolerances: precision -> metric -> threshold, put over the default gates of its result
    """

    spec: Pipeline
    label: str
    suffix: str
    samples: tuple[SampleParams, ...]
    files: Mapping[str, Path]
    steps: Mapping[str, ResolvedStep]
    result: ResolvedStep | None
    kind: ResultKind | None
    missing: tuple[str, ...]
    tolerances: Mapping[str, Mapping[str, float | tuple[float, float]]]

    @property
    def samples_action(self) -> str:
        """The action that makes cases of its samples."""
        return f"{SAMPLES}{self.suffix}"

    @property
    def tools(self) -> tuple[str, ...]:
        """What reads its samples' files, beside what reads pictures: PyAV, where one is a video file."""
        clips = (self.files[role] for sample in self.samples if sample.frames for role in sample.pictures)
        return ("av",) if any(map(is_video, clips)) else ()

    @property
    def is_compared(self) -> bool:
        """Whether its result is compared."""
        return self.result is not None and not self.missing

    def built(self, model: ResolvedModel) -> tuple[str, ...]:
        """Return the components of the model that it runs and that are built."""
        return tuple(name for name in dict.fromkeys(self.spec.components) if name in model.built)


@dataclass(frozen=True)
class ResolvedGap:
    """What is measured between two references: `component` feeds some samples as `name` does.

    component: of any layout, one whose networks feed themselves; feeds: of its step there
    owners:    the components that have the other weights of its modules
    samples:   positions of the pipeline's samples that are concerned
    title:     what is compared, in words
    """

    name: str
    pipeline: ResolvedPipeline
    component: ResolvedComponent
    feeds: tuple[Feed, ...]
    absent: Mapping[str, Json]
    owners: tuple[str, ...]
    samples: tuple[int, ...]
    title: str


@dataclass(frozen=True)
class ResolvedModel:
    """A manifest's model.

    source, reads:  what its weights are in keys, and what they are read from
    components: all of the family, in its order
    pipelines: those that have samples, in the layout's order
    built:     component -> precision -> how
    gaps:      the other references
    """

    family: ModelFamily
    reference: str
    checkpoint: Checkpoint
    tokenizer: Path | None
    image_size: tuple[int, int] | None
    padding: int
    score_threshold: float
    source: Mapping[str, Json]
    reads: Mapping[str, Path | Input]
    components: Mapping[str, ResolvedComponent]
    pipelines: tuple[ResolvedPipeline, ...]
    built: Mapping[str, Mapping[str, ResolvedPrecision]]
    gaps: tuple[ResolvedGap, ...]

    @property
    def recorded(self) -> tuple[str, ...]:
        """The components that PyTorch runs: those that are built, and all that feed them."""
        run = {name for p in self.pipelines for step in p.steps.values() for name in step.step.components}
        return tuple(name for name in self.components if name in run or name in self.built)

    @property
    def after_samples(self) -> tuple[str, ...]:
        """The actions that look into samples: a mistake in one is found before anything takes long."""
        return tuple(pipeline.samples_action for pipeline in self.pipelines)
