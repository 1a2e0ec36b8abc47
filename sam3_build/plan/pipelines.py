"""The task in a plan: actions that verify each component in; with them, those that run the whole pipeline, out. Pure.

verify:<component>.<precision>[.<target>]   of components that nothing feeds: their outputs are kept
-> chain:<component>.<precision>[.<target>]   of those that are fed: each with what its forerunners computed
-> compare:<precision>[.<target>]             what is found in the pictures, against what PyTorch finds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sam3_build import registry
from sam3_build.compare import dependencies, instance_gates
from sam3_build.compare.judge import ENGINE_PARITY, RANGE_PARITY
from sam3_build.drawing.sheet import SHEET
from sam3_build.graph.emulation import emulates
from sam3_build.manifest.types import Manifest
from sam3_build.pipeline import chain
from sam3_build.plan.engines import Here
from sam3_build.spec import (
    BASELINE,
    INSTANCES,
    PIPELINE,
    Action,
    Comparison,
    ComponentSpec,
    Input,
    Json,
    Kind,
    ModelFamily,
)

# What runs a graph that no target names.
GRAPH = "onnxruntime"
RANDOM = (
    "the weights are random: what they find in a picture hangs on rounding, so this is told and not judged; "
    "the gates of FP32's pipeline, and those of tensors, mean what they say"
)


def with_task(
    manifest: Manifest, family: ModelFamily, actions: Sequence[Action], here: Here
) -> tuple[list[Action], list[Comparison]]:
    """Return all actions, those of the task added, and the comparisons of the task.

    There is no task where the family finds no instances (it has no `instances.py`), and none where the manifest does
    not build the component that they are found in, the last one.
    """
    last = family.components[-1]
    if last.name not in manifest.components or not registry.finds_instances(family.name):
        return list(actions), []
    actions = [_keeping(family, action) for action in actions]
    by_name = {action.name: action for action in actions}
    comparisons = []
    for precision in dict.fromkeys((BASELINE, *manifest.precisions)):
        sides: dict[str | None, str | None] = {None: None}
        if precision in manifest.precisions:
            sides.update(here.cannot_run)
        for target, not_run in sides.items():
            comparisons.append(_comparison(manifest, precision, target, not_run))
            if not_run is None:
                actions += _side(manifest, family, by_name, _side_name(precision, target))
    return actions, comparisons


def _side_name(precision: str, target: str | None) -> str:
    return f"{precision}.{target}" if target else precision


def _keeping(family: ModelFamily, action: Action) -> Action:
    """Return the action; one that verifies what nothing feeds and what feeds others keeps the outputs from now on."""
    if action.stage != "verify":
        return action
    name = str(action.params["component"])
    feeds = any(name in family.upstream(component.name) for component in family.components)
    if family.upstream(name) or not feeds:
        return action
    return replace(action, params={**action.params, "keep_outputs": True})


# ------------------------------------------------------------------ actions


def _side(manifest: Manifest, family: ModelFamily, by_name: Mapping[str, Action], side: str) -> Iterator[Action]:
    """Yield the actions of one precision on one target."""
    last = family.components[-1]
    for spec in family.components:
        if spec.name in manifest.components and family.upstream(spec.name):
            yield _chain(manifest, family, spec, by_name[f"verify:{spec.name}.{side}"], side)
    precision, _, target = side.partition(".")
    samples = by_name["samples"]
    listed = samples.params["samples"]
    assert isinstance(listed, Sequence)
    pictures = {str(sample["image"]) for sample in listed if isinstance(sample, Mapping)}
    yield Action(
        name=f"compare:{side}",
        stage="compare",
        params={
            "family": family.name,
            "precision": precision,
            # The backend, and not the target's name: two names for one thing are one key.
            "target": f"{manifest.targets[target].backend if target else GRAPH} {precision}",
            "parity": _parity(precision, target or None),
            "score_threshold": manifest.score_threshold,
            "samples": listed,
        },
        inputs={
            "samples": Input(samples.name),
            "reference": Input(f"reference:{last.name}"),
            "actual": _computed(manifest, family, last.name, side),
        },
        files={role: path for role, path in samples.files.items() if role in pictures},
        recipe=("stages.compare", f"families.{family.name}.instances"),
        tools=registry.stage("compare").tools,
        view={SHEET: f"{PIPELINE}/overlay.{side}.png"},
    )


def _chain(manifest: Manifest, family: ModelFamily, spec: ComponentSpec, verified: Action, side: str) -> Action:
    """Return the action that runs a component on what its forerunners computed: as `verified` runs it on recordings."""
    of_runner = ("component", "precision", "backend", "options", "profiles", "row_dim")
    own: dict[str, Json] = {
        "inputs": [tensor.name for tensor in spec.inputs],
        "feeds": chain.as_json([feed for feed in family.feeds if feed.component == spec.name]),
    }
    return replace(
        verified,
        name=f"chain:{spec.name}.{side}",
        stage="chain",
        params={name: verified.params[name] for name in of_runner if name in verified.params} | own,
        inputs={role: source for role, source in verified.inputs.items() if role in ("onnx", "built")}
        | {chain.GIVEN: Input("samples")}
        | {name: _computed(manifest, family, name, side) for name in family.upstream(spec.name)},
        recipe=("stages.chain", *(name for name in verified.recipe if name != "stages.verify")),
    )


def _computed(manifest: Manifest, family: ModelFamily, component: str, side: str) -> Input:
    """Return what holds the outputs of a component on one side; of one that the manifest does not build, PyTorch's."""
    if component not in manifest.components:
        return Input(f"reference:{component}")
    return Input(f"{'chain' if family.upstream(component) else 'verify'}:{component}.{side}")


# ------------------------------------------------------------------ comparisons


def _parity(precision: str, target: str | None) -> str:
    """Return what follows the name of what is compared: which parity agreement would be, and whether by emulation."""
    emulated = ", emulated" if target is None and emulates(registry.precision(precision).onnx_type) else ""
    if precision == BASELINE and target is None:
        return emulated
    return f"{emulated} ({ENGINE_PARITY if target else RANGE_PARITY})"


def _comparison(manifest: Manifest, precision: str, target: str | None, not_run: str | None) -> Comparison:
    tolerances = manifest.tolerances.get(precision, {}).get(PIPELINE, {}).get(INSTANCES, {})
    gates = instance_gates.gates(precision, tolerances)
    random = manifest.checkpoint.seed is not None and precision != BASELINE
    return Comparison(
        component=PIPELINE,
        label=f"pytorch {BASELINE} vs {target or GRAPH} {precision}, whole pipeline{_parity(precision, target)}",
        precision=precision,
        target=target,
        action=None if not_run else f"compare:{_side_name(precision, target)}",
        not_run=not_run,
        outputs=(INSTANCES,),
        gates={INSTANCES: gates},
        kind=Kind.RESULT,
        depends_on=dependencies.of_pipeline(manifest.components, precision, target, BASELINE in manifest.precisions),
        informs=dict.fromkeys(instance_gates.REDUCED, RANDOM) if random else {},
    )
