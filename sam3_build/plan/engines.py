"""What the plan holds of a component in one precision: builds, verdicts and what the judge compares. Pure.

build:<component>.<precision>.<target>    for every target
verify:<component>.<precision>            the graph, on ONNX Runtime's CPU
verify:<component>.<precision>.<target>   what was built, run on this machine's GPU, where it can be
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sam3_build import registry
from sam3_build.compare import dependencies
from sam3_build.compare.batch_invariance import PERMUTED_ROWS
from sam3_build.compare.judge import ENGINE_PARITY, NOT_EMULATED, RANGE_PARITY, gates_for, type_gates
from sam3_build.digest import canonical
from sam3_build.graph.emulation import emulates
from sam3_build.manifest.types import Manifest, Target
from sam3_build.spec import (
    BASELINE,
    SAMPLES,
    TYPES,
    Action,
    Comparison,
    ComponentSpec,
    DeviceFingerprint,
    Input,
    Json,
    Kind,
    ModelFamily,
)


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
        after=(SAMPLES,),
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
    profiles = [manifest.shape_profiles[name] for name in target.shape_profiles]
    return [{d: list(r) for d, r in profile.items() if d in own} for profile in profiles]


def dims(spec: ComponentSpec) -> set[str]:
    """Return the symbolic dims of a component's inputs."""
    return {dim for tensor in spec.inputs for dim in tensor.dims if isinstance(dim, str)}


def verify(family: ModelFamily, spec: ComponentSpec, types: Action) -> Action:
    """Return the action that runs a graph on ONNX Runtime's CPU; PyTorch or the FP32 graph is its measure.

    types: the action that wrote the graph's precision
    """
    precision = str(types.params["precision"])
    stem = f"{spec.name}.{precision}"
    return Action(
        name=f"verify:{stem}",
        stage="verify",
        params={
            "component": spec.name,
            "precision": precision,
            "keep_outputs": precision == BASELINE,
            "rows": len(PERMUTED_ROWS) if _batched(family, spec) else 0,
            "types": types.params,
        },
        inputs={
            "onnx": Input(types.name),
            "reference": Input(f"reference:{spec.name}"),
            **({} if precision == BASELINE else _baseline(spec)),
        },
        recipe=("stages.verify", f"precisions.{precision}"),
        tools=registry.stage("verify").tools,
    )


def _baseline(spec: ComponentSpec) -> dict[str, Input]:
    """Return what a reduced precision is held against: outputs of the FP32 graph, and its nodes."""
    return {
        "baseline": Input(f"verify:{spec.name}.{BASELINE}"),
        "fp32": Input(f"precision:{spec.name}.{BASELINE}"),
    }


def _batched(family: ModelFamily, spec: ComponentSpec) -> bool:
    return family.row_dim(spec) is not None


def _takes_one_row(manifest: Manifest, family: ModelFamily, spec: ComponentSpec, target: Target) -> bool:
    """Tell whether no engine for `target` takes two rows at once."""
    if not registry.backend(target.backend).uses_profiles:
        return False
    batch = str(family.row_dim(spec))
    return all(manifest.shape_profiles[name].get(batch, (1, 1, 1))[2] < 2 for name in target.shape_profiles)


def verify_built(
    manifest: Manifest, family: ModelFamily, spec: ComponentSpec, types: Action, name: str, here: Here
) -> Iterator[Action]:
    """Yield the action that runs what was built for the target `name`, where this machine can and `verify` does not.

    Its key takes the whole device and the exact driver: kernels differ between them, whatever the engine is made for.
    """
    target, precision = manifest.targets[name], str(types.params["precision"])
    backend = registry.backend(target.backend)
    if here.cannot_run.get(name, "`verify` runs the same"):
        return
    stem = f"{spec.name}.{precision}"
    on_gpu = here.device if "run" in backend.needs_gpu(target.options) else None
    shapes = {"profiles": _profiles(manifest, spec, target), "row_dim": family.row_dim(spec)}
    yield Action(
        name=f"verify:{stem}.{name}",
        stage="verify",
        params={
            "component": spec.name,
            "precision": precision,
            "keep_outputs": False,
            "rows": len(PERMUTED_ROWS) if _batched(family, spec) else 0,
            "backend": backend.name,
            "options": target.options,
            **(shapes if backend.uses_profiles else {}),
            **({"types": types.params} if backend.layer_types else {}),
        },
        inputs={
            "built": Input(f"build:{stem}.{name}"),
            "onnx": Input(types.name),
            "reference": Input(f"reference:{spec.name}"),
            **_baseline(spec),
        },
        recipe=("stages.verify", f"backends.{backend.name}", f"precisions.{precision}"),
        tools=_exact(*registry.stage("verify").tools, *backend.tools(target.options)),
        device={k: v for k, v in on_gpu.fields.items() if k != "driver_major"} if on_gpu else {},
        gpu=on_gpu.uuid if on_gpu else None,
        env=backend.env,
    )


def _exact(*tools: str) -> tuple[str, ...]:
    """Return tools by their whole versions, each once: what runs an engine matters even if it may be newer."""
    return tuple(dict.fromkeys(tool.partition(":")[0] for tool in tools))


# ------------------------------------------------------------------ comparisons


def comparisons(
    manifest: Manifest, family: ModelFamily, spec: ComponentSpec, precision: str, here: Here
) -> Iterator[Comparison]:
    """Yield what ONNX Runtime shows of this precision, then one for each engine that has to be run to be judged."""
    tolerances: Mapping[str, Mapping[str, float | tuple[float, float]]] = manifest.tolerances.get(precision, {}).get(
        spec.name, {}
    )
    gates = {t.name: gates_for(precision, t.dtype, tolerances.get(t.name, {})) for t in spec.outputs}
    gates[TYPES] = type_gates(precision)
    outputs = tuple(gates)
    label = f"onnxruntime {BASELINE} vs onnxruntime {precision}"
    if precision == BASELINE:
        label = f"pytorch {BASELINE} vs onnxruntime {BASELINE}"
    elif emulates(registry.precision(precision).onnx_type):
        label += f", emulated ({RANGE_PARITY})"
    else:
        label += f" ({RANGE_PARITY})"
    fp32_engines = BASELINE in manifest.precisions
    one_row = {} if _batched(family, spec) else {"rows": "not checked: its inputs and outputs have no batch in common"}
    graph = Comparison(
        *(spec.name, label, precision, None, f"verify:{spec.name}.{precision}", None, outputs, gates),
        depends_on=dependencies.of_component(spec.name, precision, None, fp32_engines=False),
        informs=one_row,
    )
    yield graph
    if registry.precision(precision).onnx_type == "BFLOAT16":
        label = f"onnxruntime {BASELINE} vs onnxruntime {precision}, the file itself"
        yield replace(graph, label=label, action=None, not_run=NOT_EMULATED, kind=Kind.FILE)
    for name, reason in here.cannot_run.items() if precision in manifest.precisions else ():
        alone = "" if fp32_engines or precision == BASELINE else "; no FP32 engine is built"
        backend = registry.backend(manifest.targets[name].backend)
        informs = dict(one_row)
        if not one_row and _takes_one_row(manifest, family, spec, manifest.targets[name]):
            informs["rows"] = f"not applicable: {name}'s shape profiles allow one row at a time"
        if backend.layer_types is None:
            why = (
                f"not checked: {backend.product} do not tell their layers' types; they follow the ONNX, whose types are"
            )
            informs |= dict.fromkeys((gate.metric for gate in gates[TYPES]), why)
        yield Comparison(
            component=spec.name,
            label=f"onnxruntime {BASELINE} vs {name} {precision} ({ENGINE_PARITY}{alone})",
            precision=precision,
            target=name,
            action=None if reason else f"verify:{spec.name}.{precision}.{name}",
            not_run=reason,
            outputs=outputs,
            gates=gates,
            depends_on=dependencies.of_component(spec.name, precision, name, fp32_engines),
            informs=informs,
        )
