"""A model config and weights (or a seed) in; the inventory of every component's tensors out. Copies no weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from sam3_build.digest import canonical
from sam3_build.errors import BuildError
from sam3_build.spec import Json, Memory, Stage

# What a config file records about its own making. Two configs that differ here describe the same network.
PROVENANCE = frozenset({"_name_or_path", "architectures", "transformers_version"})


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `config.json` and, for each component of the family, `<component>.json`: `{"tensors": {key: ...}}`."""
    source = params["source"]
    weights = import_module(f"sam3_build.families.{params['family']}.weights")
    config = _without_provenance(weights.complete_config(_read_config(inputs["config"])))
    inventory: dict[str, dict[str, Json]] = weights.inventory(source, config, inputs.get("weights"), params["layout"])
    (out / "config.json").write_bytes(canonical(config))
    for component, tensors in inventory.items():
        (out / f"{component}.json").write_bytes(canonical({"tensors": tensors}))
        logging.getLogger(__name__).info("%s: %d tensors", component, len(tensors))
    return {component: len(tensors) for component, tensors in inventory.items()}


def _read_config(file: Path) -> dict[str, Json]:
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise BuildError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise BuildError(f"{file.name} should hold a model config, an object, but holds {str(config)[:60]!r}")
    return config


def _without_provenance(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {k: _without_provenance(v) for k, v in value.items() if k not in PROVENANCE}
    return value


STAGE = Stage(
    name="checkpoint",
    summary="List every tensor of the checkpoint with its digest",
    tools=("torch", "transformers", "safetensors"),
    run=run,
    memory=Memory(base=1_000_000_000),
)
