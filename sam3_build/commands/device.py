"""Takes this machine's GPU and a manifest; says what it can build and run, what it lacks and what to install."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from sam3_build import registry
from sam3_build.machine import toolchain
from sam3_build.manifest.types import Manifest, Target
from sam3_build.plan.resolve import Machine
from sam3_build.report.text import wrapped
from sam3_build.spec import DeviceFingerprint, Json


@dataclass(frozen=True)
class Ability:
    """What this machine can do with one backend, or with one target of a manifest; None stands for "it can"."""

    name: str
    backend: str
    tools: Mapping[str, str]
    cannot_build: str | None
    cannot_run: str | None


def backends(machine: Machine) -> tuple[Ability, ...]:
    """Return what the machine can do with every backend, one entry for each way to use it."""
    found = []
    for name in registry.names("backends"):
        for label, options in registry.backend(name).variants:
            found.append(_ability(f"{name} {label}".strip(), Target(name, (), options, ()), machine))
    return tuple(found)


def targets(manifest: Manifest, machine: Machine) -> tuple[Ability, ...]:
    """Return what the machine can do with every target of `manifest`."""
    return tuple(_ability(name, target, machine) for name, target in manifest.targets.items())


def _ability(name: str, target: Target, machine: Machine) -> Ability:
    backend, options = registry.backend(target.backend), target.options
    tools = backend.tools(options)
    versions = {tool.partition(":")[0]: toolchain.version(tool.partition(":")[0]) for tool in tools}
    cannot_build, cannot_run = machine.blocked(backend, options), machine.cannot_run(backend, options)
    return Ability(name, target.backend, versions, cannot_build, cannot_run)


def as_json(machine: Machine, manifest: Manifest | None) -> dict[str, Json]:
    """Return everything that is known: the GPU (or why there is none), other devices, the backends and the targets."""
    gpu = asdict(machine.device) if machine.device else None
    return {
        "gpu": gpu,
        "no_gpu": None if gpu else machine.no_device,
        "processors": {name: asdict(found) for name, found in machine.processors.items()},
        "backends": [asdict(found) for found in backends(machine)],
        "manifest": manifest.name if manifest else None,
        "targets": [asdict(found) for found in targets(manifest, machine)] if manifest else [],
    }


# ------------------------------------------------------------------ text


def render(machine: Machine, manifest: Manifest | None) -> str:
    """Return the same as text that fits 100 columns."""
    lines = [
        *_gpu(machine),
        *_processors(machine),
        "",
        "What it can do, by backend",
        *_table(tuple((_installed(one), one) for one in backends(machine))),
    ]
    if manifest:
        found = tuple((f"{one.name}  ({one.backend})", one) for one in targets(manifest, machine))
        lines += ["", f"The targets of manifest {manifest.name}", *_table(found)]
    return "\n".join(lines) + "\n"


def _gpu(machine: Machine) -> Iterator[str]:
    gpu = machine.device
    if gpu is None:
        yield f"No NVIDIA GPU that can be used: {machine.no_device}"
        need_none = "ONNX files, checks on ONNX Runtime's CPU and TensorRT-RTX engines for other machines need none."
        yield from wrapped(need_none, "  ", "    ")
        return
    known = gpu.gpu_class
    yield f"{known['name']}, compute capability {known['compute_capability']}, {known['memory_mib']} MiB"
    yield f"  driver {gpu.driver}, which runs CUDA up to {gpu.cuda}; number {gpu.index}, {gpu.uuid}"
    yield from wrapped(f"what engines are bound to: {_fields(gpu)}", "  ", "    ")


def _processors(machine: Machine) -> Iterator[str]:
    """Yield what backends' own libraries find: each device with what is built for it is bound to."""
    for backend, found in machine.processors.items():
        for device, fields in found.devices.items():
            capabilities = fields.get("capabilities")
            listed = f": {', '.join(map(str, capabilities))}" if isinstance(capabilities, list | tuple) else ""
            yield from wrapped(f"{device} of {backend}, {fields.get('name', 'without a name')}{listed}", "", "  ")


def _fields(gpu: DeviceFingerprint) -> str:
    shown = {name: str(value).lower() if isinstance(value, bool) else value for name, value in gpu.gpu_class.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items() if name not in ("name", "compute_capability"))


def _table(found: tuple[tuple[str, Ability], ...]) -> Iterator[str]:
    """Yield a headline for each entry, then whether it builds and runs; in one line where one answer holds for both."""
    for headline, one in found:
        yield from wrapped(headline, "  ", "    ")
        if one.cannot_build == one.cannot_run:
            yield from wrapped(f"builds and runs: {_answer(one.cannot_build)}", "    ", "      ")
            continue
        yield from wrapped(f"builds: {_answer(one.cannot_build)}", "    ", "      ")
        yield from wrapped(f"runs: {_answer(one.cannot_run)}", "    ", "      ")


def _installed(one: Ability) -> str:
    """Return the way to use a backend and the release that is installed, of the library itself."""
    tool, version = next(iter(one.tools.items()))
    return f"{one.name}  ({tool} {version})" if version != "absent" else one.name


def _answer(reason: str | None) -> str:
    return f"no: {reason}" if reason else "yes"
