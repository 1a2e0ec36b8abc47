"""The JSON Schema of manifests, the names of all plug-ins in it, so that editors complete and check them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from sam3_build import registry
from sam3_build.compare.metrics import TENSORS
from sam3_build.manifest.extends import SELECTABLE
from sam3_build.manifest.rules import NAME
from sam3_build.manifest.shape import (
    RANGE,
    CheckpointFile,
    ComponentFile,
    FramePromptFile,
    ManifestFile,
    PrecisionFile,
    RandomFile,
    SampleFile,
    TargetFile,
    TaskFile,
)
from sam3_build.plugins import Metric
from sam3_build.spec import Json

Schema = Mapping[str, Json]

NAMES: Schema = {"type": "string", "pattern": f"^{NAME}$"}


def write_schema(path: Path) -> None:
    """Write the JSON Schema of manifests, for editors, to `path`."""
    path.write_text(json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def json_schema() -> Schema:
    """Return the schema. It lists names and checks shapes; what belongs to what, `manifest.load` alone decides.

    A manifest may extend another one, so mappings require no key and take null, which removes; what must be there is
    checked in samples (lists are replaced as a whole) and at the top of a manifest that extends none.
    """
    families = [registry.family(name) for name in registry.names("families")]
    layouts = [layout for family in families for layout in family.layouts.values()]
    outputs: dict[str, dict[str, Schema]] = {}
    for component in (c for layout in layouts for c in layout.components):
        outputs.setdefault(component.name, {}).update({t.name: _ref("metrics") for t in component.outputs})
    pipelines = [
        (family.laid_out(name), p)
        for family in families
        for name in family.layouts
        for p in family.layouts[name].pipelines
    ]
    kinds = [registry.result(name) for name in dict.fromkeys(p.result for _, p in pipelines) if name]
    results: Schema = _named({k.output: _named({m.name: _threshold(m) for m in k.metrics}) for k in kinds})
    precisions = registry.names("precisions")
    definitions: Schema = {
        "range": RANGE,
        "profile": _named({dim: _ref("range") for layout in layouts for dim in layout.dynamic_dims}),
        "component": _mapping(
            ComponentFile,
            {
                "patches": _list(_enum(registry.names("patches"))),
                "precisions": _named({p: _precision(p) for p in precisions}),
            },
        ),
        "target": {"type": ["object", "null"], "anyOf": [_target(name) for name in registry.names("backends")]},
        "sample": {
            **_mapping(SampleFile, {"prompts": _list(_ref("frame_prompt"))}),
            "type": "object",
            "anyOf": [{"required": ["image"]}, {"required": ["video", "frames"]}],
        },
        "frame_prompt": {**_mapping(FramePromptFile, {}), "type": "object", "required": ["frame"]},
        "metrics": _named({metric.name: _threshold(metric) for metric in TENSORS.values()}),
        "gates": _named(
            {
                **{name: _named(gates) for name, gates in outputs.items()},
                **{family.label(pipeline.name): results for family, pipeline in pipelines},
            }
        ),
    }
    whole = _mapping(
        ManifestFile,
        {
            "family": _enum(family.name for family in families),
            "layout": _enum(layout for family in families for layout in family.layouts),
            "checkpoint": _mapping(CheckpointFile, {"random": _mapping(RandomFile, {})}),
            "reference": _enum(reference for family in families for reference in family.references),
            "components": _or_list(_named({name: _ref("component") for name in outputs}), _enum(outputs)),
            "shape_profiles": _or_list(_chosen(_ref("profile")), NAMES),
            "precisions": _list(_enum(precisions)),
            "targets": _or_list(_chosen(_ref("target")), NAMES),
            "samples": _list(_ref("sample")),
            "task": _mapping(TaskFile, {}),
            "tolerances": _named({p: _ref("gates") for p in precisions}),
        },
    )
    selects = "a list of components, targets or shape profiles selects from its mapping"
    extends = (
        f"Another manifest, relative to this file: mappings merge, lists and scalars replace, null removes; {selects}"
    )
    properties = whole["properties"]
    assert isinstance(properties, Mapping)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "sam3_build manifest",
        **whole,
        "type": "object",
        "properties": {"extends": {"description": extends, "type": "string"}, **properties},
        "if": {"not": {"required": ["extends"]}},
        "then": {
            "required": [name for name, field in ManifestFile.model_fields.items() if field.is_required()],
            "properties": {name: {"type": "object"} for name in SELECTABLE},
        },
        "definitions": definitions,
    }


def _threshold(metric: Metric) -> Schema:
    low, high = metric.bounds
    number: Schema = {"type": "number", "minimum": low, **({} if high is None else {"maximum": high})}
    pair: Schema = {**_list(number), "minItems": 2, "maxItems": 2}
    return _or_null(pair if metric.is_pair else number)


def _target(backend_name: str) -> Schema:
    backend = registry.backend(backend_name)
    own = _mapping(
        TargetFile,
        {
            "backend": {"const": backend.name, "description": backend.summary},
            "precisions": _list(_enum(registry.names("precisions"))),
        },
    )
    return _with_options(own, backend.options)


def _precision(name: str) -> Schema:
    return _with_options(_mapping(PrecisionFile, {}), registry.precision(name).options)


def _with_options(own: Schema, kind: type) -> Schema:
    """Return the schema of a mapping that also holds what the dataclass `kind` takes in."""
    options = TypeAdapter(kind).json_schema().get("properties", {})
    properties = own["properties"]
    assert isinstance(properties, Mapping)
    return {**own, "properties": {**properties, **{name: _tidy(option) for name, option in options.items()}}}


def _mapping(model: type[BaseModel], parts: Mapping[str, Schema]) -> Schema:
    """Return the schema of `model`, `parts` standing for what pydantic knows of these fields."""
    found = model.model_json_schema()["properties"]
    described = {name: {"description": field["description"]} for name, field in found.items()}
    own = {name: {**described[name], **_or_null(parts.get(name, _tidy(field)))} for name, field in found.items()}
    return {"type": ["object", "null"], "properties": own, "additionalProperties": False}


def _tidy(field: Schema) -> Schema:
    """Return what pydantic generated without titles and defaults, which only repeat or mislead."""
    return {key: value for key, value in field.items() if key not in ("title", "default")}


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str):
        schema = {**schema, "type": [schema["type"], "null"]}
    if isinstance(known := schema.get("enum"), list):
        schema = {**schema, "enum": [*known, None]}
    return schema


def _named(entries: Mapping[str, Schema]) -> Schema:
    """Return a mapping with no other keys than these."""
    return {"type": ["object", "null"], "properties": entries, "additionalProperties": False}


def _chosen(entry: Schema) -> Schema:
    """Return a mapping whose keys the user chooses."""
    return {"type": ["object", "null"], "additionalProperties": entry, "propertyNames": NAMES}


def _or_list(mapping: Schema, name: Schema) -> Schema:
    """Return a mapping in whose place a list of names selects from that of the extended manifest."""
    return {**mapping, "type": ["object", "array", "null"], "items": name}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _enum(names: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(dict.fromkeys(names))}


def _ref(definition: str) -> Schema:
    return {"$ref": f"#/definitions/{definition}"}
