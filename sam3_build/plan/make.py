"""The plan: takes a manifest, returns actions in the order of the pipeline, and what the judge compares. Pure.

A manifest is resolved once; all actions and comparisons are made from the resolved values.

checkpoint, samples -> reference:<component>
                       -> reference_gap:<component>.<reference>
export -> simplify -> patch -> precision:<component>.<precision> -> build:<component>.<precision>.<target>
                                                                 -> verify:<component>.<precision>[.<target>]
verify -> chain:<component>.<precision>[.<target>] -> compare:<precision>[.<target>]
checkpoint, precision, build -> model
"""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.manifest.types import Manifest
from sam3_build.plan import engines, reference
from sam3_build.plan.comparisons import comparisons
from sam3_build.plan.model import model_action
from sam3_build.plan.pipelines import pipelines
from sam3_build.plan.resolve import Machine, resolve
from sam3_build.spec import DeviceFingerprint, Plan, Processors


def make_plan(
    manifest: Manifest,
    device: DeviceFingerprint | None = None,
    no_device: str = "there is none",
    processors: Mapping[str, Processors] | None = None,
) -> Plan:
    """Return the actions and comparisons of `manifest` on a machine with this GPU, or without one and why.

    processors: backend -> the devices that its own library finds there
    Reads no file and asks no device; blocked actions say why.
    """
    model = resolve(manifest, Machine(device, no_device, processors or {}))
    actions = [
        reference.checkpoint(model),
        *(reference.samples(model, pipeline) for pipeline in model.pipelines),
        *(
            reference.reference(model, pipeline, step)
            for pipeline in model.pipelines
            for step in pipeline.steps.values()
        ),
        *(reference.gap(model, gap) for gap in model.gaps),
    ]
    for name, precisions in model.built.items():
        component = model.components[name]
        actions += [reference.export(model, component), *engines.graph(component)]
        for resolved in precisions.values():
            actions += engines.in_precision(resolved, model.after_samples)
    by_name = {action.name: action for action in actions}
    actions += [*model_action(model, by_name), *pipelines(model, by_name)]
    return Plan(manifest.name, tuple(actions), tuple(comparisons(model)))
