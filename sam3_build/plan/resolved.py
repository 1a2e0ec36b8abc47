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
from sam3_build.plugins import Backend, Precision
from sam3_build.spec import BASELINE, ComponentSpec, DeviceFingerprint, Feed, Input, Json, ModelFamily, Profile

# What runs a graph that no target names.
GRAPH = "onnxruntime"

# output -> metric -> threshold
Tolerances = Mapping[str, Mapping[str, float | tuple[float, float]]]


@dataclass(frozen=True)
class ResolvedTarget:
    """What a component is built for.

    profiles:   those of the engine, in its order, of the component's own dims: others must not reach its key
    device:     this machine's GPU
    blocked:    why it cannot be built here, or None
    cannot_run: why what is built cannot be run here, or None
    is_run:     whether what is built has to be run to be judged
    """

    name: str
    backend: Backend
    options: Mapping[str, Json]
    profiles: tuple[Profile, ...]
    device: DeviceFingerprint | None
    blocked: str | None
    cannot_run: str | None
    is_run: bool

    @property
    def runs_here(self) -> bool:
        """Whether what is built has to be run, and can be."""
        return self.is_run and not self.cannot_run

    def gpu(self, verb: str) -> DeviceFingerprint | None:
        """Return the GPU that it needs to "build" or "run"; None where it needs none."""
        return self.device if verb in self.backend.needs_gpu(self.options) else None

    def takes_one_row(self, row_dim: str) -> bool:
        """Return whether none of its profiles takes two rows at once."""
        largest = [profile.get(row_dim, (1, 1, 1))[2] for profile in self.profiles]
        return self.backend.uses_profiles and all(rows < 2 for rows in largest)


@dataclass(frozen=True)
class ResolvedPrecision:
    """One component in one precision.

    keep_fp32:  the manifest's patterns on the names of nodes that stay FP32
    tolerances: output -> metric -> threshold, put over the default gates
    targets:    by name; none for a baseline that is only measured
    fp32_engines:  whether the manifest builds FP32 for its targets
    """

    component: ResolvedComponent
    recipe: Precision
    keep_fp32: tuple[str, ...]
    options: Mapping[str, Json]
    lock: Lock | None
    tolerances: Tolerances
    targets: Mapping[str, ResolvedTarget]
    fp32_engines: bool

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
class ResolvedComponent:
    """One component, whatever its precision. `network` is what the family's forward code calls it.

    upstream: the components that feed it; feeds: how
    row_dim:  the open dim that comes first in all its inputs and outputs, if there is one
    starts_pipeline: whether it runs on samples alone, in a pipeline that reads its outputs
    """

    spec: ComponentSpec
    network: str
    upstream: tuple[str, ...]
    feeds: tuple[Feed, ...]
    row_dim: str | None
    dynamic_dims: tuple[str, ...]
    opset: int
    patches: tuple[str, ...]
    starts_pipeline: bool


@dataclass(frozen=True)
class ResolvedGap:
    """What is measured between two references: `network` feeds text-only samples as `name` does.

    component: of any layout, one whose networks feed themselves
    owners:    the components that have the other weights of its modules
    codes:     the code bases, the manifest's reference first
    """

    name: str
    component: ResolvedComponent
    owners: tuple[str, ...]
    text_only: tuple[int, ...]
    codes: tuple[str, str]


@dataclass(frozen=True)
class ResolvedModel:
    """A manifest's model.

    source, reads:  what its weights are in keys, and what they are read from
    components: all of the family, in its order
    recorded:  the components that PyTorch runs: those that are built, and all that feed them
    built:     component -> precision -> how
    result:    the component whose outputs a pipeline's result is made of; None where there is no pipeline to run
    gaps:      the other references
    result_tolerances: precision -> metric -> threshold, put over the default gates of a pipeline's result
    """

    family: ModelFamily
    reference: str
    checkpoint: Checkpoint
    tokenizer: Path | None
    padding: int
    score_threshold: float
    source: Mapping[str, Json]
    reads: Mapping[str, Path | Input]
    samples: tuple[SampleParams, ...]
    pictures: Mapping[str, Path]
    components: Mapping[str, ResolvedComponent]
    recorded: tuple[ResolvedComponent, ...]
    built: Mapping[str, Mapping[str, ResolvedPrecision]]
    result: str | None
    gaps: tuple[ResolvedGap, ...]
    result_tolerances: Mapping[str, Mapping[str, float | tuple[float, float]]]
