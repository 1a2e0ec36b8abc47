"""Takes a candidate, returns what the product that its layout names gets of it (see `format.py`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.manifest.types import Manifest
from sam3_build.publish.format import Deployment, Format, Network, format_named
from sam3_build.publish.items import Item
from sam3_build.spec import Action, ModelFamily

if TYPE_CHECKING:
    from sam3_build.publish.checks import Candidate


def format_of(manifest: Manifest) -> Format | None:
    """Return the publish format of a manifest's layout, where it has one."""
    name = registry.family(manifest.family).layouts[manifest.layout].published_as
    return format_named(name) if name else None


def network_of(candidate: Candidate, item: Item) -> Network | None:
    """Return an item as a format sees it; None while the weights or the graph are not there."""
    manifest = candidate.session.manifest
    family = registry.family(manifest.family).laid_out(manifest.layout)
    graph, static = _files(candidate, item.graph), _static(candidate, family)
    if not graph or static is None:
        return None
    component = family.component(item.component)
    target = candidate.target
    return Network(
        component=component,
        graph=graph,
        engine=None if item.is_graph else next(iter(_files(candidate, item.source).values()), None),
        tensors={
            tensor.name: tuple(static.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.dims)
            for tensor in (*component.inputs, *component.outputs)
        },
        profiles=tuple(manifest.shape_profiles[name] for name in target.shape_profiles),
    )


@dataclass(frozen=True)
class Deployed:
    """What a format adds in one precision: path below the published folder -> content, and lines for each card."""

    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def deployments(candidate: Candidate) -> Mapping[str, Deployed]:
    """Return precision -> what the format of the layout, if it names one, adds to a target that nothing stands against.

    A precision that the target does not publish is missing.
    """
    found: dict[str, Deployed] = {}
    loads = format_of(candidate.session.manifest)
    for precision in dict.fromkeys(item.precision for item in candidate.items):
        items = [item for item in candidate.items if item.precision == precision]
        networks = {item.component: network for item in items if (network := network_of(candidate, item))}
        record = candidate.record(items[0].built.name)
        tools = record.document["tools"] if record else {}
        assert isinstance(tools, Mapping)
        deployment = Deployment(
            target=candidate.name,
            backend=candidate.target.backend,
            precision=registry.precision(precision),
            networks=networks,
            tools={str(name): str(version) for name, version in tools.items()},
        )
        found[precision] = Deployed(loads.files(deployment), tuple(loads.notes(deployment))) if loads else Deployed()
    return found


def _files(candidate: Candidate, action: Action) -> dict[str, Path]:
    """Return name -> path of the files that the view shows of an action's output, its main file first."""
    record = candidate.record(action.name)
    if record is None:
        return {}
    folder = candidate.session.resolver.folder(record)
    names = sorted(record.files, key=lambda name: (name.endswith(".data"), name))
    return {name: folder / name for name in names if name in action.view or name.endswith(".data")}


def _static(candidate: Candidate, family: ModelFamily) -> Mapping[str, int] | None:
    record = candidate.record("checkpoint")
    if record is None:
        return None
    config = json.loads((candidate.session.resolver.folder(record) / "config.json").read_bytes())
    return family.static_dims(config)
