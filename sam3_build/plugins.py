"""The vocabulary of plug-ins: what a patch, precision, backend or stage says of itself. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.spec import Device, DeviceFingerprint, Gate, Json, Processors, Shapes, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]
    Picture = NDArray[np.uint8]

# What a stage's run() gets: parameters, then a path per input role, then the folder to write into; it returns facts.
StageRun = Callable[[Mapping[str, Json], Mapping[str, Path], Path], Mapping[str, Json]]


@dataclass(frozen=True)
class Patch:
    """A graph-surgeon rewrite. `apply` returns the number of rewrites; zero is an error, raised by the patch stage.

    requires(graph) -> None or what is missing; ensures(graph) -> None or what still is wrong. `graph` is a
    `onnx_graphsurgeon.Graph`, typed `object` here so that no heavy package is imported at load.
    """

    name: str
    summary: str
    requires: Callable[[object], str | None]
    apply: Callable[[object], int]
    ensures: Callable[[object], str | None]


@dataclass(frozen=True)
class NoOptions:
    """The options of a precision that has none of its own."""


def _keep_nothing(model: object, options: Mapping[str, Json]) -> Mapping[str, str]:
    return {}


# Metric -> threshold, a pair where it is a range: how far floating outputs of a precision's graph may be from what they
# are held against (see compare/statistics.py), and `rows`, how far rows that are fed again may be from themselves.
TensorGates = Mapping[str, float | tuple[float, float]]

# What every sound FP16 graph stays within.
SIXTEEN_BIT: TensorGates = {"cosine": 0.999, "max_abs_over_range": 0.02, "std_ratio": (0.98, 1.02), "rows": 0.02}


@dataclass(frozen=True)
class Precision:
    """A recipe that writes types into the graph. `onnx_type` is the ONNX element type of its low nodes: `FLOAT16`.

    gates:     of its floating outputs; given by keyword, they enter no key
    keep:      (an `onnx_ir.Model`, options) -> node name -> why: nodes that stay FP32 whatever the manifest adds.
               BuildError when the graph does not have what the options ask for
    options:   a frozen dataclass that the manifest boundary validates a component's keys with
    quantizes: operators whose activations and constant weights are INT8 between explicit Q/DQ pairs. Their ranges are
               calibrated on what PyTorch recorded, so that only such a precision takes `reference` as an input
    keeps_gemms: whether the recipe itself leaves matrix products in FP32, which a backend must then have kernels for
    """

    name: str
    summary: str
    onnx_type: str
    gates: TensorGates
    keep: Callable[[object, Mapping[str, Json]], Mapping[str, str]] = _keep_nothing
    options: type = NoOptions
    quantizes: tuple[str, ...] = ()
    keeps_gemms: bool = False

    @property
    def gemm_types(self) -> tuple[str, ...]:
        """The ONNX element types in which its matrix products compute, the low one first."""
        low = "INT8" if self.quantizes else self.onnx_type
        return tuple(dict.fromkeys((low, *(("FLOAT",) if self.keeps_gemms or self.quantizes else ()))))


@dataclass(frozen=True)
class BuildRequest:
    """What a backend's build gets: the ONNX file, the file stem to write, its own options and the profiles.

    profiles: input name -> (min, opt, max) shapes, one mapping per TensorRT optimization profile, in order
    device:   the GPU to build on and its free memory in bytes, for targets that need one to build
    scratch:  a folder for what only saves time (timing caches), where there is one
    """

    onnx: Path
    stem: str
    options: Mapping[str, Json]
    profiles: tuple[Mapping[str, Shapes], ...]
    device: DeviceFingerprint | None = None
    free_bytes: int | None = None
    scratch: Path | None = None


@dataclass(frozen=True)
class RunRequest:
    """What a backend's session gets: the folders of what was built and of the ONNX it was built from, and the stem.

    on_device: whether outputs may stay on the device, for a session of the same backend that takes them as they are.
               They have what arrays have that is fed on, are copied to the host when numpy reads them, and live no
               longer than the session. A backend whose outputs lie on the host anyway need not heed it
    """

    built: Path
    onnx: Path
    stem: str
    options: Mapping[str, Json]
    on_device: bool = False


class Session(Protocol):
    """A built file, loaded, that runs as often as it is asked to. One thread at a time."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What `run` takes, by name: numpy dtypes, and dims that are a size or, where any size does, a symbol or ""."""

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs by name, as arrays of the caller's own, which no later run writes to.

        arrays: every input, and nothing else, with the dtype and the fixed sizes that `inputs` has
        BuildError when they are not that, when no shape profile takes their shapes, or when the library fails.
        """


@dataclass(frozen=True)
class Backend:
    """One way to run a component. All callables but `build`, `session` and `layer_types` import nothing heavy.

    product:       what it builds, as people call it: `TensorRT engines`
    options:       a frozen dataclass that the manifest boundary validates a target's keys with
    tools:         (options) -> the distributions whose versions enter the build key; `name:major` for the major version
    needs_gpu:     (options) -> which of "build" and "run" an NVIDIA GPU is needed for
    runs:          (options) -> whether what it builds must be run to be judged; no where `verify` runs the same anyway
    impossible:    (options, precision) -> why no machine can build this, or None; an error at load
    missing:       (options, device) -> why this machine cannot build, or None; the action is then *blocked*. The device
                   is there if one is needed to build
    cannot_run:    (options, device) -> why this machine cannot run what was built, or None; comparisons are then *not
                   run*. The device is there if one is needed to run
    device_fields: (options, device) -> the device fields that enter the build key
    build:         (request, out folder) -> facts; writes `<stem><extension>` into the folder
    session:       (request) -> a context in which what was built is loaded, and runs; without Polygraphy. An engine is
                   run under the first of its optimization profiles that takes the shapes of what it is fed
    probe:         () -> the devices that its own library finds here; imports it. Asked once, and remembered; the other
                   callables then get that as their device, or None where the library is not installed. None for a
                   backend that runs on NVIDIA's GPUs or needs no device
    lacks_kernels: (options, device, precision) -> why this machine cannot build this precision, or None; the action is
                   then *blocked*, and what other precisions need is built
    companions:    extensions of further files that it writes beside the first, which are shown and published with it
    layer_types:   (request) -> ONNX node name -> element type name in which the built thing computes it, as far as it
                   tells; None for a backend whose products cannot be inspected
    names_all_layers: whether `layer_types` tells of every GEMM, so that one that is missing there fails
    polygraphy:    (options, stem) -> the file that runs what was built and the options of `polygraphy run` by which it
                   does; None for a backend whose products Polygraphy cannot run
    variants:      (what to call it, options) of each way to use it, for `sam3-build device`
    """

    name: str
    summary: str
    product: str
    extension: str
    options: type
    tools: Callable[[Mapping[str, Json]], tuple[str, ...]]
    uses_profiles: bool
    env: Mapping[str, str]
    needs_gpu: Callable[[Mapping[str, Json]], tuple[str, ...]]
    runs: Callable[[Mapping[str, Json]], bool]
    impossible: Callable[[Mapping[str, Json], Precision], str | None]
    missing: Callable[[Mapping[str, Json], Device | None], str | None]
    cannot_run: Callable[[Mapping[str, Json], Device | None], str | None]
    device_fields: Callable[[Mapping[str, Json], Device | None], Mapping[str, Json]]
    build: Callable[[BuildRequest, Path], Mapping[str, Json]]
    session: Callable[[RunRequest], AbstractContextManager[Session]]
    variants: tuple[tuple[str, Mapping[str, Json]], ...]
    probe: Callable[[], Processors] | None = None
    lacks_kernels: Callable[[Mapping[str, Json], Device | None, Precision], str | None] | None = None
    companions: tuple[str, ...] = ()
    layer_types: Callable[[RunRequest], Mapping[str, str]] | None = None
    names_all_layers: bool = False
    polygraphy: Callable[[Mapping[str, Json], str], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Memory:
    """What a stage's worker has resident at its peak, in bytes: `base`, and so many per byte of two other things.

    weights:     of the component's weights, as the stage reads them
    activations: of the largest tensor that the network computes, all rows of the widest case together
    """

    base: int
    weights: float = 0.0
    activations: float = 0.0


# `Stage.imports` of stages that read ONNX, run PyTorch, or export; those that begin alike share a process. This model
# of transformers brings what all others need. onnxruntime is in none: it starts a thread, which a fork would not have.
ONNX = ("onnx_ir",)
TORCH = ("torch", "transformers.models.sam3.modeling_sam3")
EXPORTER = (*TORCH, "torch.onnx._internal.exporter._core", "onnxscript.optimizer", "onnxscript.rewriter.rules.common")


@dataclass(frozen=True)
class Stage:
    """One verb of the pipeline. `tools` are the distributions whose versions enter the key of its actions.

    `imports` are modules that it needs and that take long to import: one process imports them for many runs.
    `summary`, `memory` and `imports` change nothing that it writes; given by keyword, they enter no key.
    """

    name: str
    summary: str
    tools: tuple[str, ...]
    run: StageRun
    memory: Memory = Memory(base=1_000_000_000)
    imports: tuple[str, ...] = ()


# ------------------------------------------------------------------ what is measured and judged

Threshold = float | tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """A number that a comparison measures of an output, and what gates on it ask for. Declared once, read by all.

    title:    what tables call it
    asks:     what its gate asks for, in words, with the unit
    form:     how Python formats a value
    at_least: whether the threshold is a lower limit; else it is an upper one
    is_pair:  whether the threshold is a range
    bounds:   lowest and highest threshold that means something (None: no highest): a gate that nothing can fail is no
              gate
    exact, reduced: the default thresholds, of FP32 and of every other precision; None where there is no default gate
    """

    name: str
    title: str
    asks: str = ""
    form: str = ".3g"
    at_least: bool = False
    is_pair: bool = False
    bounds: tuple[float, float | None] = (0, None)
    exact: Threshold | None = None
    reduced: Threshold | None = None

    @classmethod
    def overlap(cls, name: str, title: str, asks: str, reduced: float = 0.98) -> Metric:
        """Return an IoU. Below a half two masks are not the same; rounding stays far within what is asked of FP32."""
        return cls(name, title, asks, ".5f", at_least=True, bounds=(0.5, 1), exact=0.999, reduced=reduced)

    @classmethod
    def none(cls, name: str, title: str, asks: str) -> Metric:
        """Return a number of things of which there must be none."""
        return cls(name, title, asks, exact=0.0, reduced=0.0)

    @classmethod
    def scores(cls, asks: str) -> Metric:
        """Return a difference of scores, which are from 0 to 1."""
        return cls("score", "score diff", asks, bounds=(0, 0.5), exact=1e-3, reduced=0.02)

    def gate(self, threshold: Threshold) -> Gate:
        """Return the gate with this threshold."""
        return Gate(self.name, threshold, self.at_least)


@dataclass(frozen=True)
class ComparedCase:
    """A case that ran on both sides: the last component's outputs of PyTorch and of what is compared, by name.

    samples: which sample of the manifest each row is
    frames:  how many frames each sample has; 0 of pictures
    like:    the case that it is with its objects in another order, which must change nothing
    expected, actual: read the arrays, batch first; BuildError when the case is missing
    """

    name: str
    samples: tuple[int, ...]
    frames: int
    like: str
    expected: Callable[[], Arrays]
    actual: Callable[[], Arrays]


@dataclass(frozen=True)
class CompareRequest:
    """What a kind of result compares: everything that it needs to know of a pipeline, and of no family.

    samples: number in the manifest -> document (params.SampleParams); what prompts it has is the pipeline's business
    picture: (sample, frame) -> [height, width, 3], RGB, upright; frame 0 of a picture
    find:    (outputs, (height, width), score threshold) -> the result, of the kind's own class; the family's code
    target:  what computed `actual`; parity: what agreement is called, as words that follow it
    draws:   whether pictures are written; without them only what is returned is of use
    """

    cases: Iterable[ComparedCase]
    samples: Mapping[int, Mapping[str, Json]]
    picture: Callable[[int, int], Picture]
    find: Callable[[Arrays, tuple[int, int], float], object]
    score_threshold: float
    target: str
    parity: str
    draws: bool = True


@dataclass(frozen=True)
class ResultKind:
    """What a pipeline gives, such as instances in pictures: how two results are paired, measured and drawn.

    metrics: what `compare` measures, but for `nonfinite` and `incomparable`, which every comparison has; given by
             keyword, they enter no key
    compare: (request, out folder) -> what `statistics.json` holds of its output, in the shape of a tensor's statistics:
             `metrics`, and where there is reason to, `not_run`, `where`, `problems`, `absent` (metrics that this family
             does not have). Writes a sheet of all samples, an overlay of each picture, and the details for the report
             (`drawing/sheet.SHEET`, `compare/details`)
    """

    name: str
    summary: str
    metrics: tuple[Metric, ...]
    compare: Callable[[CompareRequest, Path], Mapping[str, Json]]

    @property
    def output(self) -> str:
        """What comparisons call the one output of a pipeline."""
        return self.name
