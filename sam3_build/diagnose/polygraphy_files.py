"""Takes a component in a precision; writes a folder with which `polygraphy run` repeats its comparison by hand.

Recorded inputs and expected outputs are JSON as Polygraphy loads it; beside them lie the ONNX file, an engine if a
target is named, and `run.sh`. What these are made of is built first; nothing is measured here.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.diagnose.localize import comparisons_of
from sam3_build.errors import BuildError
from sam3_build.execution import schedule
from sam3_build.execution.session import Session
from sam3_build.graph.emulation import emulates, write_emulation
from sam3_build.params import BuildParams
from sam3_build.pipeline import profiles
from sam3_build.pipeline.cases import INPUTS, OUTPUTS, arrays_of, recorded_cases
from sam3_build.spec import BASELINE, Action, ComponentSpec, Gate, Profile
from sam3_build.store.view import place
from sam3_build.store.writing import writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

# What a line compares besides gates: nothing relative, and no NaN or infinity.
STRICT = ("--rtol", "0", "--validate")


@dataclass(frozen=True)
class Written:
    """What the folder holds: its files, the command lines of `run.sh`, and case -> why it was left out."""

    files: tuple[str, ...]
    lines: tuple[str, ...]
    skipped: Mapping[str, str]


@dataclass
class Iterations:
    """Feeds and expected outputs, in one order, that run under one optimization profile of an engine (or none)."""

    feeds: list[Arrays] = field(default_factory=list)
    expected: list[Arrays] = field(default_factory=list)


def write(
    session: Session, component: str, precision: str, target: str | None, out: Path, say: Callable[[str], None]
) -> Written:
    """Build what is needed and write all files into `out`, which must be empty or new.

    The outputs expected are those that `doit verify` expects: PyTorch's for the FP32 graph, else the FP32 graph's.

    say: is given the name of each action before it runs
    BuildError for names that the manifest lacks, an `out` that is in use, and a target that cannot be built here
    """
    comparison = comparisons_of(session, component, precision, target)[0]
    measured = next(c for c in session.plan.comparisons if c.name == f"{component}.{BASELINE}")
    if not measured.action:
        raise BuildError(f"{component} has nothing recorded to run it on: {measured.not_run}")
    backend = registry.backend(session.manifest.targets[target].backend) if target else None
    if backend and backend.polygraphy is None:
        raise BuildError(f"{target}: `polygraphy run` cannot run {backend.product}")
    with writing(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BuildError(f"{out} is not an empty folder: name a new one, so that nothing in it is written over")
    stem, plan = f"{component}.{precision}", session.plan
    by_pytorch = precision == BASELINE and target is None
    graph, baseline = plan.action(f"precision:{stem}"), plan.action(f"verify:{component}.{BASELINE}")
    source = baseline.inputs["reference"]
    reference = plan.action(source.action)
    build = plan.action(f"build:{stem}.{target}") if target else None
    needed = [a for a in (graph, reference, None if by_pytorch else baseline, build) if a]
    session = schedule.restrict(session, plan, needed)
    schedule.run(session, started=lambda action: say(action.name))
    session.store.digests.save()

    taken = BuildParams.of(build.params).profiles if build else ()
    recorded = _folder(session, reference) / (source.folder or ""), None if by_pytorch else _folder(session, baseline)
    found = _recorded(session, component, *recorded, taken)
    tolerances = [f"{name}:{tolerance(comparison.gates[name], of):.6g}" for name, of in found.outputs.items()]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for action in (graph, build) if build else (graph,):
            for file in sorted(_folder(session, action).iterdir()):
                if file.name.startswith(f"{stem}."):
                    place(file, out / file.name)
        runs, env = _runs(session, stem, precision, target, out)
        lines = []
        for profile, iterations in sorted(found.by_profile.items()):
            number = f".{profile}" if len(taken) > 1 else ""
            _save(iterations, f"{'pytorch' if by_pytorch else 'onnxruntime'} {BASELINE}", out, number)
            chosen = ("--optimization-profile", str(profile)) if number else ()
            data = ("--load-inputs", f"inputs{number}.json", "--load-outputs", f"outputs{number}.json")
            words = ("polygraphy", "run", *runs, *chosen, *data, *STRICT, "--atol", *tolerances)
            lines.append(" ".join([*(f"{name}={value}" for name, value in env.items()), shlex.join(words)]))
        script = out / "run.sh"
        script.write_text("\n".join(["#!/bin/sh", 'cd "$(dirname "$0")" || exit 1', "set -e", *lines, ""]))
        script.chmod(0o755)
    return Written(tuple(sorted(path.name for path in out.iterdir())), tuple(lines), found.skipped)


@dataclass(frozen=True)
class _Recorded:
    """Iterations by profile, statistics of the outputs expected in them, and case -> why it was left out."""

    by_profile: Mapping[int, Iterations]
    outputs: Mapping[str, OutputStatistics]
    skipped: Mapping[str, str]


def _recorded(
    session: Session, component: str, reference: Path, baseline: Path | None, taken: Sequence[Profile]
) -> _Recorded:
    """Read all cases. BuildError when no profile takes any."""
    family = registry.family(session.manifest.family).laid_out(session.manifest.layout)
    spec = family.component(component)
    by_profile: dict[int, Iterations] = {}
    skipped: dict[str, str] = {}
    outputs = {output.name: OutputStatistics(output.dtype) for output in spec.outputs}
    for case in recorded_cases(reference, component):
        feed = arrays_of(case, INPUTS)
        expected = arrays_of(baseline / case.name, "") if baseline else arrays_of(case, OUTPUTS)
        if why := split(feed, expected, spec, taken, family.row_dim(spec), by_profile):
            skipped[case.stem] = why
            continue
        for name, array in expected.items():
            outputs[name].add(case.stem, array, array)
    if not by_profile:
        raise BuildError(f"no case fits the shape profiles: {'; '.join(f'{c}: {w}' for c, w in skipped.items())}")
    return _Recorded(by_profile, outputs, skipped)


def split(
    feed: Arrays,
    expected: Arrays,
    spec: ComponentSpec,
    taken: Sequence[Profile],
    row_dim: str | None,
    into: dict[int, Iterations],
) -> str | None:
    """Add a case to the iterations of the profiles that take it, in groups of rows as `verify` feeds it.

    Returns why no profile takes the case; None when it was added.
    """
    sizes = {
        dim: size
        for tensor in spec.inputs
        for dim, size in zip(tensor.dims, feed[tensor.name].shape, strict=True)
        if isinstance(dim, str)
    }
    groups = profiles.groups(taken, sizes, row_dim)
    if groups is None:
        return profiles.misfit({str(number): p for number, p in enumerate(taken, start=1)}, sizes, row_dim)
    tensors = (*spec.inputs, *spec.outputs)
    axes = {t.name: axis for t in tensors if (axis := t.row_axis(row_dim)) is not None}
    for rows in groups:
        whole = len(groups) == 1 and len(rows) == sizes.get(row_dim or "", 1)
        fitting = profiles.first_fit(taken, {**sizes, **({row_dim: len(rows)} if row_dim else {})})
        iterations = into.setdefault(fitting or 0, Iterations())
        for arrays, some in ((feed, iterations.feeds), (expected, iterations.expected)):
            some.append(arrays if whole else {n: a.take(rows, axes[n]) if n in axes else a for n, a in arrays.items()})
    return None


def tolerance(gates: Sequence[Gate], found: OutputStatistics) -> float:
    """Return the largest difference that the gates of an output allow, in its own unit. Others cannot be said so.

    found: statistics of the reference over all cases
    """
    r = found.reference
    units = {
        "max_abs_over_std": r.scale if found.constant else r.std,
        "max_abs_over_range": r.scale if found.constant else r.high - r.low,
    }
    limits = [
        gate.threshold * units[gate.metric]
        for gate in gates
        if not found.exact and gate.metric in units and not isinstance(gate.threshold, tuple)
    ]
    return min(limits, default=0.0)


def _runs(
    session: Session, stem: str, precision: str, target: str | None, out: Path
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the file that runs and the options of `polygraphy run` by which it does, and the environment."""
    if target:
        chosen = session.manifest.targets[target]
        backend = registry.backend(chosen.backend)
        assert backend.polygraphy
        return backend.polygraphy(chosen.options, stem), backend.env
    model = out / f"{stem}.onnx"
    if emulates(registry.precision(precision).onnx_type):
        model = write_emulation(model, out) or model
    return (model.name, "--onnxrt", "--providers", "cpu"), {}


def _save(iterations: Iterations, runner: str, out: Path, number: str) -> None:
    from polygraphy.comparator import RunResults
    from polygraphy.json import save_json
    from polygraphy.logger import G_LOGGER

    results = RunResults()
    results.add(iterations.expected, runner_name=runner)
    with G_LOGGER.verbosity(G_LOGGER.WARNING):
        save_json(iterations.feeds, str(out / f"inputs{number}.json"))
        results.save(str(out / f"outputs{number}.json"))


def _folder(session: Session, action: Action) -> Path:
    record = session.resolver.resolve(action.name).record
    assert record, f"{action.name} was just built"
    return session.resolver.folder(record)


def render(written: Written, out: Path) -> Iterator[str]:
    """Yield what was written, and the command lines, as text."""
    yield f"wrote {out}: {', '.join(written.files)}"
    for case, why in written.skipped.items():
        yield f"case {case} is left out: {why}"
    yield f"{out / 'run.sh'} compares again; in that folder:"
    yield from (f"  {line}" for line in written.lines)
