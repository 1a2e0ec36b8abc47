"""Which files of a folder run: takes what is described and judged, returns one file per component, or why none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from sam3_build import registry
from sam3_build.errors import BuildError, NoDeviceError, did_you_mean
from sam3_build.machine import gpu
from sam3_build.model_format import GRAPH, FileVerdict, ModelFile, ModelPipeline
from sam3_build.plugins import Backend
from sam3_build.runtime.folder import GRAPHS, ModelFolder
from sam3_build.spec import BASELINE, Device, Processors, first_difference

AUTO = "auto"

# The order in which `auto` looks, by backend; what is not listed comes last.
PREFERENCE = ("tensorrt", "tensorrt_rtx", "openvino", GRAPHS)

# backend -> the device that it runs on here. NoDeviceError where it needs a GPU and there is none.
FindDevice = Callable[[Backend], Device]


@dataclass(frozen=True)
class Choice:
    """The files of a pipeline on one target in one precision, by component."""

    target: str
    precision: str
    files: Mapping[str, ModelFile]

    @property
    def backend(self) -> str:
        """The backend that runs them."""
        return next(iter(self.files.values())).backend

    @property
    def name(self) -> str:
        """`ada fp16`."""
        return f"{self.target} {self.precision}"


def find_device(backend: Backend) -> Device:
    """Return what a backend's own library finds, or this machine's GPU."""
    return backend.probe() if backend.probe else gpu.probe(os.environ)


def choose(
    folder: ModelFolder,
    pipeline: ModelPipeline,
    target: str = AUTO,
    precision: str | None = None,
    *,
    unverified: bool = False,
    find: FindDevice = find_device,
) -> Choice:
    """Return the first choice that passed and that this machine can run: by PREFERENCE, reduced precisions first.

    On ONNX Runtime `auto` takes FP32 alone. What was judged by an emulation only, what failed and what nobody judged
    is taken with `unverified`, and only where nothing that passed suits.

    BuildError says why each one was not taken.
    """
    choices = list(_choices(folder, pipeline))
    _require_known("target", target, [AUTO, *(choice.target for choice in choices)])
    if precision is not None:
        _require_known("precision", precision, [choice.precision for choice in choices])
    suiting = [c for c in choices if target in (AUTO, c.target) and precision in (None, c.precision)]
    if target == AUTO and precision is None:
        suiting = [c for c in suiting if c.backend != GRAPHS or c.precision == BASELINE]
    if not suiting:
        raise BuildError(
            f"{folder.path} has no {precision} for {target}; it has {', '.join(choice.name for choice in choices)}"
        )
    devices: dict[str, Device] = {}

    def asked(backend: Backend) -> Device:
        if backend.name not in devices:
            devices[backend.name] = find(backend)
        return devices[backend.name]

    runnable = {c.name: _cannot_run(c, pipeline, asked) for c in suiting}
    doubts = {c.name: _doubt(c, pipeline, folder) for c in suiting}
    for allowed in (False, True) if unverified else (False,):
        for choice in suiting:
            if runnable[choice.name] is None and (allowed or doubts[choice.name] is None):
                return choice
    lines = [f"  {c.name}: {runnable[c.name] or doubts[c.name]}" for c in suiting]
    advice = ""
    if not unverified and any(runnable[c.name] is None for c in suiting):
        advice = "\nrun `doit verify` where it was built, or allow files that did not pass (--unverified)"
    raise BuildError("\n".join([f"nothing in {folder.path} may run here:", *lines]) + advice)


def _choices(folder: ModelFolder, pipeline: ModelPipeline) -> Iterator[Choice]:
    """Yield what there is, complete or not, in the order in which it is looked at."""
    groups: dict[tuple[str, str], dict[str, ModelFile]] = {}
    for file in folder.description.files:
        if file.component in pipeline.components:
            groups.setdefault((file.target or GRAPHS, file.precision), {})[file.component] = file
    found = [Choice(target, precision, files) for (target, precision), files in groups.items()]
    if not found:
        raise BuildError(f"{folder.path} has no file of pipeline {pipeline.name}")

    def rank(choice: Choice) -> tuple[int, bool]:
        backend = choice.backend
        return PREFERENCE.index(backend) if backend in PREFERENCE else len(PREFERENCE), choice.precision == BASELINE

    yield from sorted(found, key=rank)


def _require_known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise BuildError(f"there is no {what} {name!r}{did_you_mean(name, set(known))}")


def _cannot_run(choice: Choice, pipeline: ModelPipeline, find: FindDevice) -> str | None:
    """Say why this machine cannot run a choice, or None."""
    if missing := [name for name in pipeline.components if name not in choice.files]:
        return f"the folder lacks {', '.join(missing)}"
    backend = registry.backend(choice.backend)
    if find_spec(choice.backend) is None:
        return f"the Python package {choice.backend} is not installed"
    for file in choice.files.values():
        device: Device | None = None
        if backend.probe or "run" in backend.needs_gpu(file.options):
            try:
                device = find(backend)
            except NoDeviceError as error:
                return f"it needs a CUDA GPU; {error}"
            if isinstance(device, Processors) and device.problem:
                return device.problem
        if why := backend.cannot_run(file.options, device):
            return why
        if other := first_difference(file.device, backend.device_fields(file.options, device)):
            return f"{file.path} was built for another device: {other}"
    return None


def _doubt(choice: Choice, pipeline: ModelPipeline, folder: ModelFolder) -> str | None:
    """Say what stands against relying on a choice, or None."""
    for file in choice.files.values():
        runs = file.target and registry.backend(file.backend).runs(file.options)
        judged = folder.verdicts.get(file.sha256, {}).get(str(file.target) if runs else GRAPH)
        if judged is None:
            return f"{file.path} is unverified: no verdict is known of it"
        if judged.verdict != FileVerdict.PASS:
            return f"{file.path}: {judged.verdict}"
        if judged.emulated:
            return f"{file.path} was judged by an emulation alone: nothing ran this very file"
        verdict = judged.pipelines.get(pipeline.label, FileVerdict.NOT_RUN)
        if pipeline.result and verdict != FileVerdict.PASS:
            return f"{file.path}: pipeline {pipeline.name}: {verdict}"
    return None
