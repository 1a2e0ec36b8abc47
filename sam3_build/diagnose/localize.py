"""Takes a component, precision and target, returns the block that introduces the error, and the error of each block.

The stage measures, in a worker and under a key like every action: asked again, the store answers. What it needs is
built first. Judging and reporting is done here, on the terminal and in `artifacts/<manifest>/localize/`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

from sam3_build import registry
from sam3_build.compare.depth import EVERYWHERE, JUMP, Depth, Metrics, depths, in_words, parting, times_gate
from sam3_build.compare.depth_plot import svg
from sam3_build.compare.judge import Verdict, judge
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.execution import schedule
from sam3_build.execution.session import Session
from sam3_build.folders import write_atomically
from sam3_build.manifest.types import Manifest
from sam3_build.params import LocalizeParams, VerifyParams
from sam3_build.spec import BASELINE, Action, Comparison, Gate, Input, Json, Kind
from sam3_build.store.writing import writing


@dataclass(frozen=True)
class Output:
    """One output's error in units of its gate: of the whole, as `doit verify` measured it, and cut at its boundaries.

    The real thing has no outputs inside; to ask for some changes what a builder or runtime may fuse.
    """

    output: str
    whole: float
    cut: float
    whole_told: str
    cut_told: str


@dataclass(frozen=True)
class Located:
    """What was found of `name` (`decoder.fp16.ada`), in a sentence; `parts` is None when no block can be named.

    label: what was compared with what
    """

    name: str
    label: str
    finding: str
    parts: Depth | None
    blocks: tuple[Depth, ...]
    outputs: tuple[Output, ...]


def localize(
    session: Session, component: str, precision: str, target: str | None, say: Callable[[str], None]
) -> Located:
    """Measure what is not measured yet, find the block, write JSON and SVG. BuildError for what cannot be measured.

    say: is given the name of each action before it runs
    """
    comparison = comparison_of(session, component, precision, target)
    action = action_of(session, comparison)
    plan = session.plan
    fp32 = next(c for c in plan.comparisons if c.name == f"{component}.{BASELINE}")
    session = schedule.restrict(session, plan, [*(plan.action(str(c.action)) for c in (fp32, comparison)), action])
    schedule.run(session, started=lambda action: say(action.name))
    session.store.digests.save()
    verified = _read(session, str(comparison.action), "statistics.json")
    located = conclude(comparison, _read(session, action.name, "depth.json"), verified)
    if any(row.verdict == Verdict.FAIL for row in judge(fp32, _read(session, str(fp32.action), "statistics.json"))):
        located = replace(located, finding=f"{located.finding}; but the FP32 graph itself fails: fix that first")
    session.ownership.claim()
    folder = session.view.root / "localize"
    picture = svg(f"{located.name}: {located.finding}", located.blocks, located.parts)
    with writing(folder):
        write_atomically(folder / f"{located.name}.json", (json.dumps(as_json(located), indent=1) + "\n").encode())
        write_atomically(folder / f"{located.name}.svg", picture.encode())
    return located


# ------------------------------------------------------------------ what to measure


def comparison_of(session: Session, component: str, precision: str, target: str | None) -> Comparison:
    """Return what `doit verify` judges of the same; BuildError when there is none that can be run here."""
    found = comparisons_of(session, component, precision, target)
    if not any(c.action for c in found):
        raise BuildError(f"{found[0].name} cannot be measured on this machine: {found[0].not_run}")
    if precision == BASELINE and target is None:
        raise BuildError(
            f"{component}.{BASELINE} is what others are compared with: name another --precision, or a --target"
        )
    return next(c for c in found if c.action)


def comparisons_of(session: Session, component: str, precision: str, target: str | None) -> list[Comparison]:
    """Return the comparisons of tensors under these names; BuildError when the manifest has none."""
    found = [c for c in session.plan.comparisons if c.kind == Kind.PARITY]
    for what, wanted, known in (
        ("component", component, {c.component for c in found}),
        ("precision", precision, {c.precision for c in found}),
        ("target", target, {*session.manifest.targets, None}),
    ):
        if wanted not in known:
            names = [name for name in known if name]
            hint = did_you_mean(str(wanted), names)
            raise BuildError(f"manifest {session.plan.manifest!r} has no {what} {wanted!r}{hint}")
    found = [c for c in found if (c.component, c.precision, c.target) == (component, precision, target)]
    if not found:
        raise BuildError(without_engines(session.manifest, precision, str(target)))
    return found


def without_engines(manifest: Manifest, precision: str, target: str) -> str:
    """Say why nothing is compared of what a target has in a precision."""
    chosen = manifest.targets[target]
    runs = registry.backend(chosen.backend).runs(chosen.options)
    return f"{target} has no {precision} engines" if runs else f"{target} runs the graph itself: leave --target out"


def action_of(session: Session, comparison: Comparison) -> Action:
    """Return the action that measures: as verify's, on the same device, but of the two graphs themselves."""
    verify = session.plan.action(str(comparison.action))
    measured = VerifyParams.of(verify.params)
    return replace(
        verify,
        name=f"localize:{comparison.name}",
        stage="localize",
        arguments=LocalizeParams(
            component=measured.component,
            precision=measured.precision,
            backend=measured.backend,
            options=measured.options,
            profiles=measured.profiles,
            row_dim=measured.row_dim,
            row_axes=measured.row_axes,
        ),
        inputs={
            "fp32": Input(f"precision:{comparison.component}.{BASELINE}"),
            "onnx": verify.inputs["onnx"],
            "reference": verify.inputs["reference"],
        },
        recipe=("stages.localize", *(name for name in verify.recipe if name != "stages.verify")),
        tools=tuple(dict.fromkeys((*registry.stage("localize").tools, *verify.tools))),
    )


def _read(session: Session, action: str, file: str) -> Mapping[str, Json]:
    record = session.resolver.resolve(action).record
    assert record, f"{action} was just built"
    found: Mapping[str, Json] = json.loads((session.resolver.folder(record) / file).read_bytes())
    return found


# ------------------------------------------------------------------ what it says


def conclude(comparison: Comparison, depth: Mapping[str, Json], verified: Mapping[str, Json]) -> Located:
    """Name the block, if an output fails: by what was measured with boundaries as outputs, and by verify without."""
    blocks, without, within = depths(depth), _outputs(verified), _outputs(depth)
    outputs = tuple(_output(name, comparison.gates[name], without[name], within[name]) for name in within)
    cut, whole = any(o.cut > 1 for o in outputs), any(o.whole > 1 for o in outputs)
    parts = parting(blocks) if cut else None
    if parts:
        finding = _sentence(parts) + ("" if whole else "; without boundaries as outputs, every gate is passed")
    elif whole:
        finding = "with more outputs the error is gone: fusion across blocks, so no block can be named"
    else:
        finding = "no block introduces an error: the values of every output pass their gates"
    failed = {row.metric for row in judge(comparison, verified) if row.verdict == Verdict.FAIL} - EVERYWHERE
    finding += f"; but {', '.join(sorted(failed))} fails, which no block shows" if failed else ""
    return Located(comparison.name, comparison.label, finding, parts, blocks, outputs)


def _outputs(statistics: Mapping[str, Json]) -> Mapping[str, Mapping[str, Metrics]]:
    return cast("Mapping[str, Mapping[str, Metrics]]", statistics["outputs"])


def _output(name: str, gates: Sequence[Gate], *statistics: Mapping[str, Metrics]) -> Output:
    metrics = [found["metrics"] for found in statistics]
    whole, cut = (times_gate(gates, found) for found in metrics)
    return Output(name, whole, cut, in_words(whole, metrics[0]), in_words(cut, metrics[1]))


def _sentence(parts: Depth) -> str:
    if not math.isfinite(parts.error):
        return f"the error begins at {parts.block}: {parts.told}, at {parts.node}"
    change = f"{parts.before:.3g} of the gate comes in, {parts.told} leaves"
    if parts.error > 1 and parts.growth >= JUMP:
        return f"the error begins at {parts.block}: {change}"
    return f"errors add up over many blocks, most at {parts.block}: {change}"


def render(located: Located) -> str:
    """Return what was found as text: a line per block, from the input down, then the outputs, then the sentence."""
    table = [["", "block", "error/gate", "max abs/std", "cosine", "node"]]
    for depth in located.blocks:
        mark = ">" if depth is located.parts else ""
        metrics = (_shown(depth.max_abs_over_std, ".3g"), _shown(depth.cosine, ".5f"))
        table.append([mark, depth.block, depth.told, *metrics, depth.node])
    outputs = [["", "output, error/gate", "verify", "with boundaries as outputs"]]
    outputs += [["", output.output, output.whole_told, output.cut_told] for output in located.outputs]
    lines = [located.label, *_aligned(table), "", *_aligned(outputs), "", f"{located.name}: {located.finding}"]
    return "\n".join(lines) + "\n"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def as_json(located: Located) -> dict[str, Json]:
    """Return the same as JSON: `parts` is the block's name; an infinite number becomes null, `told` says why."""

    def finite(row: Mapping[str, Json]) -> dict[str, Json]:
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}

    return {
        "name": located.name,
        "label": located.label,
        "finding": located.finding,
        "parts": located.parts.block if located.parts else None,
        "blocks": [finite(asdict(depth)) for depth in located.blocks],
        "outputs": [finite(asdict(output)) for output in located.outputs],
    }
