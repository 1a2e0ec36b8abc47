"""What the plan holds of a component in one precision: builds, verdicts and what the judge compares. Pure.

build:<component>.<precision>.<target>    for every target
verify:<component>.<precision>            the graph, on ONNX Runtime's CPU
verify:<component>.<precision>.<target>   what was built, run on this machine's GPU, where it can be
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sam3_build import registry
from sam3_build.compare import trust
from sam3_build.compare.judge import ENGINE_PARITY, RANGE_PARITY, gates_for
from sam3_build.digest import canonical
from sam3_build.manifest.types import Manifest, Target
from sam3_build.spec import BASELINE, Action, Comparison, ComponentSpec, DeviceFingerprint, Input, Json


@dataclass(frozen=True)
class Machine:
    """This machine's GPU, if it has one that can be used; else `no_device` says why, after "needs a CUDA GPU; "."""

    device: DeviceFingerprint | None
    no_device: str

    def blocked(self, target: Target) -> str | None:
        """Return why the target cannot be built here, or None."""
        backend = registry.backend(target.backend)
        if self.device is None and "build" in backend.needs_gpu(target.options):
            return f"building {backend.product} needs a CUDA GPU; {self.no_device}"
        return backend.missing(target.options, self.device)

    def cannot_run(self, target: Target) -> str | None:
        """Return why what is built for the target cannot be run here, or None."""
        backend = registry.backend(target.backend)
        if self.device is None and "run" in backend.needs_gpu(target.options):
            return f"running {backend.product} needs a CUDA GPU; {self.no_device}"
        return backend.cannot_run(target.options, self.device) or self.blocked(target)


@dataclass(frozen=True)
class Here:
    """What this machine does with each target of a manifest: why it cannot be built, why not run, or None for "can"."""

    device: DeviceFingerprint | None
    blocked: Mapping[str, str | None]
    cannot_run: Mapping[str, str | None]


def here(manifest: Manifest, machine: Machine) -> Here:
    """Ask once for all targets alike: to learn whether a library is installed takes longer than the rest of a plan."""
    answers: dict[bytes, tuple[str | None, str | None]] = {}
    by_target = {}
    for name, target in manifest.targets.items():
        kind = canonical([target.backend, target.options])
        if kind not in answers:
            answers[kind] = (machine.blocked(target), machine.cannot_run(target))
        by_target[name] = answers[kind]
    runs = [n for n, t in manifest.targets.items() if registry.backend(t.backend).runs(t.options)]
    return Here(
        machine.device,
        {name: blocked for name, (blocked, _) in by_target.items()},
        {name: by_target[name][1] for name in runs},
    )


def wants_device(manifest: Manifest) -> bool:
    """Tell whether a target of the manifest is built or run on a GPU, so that it matters which one is here."""
    return any(registry.backend(t.backend).needs_gpu(t.options) for t in manifest.targets.values())


# ------------------------------------------------------------------ actions


def build(manifest: Manifest, spec: ComponentSpec, precision: str, name: str, here: Here) -> Action:
    """Return the action that builds for the target `name`."""
    target = manifest.targets[name]
    backend = registry.backend(target.backend)
    stem = f"{spec.name}.{precision}"
    on_gpu = here.device if "build" in backend.needs_gpu(target.options) else None
    return Action(
        name=f"build:{stem}.{name}",
        stage="build",
        params={
            "component": spec.name,
            "precision": precision,
            "backend": backend.name,
            "options": target.options,
            "profiles": _profiles(manifest, spec, target) if backend.uses_profiles else [],
        },
        inputs={"onnx": Input(f"precision:{stem}")},
        recipe=("stages.build", f"backends.{backend.name}"),
        tools=(*registry.stage("build").tools, *backend.tools(target.options)),
        device=backend.device_fields(target.options, here.device),
        gpu=on_gpu.uuid if on_gpu else None,
        view={f"{stem}{backend.extension}": f"{spec.name}/{stem}.{name}{backend.extension}"},
        env=backend.env,
        blocked=here.blocked[name],
    )


def _profiles(manifest: Manifest, spec: ComponentSpec, target: Target) -> list[Json]:
    """Return one range per dim that this component has, per profile: other dims must not reach its key."""
    own = dims(spec)
    names = target.shape_profiles or tuple(manifest.shape_profiles)
    return [{d: list(r) for d, r in manifest.shape_profiles[name].items() if d in own} for name in names]


def dims(spec: ComponentSpec) -> set[str]:
    """Return the symbolic dims of a component's inputs."""
    return {dim for tensor in spec.inputs for dim in tensor.dims if isinstance(dim, str)}


def verify(spec: ComponentSpec, precision: str) -> Action:
    """Return the action that runs a graph on ONNX Runtime's CPU; PyTorch or the FP32 graph is its measure."""
    stem = f"{spec.name}.{precision}"
    inputs = {"onnx": Input(f"precision:{stem}"), "reference": Input(f"reference:{spec.name}")}
    if precision != BASELINE:
        inputs["baseline"] = Input(f"verify:{spec.name}.{BASELINE}")
    return Action(
        name=f"verify:{stem}",
        stage="verify",
        params={"component": spec.name, "precision": precision, "keep_outputs": precision == BASELINE},
        inputs=inputs,
        recipe=("stages.verify",),
        tools=registry.stage("verify").tools,
    )


def verify_built(manifest: Manifest, spec: ComponentSpec, precision: str, name: str, here: Here) -> Iterator[Action]:
    """Yield the action that runs what was built for the target `name`, where this machine can and `verify` does not.

    Its key takes the whole device and the exact driver: kernels differ between them, whatever the engine is made for.
    """
    target = manifest.targets[name]
    backend = registry.backend(target.backend)
    if here.cannot_run.get(name, "`verify` runs the same"):
        return
    stem = f"{spec.name}.{precision}"
    on_gpu = here.device if "run" in backend.needs_gpu(target.options) else None
    yield Action(
        name=f"verify:{stem}.{name}",
        stage="verify",
        params={
            "component": spec.name,
            "precision": precision,
            "keep_outputs": False,
            "backend": backend.name,
            "options": target.options,
        },
        inputs={
            "built": Input(f"build:{stem}.{name}"),
            "onnx": Input(f"precision:{stem}"),
            "reference": Input(f"reference:{spec.name}"),
            "baseline": Input(f"verify:{spec.name}.{BASELINE}"),
        },
        recipe=("stages.verify", f"backends.{backend.name}"),
        tools=_exact(*registry.stage("verify").tools, *backend.tools(target.options)),
        device={k: v for k, v in on_gpu.fields.items() if k != "driver_major"} if on_gpu else {},
        gpu=on_gpu.uuid if on_gpu else None,
        env=backend.env,
    )


def _exact(*tools: str) -> tuple[str, ...]:
    """Return tools by their whole versions, each once: what runs an engine matters even if it may be newer."""
    return tuple(dict.fromkeys(tool.partition(":")[0] for tool in tools))


# ------------------------------------------------------------------ comparisons


def comparisons(manifest: Manifest, spec: ComponentSpec, precision: str, here: Here) -> Iterator[Comparison]:
    """Yield what ONNX Runtime shows of this precision, then one for each engine that has to be run to be judged."""
    tolerances: Mapping[str, Mapping[str, float | tuple[float, float]]] = manifest.tolerances.get(precision, {}).get(
        spec.name, {}
    )
    gates = {t.name: gates_for(precision, t.dtype, tolerances.get(t.name, {})) for t in spec.outputs}
    outputs = tuple(t.name for t in spec.outputs)
    label = f"onnxruntime {BASELINE} vs onnxruntime {precision} ({RANGE_PARITY})"
    if precision == BASELINE:
        label = f"pytorch {BASELINE} vs onnxruntime {BASELINE}"
    trusts, fp32_engines = trust.of_component(spec.name, precision, None, False), BASELINE in manifest.precisions
    action = f"verify:{spec.name}.{precision}"
    yield Comparison(spec.name, label, precision, None, action, None, outputs, gates, trusts=trusts)
    for name, reason in here.cannot_run.items() if precision in manifest.precisions else ():
        measured_by = None if reason else f"verify:{spec.name}.{precision}.{name}"
        alone = "" if fp32_engines or precision == BASELINE else "; no FP32 engine to trust"
        label = f"onnxruntime {BASELINE} vs {name} {precision} ({ENGINE_PARITY}{alone})"
        trusts = trust.of_component(spec.name, precision, name, fp32_engines)
        yield Comparison(spec.name, label, precision, name, measured_by, reason, outputs, gates, trusts=trusts)
