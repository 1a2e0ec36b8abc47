"""The `sam3-build` commands of those who build. They read a plan, the store and single files.

`gc` and `schema` write; `search`, `localize` and `polygraphy` build what they need, and write what they find. Each one
imports what it uses when it is called: the base installation has none of that.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from sam3_build.commands import extras
from sam3_build.errors import BuildError, ManifestError

if TYPE_CHECKING:
    from sam3_build.execution.session import Session


app = typer.Typer()
Words = ParamSpec("Words")


def command(function: Callable[Words, None]) -> Callable[Words, None]:
    """Make a function a command that needs the extra `build`. BuildError says what to install."""

    @wraps(function)
    def checked(*args: Words.args, **kwargs: Words.kwargs) -> None:
        extras.require_build()
        function(*args, **kwargs)

    return app.command()(checked)


ManifestOption = Annotated[
    str | None,
    typer.Option("--manifest", "-m", help="A manifest's name or path; manifest=NAME is the same [env: SAM3_MANIFEST]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text")]


def _root() -> Path:
    """Return the project folder: the nearest folder upwards that holds `manifests/`."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "manifests").is_dir():
            return folder
    raise BuildError(f"no manifests/ folder in {Path.cwd()} or above it: run sam3-build inside a project")


def _session(manifest: str | None) -> Session:
    from sam3_build.execution.session import open_session

    return open_session(_root(), manifest, os.environ)


@command
def plan(manifest: ManifestOption = None, as_json: JsonOption = False) -> None:
    """Show every action: fresh, stale (and why), pending or blocked. Runs nothing; refuses bad samples and weights."""
    from sam3_build.commands.plan_text import render_plan
    from sam3_build.execution.refused import refuse_unusable_records
    from sam3_build.execution.sample_problems import refuse_wrong_samples
    from sam3_build.store.explain import explain_plan
    from sam3_build.store.sizes import free_bytes

    session = _session(manifest)
    refuse_unusable_records(session)
    refuse_wrong_samples(session)
    found = explain_plan(session.plan, session.store, session.resolver, session.view)
    for note in session.manifest.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        keys = ("action", "state", "because", "bytes_needed")
        print(json.dumps([{k: v for k, v in asdict(e).items() if k in keys} for e in found], indent=1))
        return
    print(render_plan(session.plan.manifest, found, free_bytes(session.store.root)), end="")


@command
def explain(action: str, manifest: ManifestOption = None, as_json: JsonOption = False) -> None:
    """Say why ACTION is stale: every field of its key that is not what it was when it was last built."""
    from sam3_build.commands.plan_text import render_record
    from sam3_build.store.explain import explain_action

    session = _session(manifest)
    found = explain_action(action, session.plan, session.store, session.resolver, session.view)
    record = session.resolver.resolve(action).record
    if as_json:
        print(json.dumps({**asdict(found), "built_from": record.document if record else None}, indent=1))
        return
    print(f"{found.action} is {found.state}")
    for reason in found.because:
        print(f"  {reason}")
    if record:
        print(render_record(record))


@command
def inspect(file: Path, as_json: JsonOption = False) -> None:
    """Describe an ONNX file or an engine (interface, operators, how it was made), or a checkpoint by component."""
    from sam3_build.commands.inspect import describe, render

    found = describe(file)
    print(json.dumps(found, indent=1) if as_json else render(found))


@command
def device(manifest: ManifestOption = None, as_json: JsonOption = False) -> None:
    """Say what GPU this machine has, what each backend can build and run on it, and what to install."""
    from sam3_build import registry
    from sam3_build.commands import device as machines
    from sam3_build.execution.session import processors, this_gpu
    from sam3_build.plan.resolve import Machine

    artifacts = _root() / "artifacts"
    machine = Machine(*this_gpu(artifacts, os.environ), processors(artifacts, registry.names("backends")))
    chosen, problem = None, None
    try:
        chosen = _session(manifest).manifest
    except BuildError as error:
        problem = error  # said below: what the machine is, is known all the same
    if as_json:
        print(json.dumps(machines.as_json(machine, chosen), indent=1))
    else:
        print(machines.render(machine, chosen), end="")
    if problem:
        raise problem


@command
def search(
    name: Annotated[str, typer.Argument(metavar="COMPONENT|PIPELINE")],
    precision: Annotated[str, typer.Option("--precision", "-p", help="The reduced precision to repair")] = "fp16",
    target: Annotated[
        str | None, typer.Option(help="Its engines must pass as well as the graphs; only graphs when not given")
    ] = None,
    cases: Annotated[
        int | None, typer.Option(min=1, help="Try sets on the first so many recorded cases; all when not given")
    ] = None,
    manifest: ManifestOption = None,
) -> None:
    """Find which nodes must stay FP32 for the gates of a component, or of a pipeline, to pass; lock them.

    A pipeline (its label is `pipeline`, or its name where a layout has several) is judged by its result, and all of
    its components are searched together.
    """
    from sam3_build.diagnose import search as searching
    from sam3_build.diagnose.trials import Goal

    session, goal = _session(manifest), Goal(name, precision, target, cases)
    try:
        searching.search(session, goal, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("interrupted: the trials that ended are kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


@command
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go")] = False,
    keep: Annotated[int, typer.Option(min=0, help="Old generations of each action to keep")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Remove from the store what no manifest of this project and no last generation needs."""
    from sam3_build.commands.gc import find_garbage, remove
    from sam3_build.manifest.lock import manifest_files
    from sam3_build.store.sizes import readable_size

    sessions = []
    for path in manifest_files(_root() / "manifests"):
        try:
            sessions.append(_session(str(path)))
        except ManifestError as error:
            print(f"only the last builds of {path.name} are kept, for it cannot be used:\n{error}", file=sys.stderr)
    if not sessions:
        raise BuildError(f"{_root() / 'manifests'} holds no manifest that can be read")
    store = sessions[0].store
    with store.exclusive(lambda: print("waiting for a run that builds into this store", file=sys.stderr)):
        garbage = find_garbage(store, tuple(sessions), keep)
        if not dry_run:
            remove(garbage)
    paths = [str(path.relative_to(store.root) if path.is_relative_to(store.root) else path) for path in garbage.paths]
    if as_json:
        print(json.dumps({"dry_run": dry_run, "bytes": garbage.size, "paths": paths}, indent=1))
        return
    for gone in paths:
        print(gone)
    print(f"{'would remove' if dry_run else 'removed'} {len(paths)} entries, {readable_size(garbage.size)}")


@command
def localize(
    component: str,
    precision: Annotated[str, typer.Option(help="What is compared with the FP32 graph")] = "fp16",
    target: Annotated[str | None, typer.Option(help="The engine for this target, not the graph")] = None,
    manifest: ManifestOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the block at which the error of COMPONENT, against its FP32 graph, begins; builds what that needs."""
    from sam3_build.diagnose import localize as localizing

    session = _session(manifest)
    found = localizing.localize(
        session, component, precision, target, lambda action: print(f"  run       {action}", file=sys.stderr)
    )
    print(json.dumps(localizing.as_json(found), indent=1) if as_json else localizing.render(found), end="")


@command
def polygraphy(
    component: str,
    precision: str,
    out: Annotated[Path, typer.Option("--out", help="The folder to write, new or empty")],
    target: Annotated[str | None, typer.Option(help="The engine for this target, not the graph")] = None,
    manifest: ManifestOption = None,
) -> None:
    """Write recorded inputs, expected outputs and the `polygraphy run` lines that repeat a comparison by hand."""
    from sam3_build.diagnose import polygraphy_files

    session = _session(manifest)
    written = polygraphy_files.write(
        session, component, precision, target, out, lambda action: print(f"  run       {action}", file=sys.stderr)
    )
    print(*polygraphy_files.render(written, out), sep="\n")


@command
def schema() -> None:
    """Write manifests/schema.json, which editors complete and check manifests with."""
    from sam3_build.manifest.json_schema import write_schema

    path = _root() / "manifests" / "schema.json"
    write_schema(path)
    print(f"wrote {path.relative_to(_root())}")
