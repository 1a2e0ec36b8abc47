"""A session: manifest, plan, store, view and resolver of a project, opened once by every command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sam3_build import registry
from sam3_build.digest import DigestCache
from sam3_build.errors import NoDeviceError
from sam3_build.execution.launch import ForkServers, Launch
from sam3_build.execution.memory import Admission
from sam3_build.folders import share
from sam3_build.machine import devices, toolchain
from sam3_build.manifest.cache import load
from sam3_build.manifest.paths import DEFAULT_MANIFEST, expanded, identity
from sam3_build.manifest.types import Manifest
from sam3_build.plan.make import make_plan
from sam3_build.plan.resolve import wants_device
from sam3_build.spec import DeviceFingerprint, Plan, Processors
from sam3_build.store.objects import Store
from sam3_build.store.ownership import Ownership
from sam3_build.store.resolve import Resolver
from sam3_build.store.view import View


@dataclass(frozen=True)
class Session:
    """All that a front end needs. Nothing in it was run or written yet.

    plan_of: returns the plan of a manifest on this machine
    """

    manifest: Manifest
    plan: Plan
    store: Store
    view: View
    ownership: Ownership
    resolver: Resolver
    admission: Admission = field(default_factory=Admission)
    launch: Launch = field(default_factory=ForkServers)
    plan_of: Callable[[Manifest], Plan] = make_plan


def open_session(root: Path, manifest: str | None, environ: Mapping[str, str]) -> Session:
    """Load `manifest` (a name or a path; else SAM3_MANIFEST; else the default) of the project at `root`.

    Artifacts lie in `root/artifacts`, the store in `root/artifacts/.store` or where SAM3_STORE points (from `root`).
    BuildError when the manifest cannot be used, or its folder of `artifacts/` is another manifest's.
    """
    artifacts = root / "artifacts"
    digests = DigestCache(artifacts / ".digests.json")
    loaded = load(manifest or environ.get("SAM3_MANIFEST") or DEFAULT_MANIFEST, root, digests, artifacts / ".manifests")
    ownership = Ownership(artifacts / loaded.name, identity(loaded.path, root), root)
    ownership.check()
    device, no_device = this_gpu(artifacts, environ) if wants_device(loaded) else (None, "none was looked for")
    found = processors(artifacts, used_backends(loaded))
    plan_of = partial(make_plan, device=device, no_device=no_device, processors=found)
    plan = plan_of(loaded)
    place = (root / expanded(environ.get("SAM3_STORE") or str(artifacts / ".store"))).absolute()
    store = Store(place, digests, checkout_name(artifacts))
    view = View(artifacts / plan.manifest, store)
    resolver = Resolver(plan, store, toolchain.version)
    return Session(loaded, plan, store, view, ownership, resolver, plan_of=plan_of)


def this_gpu(artifacts: Path, environ: Mapping[str, str]) -> tuple[DeviceFingerprint | None, str]:
    """Return this machine's GPU, or None and why; asked once and remembered below `artifacts`."""
    try:
        return devices.cached_fingerprint(environ, device_file(artifacts)), ""
    except NoDeviceError as error:
        return None, str(error)


def used_backends(manifest: Manifest) -> set[str]:
    """Return the names of the backends that a manifest's targets are built by."""
    return {target.backend for target in manifest.targets.values()}


def processors(artifacts: Path, backends: Iterable[str]) -> dict[str, Processors]:
    """Return the devices that the libraries of `backends` find, of those that have any; asked once and remembered."""
    found: dict[str, Processors] = {}
    for backend in (registry.backend(name) for name in sorted(backends)):
        if backend.probe:
            releases = tuple(toolchain.version(tool) for tool in backend.tools({}))
            found[backend.name] = devices.cached(backend.probe, releases, processors_file(artifacts, backend.name))
    return found


def processors_file(artifacts: Path, backend: str) -> Path:
    """Return where the devices of a backend's library are remembered."""
    return artifacts / f".{backend}.json"


def device_file(artifacts: Path) -> Path:
    """Return where this machine's GPU is remembered."""
    return artifacts / ".device.json"


def checkout_name(artifacts: Path) -> str:
    """Return the random name under which this checkout's history lies in a store that others may share.

    It is made up on the first run. Where that cannot be written, nothing will be built either.
    """
    path = artifacts / ".checkout"
    try:
        return path.read_text()
    except OSError:
        from secrets import token_hex

        name = token_hex(8)
    try:
        artifacts.mkdir(exist_ok=True)
        path.write_text(name)
        share(path, artifacts)
    except OSError:
        return "unnamed"
    return name
