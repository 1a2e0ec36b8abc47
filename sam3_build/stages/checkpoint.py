"""Takes a model config and weights, where to download them, or a seed; returns the inventory of all tensors.

Copies no weights. Those at the hub or at a URL are downloaded to where all checkouts find them, and pointed to.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from sam3_build import registry
from sam3_build.digest import canonical
from sam3_build.errors import BuildError
from sam3_build.params import CheckpointParams
from sam3_build.plugins import TORCH, Memory, Stage
from sam3_build.spec import Json, ModelFamily
from sam3_build.weights.files import ADAPTER_NAMES, INDEX_NAME, LICENCE_NAMES, WEIGHT_NAMES, adapter_message, shards

# What a config file records about its own making. Two configs that differ here describe the same network.
PROVENANCE = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"})


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `config.json` and, for each component of the family, `<component>.json`: `{"tensors": {key: ...}}`.

    Of what is downloaded also `weights.json`, which points to the weights; from the hub, `tokenizer.json` when it is
    asked for, and `LICENSE` where the repository has one.
    A component that holds NaN or infinity is named among the facts: component -> message, below `refused`.

    document: CheckpointParams
    """
    from sam3_build.weights import inventory as inventories
    from sam3_build.weights.recognise import other_family

    params, files = CheckpointParams.of(document), dict(inputs)
    code = registry.family_code(params.family)
    facts: dict[str, Json] = {}
    if "hub" in params.source:
        files, facts = _from_hub(params.source, code.family, inputs, out)
    elif "url" in params.source:
        files, facts = _from_url(params.source, inputs, out)
    file = files.get("weights")
    try:
        shapes = inventories.shapes(code, params.source, file) if file and "config" not in files else {}
        given = _read_config(files["config"]) if "config" in files else _official_config(code.family, shapes)
        config = _resized(code.family, _without_provenance(code.modules.complete_config(given)), params.image_size)
        understood = inventories.describe(code, params.source, file, params.layout)
        inventory = inventories.inventory(code, params.source, config, file, params.layout)
    except BuildError as error:
        state_dict = inventories.state_dict_of(params.source)
        if file and (why := other_family(file, params.family, registry.key_tables(), state_dict)):
            raise BuildError(why) from error
        raise
    refused = inventories.refused(code, params.source, file, inventory)
    (out / "config.json").write_bytes(canonical(config))
    for component, tensors in inventory.items():
        (out / f"{component}.json").write_bytes(canonical({"tensors": tensors}))
        logging.getLogger(__name__).info("%s: %d tensors", component, len(tensors))
    counts = {component: len(tensors) for component, tensors in inventory.items()}
    refusals: dict[str, Json] = {"refused": refused} if refused else {}
    return {**counts, **understood, **facts, **refusals}


def _from_hub(
    source: Mapping[str, Json], family: ModelFamily, inputs: Mapping[str, Path], out: Path
) -> tuple[dict[str, Path], dict[str, Json]]:
    """Download what the build needs of a model, and no more; return config and weights, and what was downloaded."""
    from sam3_build.weights import hub
    from sam3_build.weights.pointer import POINTER

    repo, revision = str(source["hub"]), str(source["revision"])
    usual = (*WEIGHT_NAMES, *family.weight_names)
    wanted = [] if "config" in inputs else ["config.json"]
    wanted += ["tokenizer.json"] if source["tokenizer"] else []

    def is_enough(names: Collection[str]) -> bool:
        return {*wanted, *names} == {*names} and any(name in names for name in usual)

    snapshot = hub.look_up(repo, revision, is_enough)
    if adapter := next((name for name in ADAPTER_NAMES if name in snapshot.names), None):
        raise BuildError(f"{repo} at {revision} {adapter_message(adapter)}")
    main = next((name for name in usual if name in snapshot.names), None)
    if main is None:
        has = ", ".join(snapshot.names[:8]) or "nothing"
        raise BuildError(
            f"{repo} at {revision} has none of {', '.join(usual)}, but {has}; is it a model of {family.name}?"
        )
    if source["tokenizer"] and "tokenizer.json" not in snapshot.names:
        raise BuildError(f"{repo} at {revision} has no tokenizer.json; name one with 'tokenizer:' in the manifest")
    found = {name: hub.get(repo, snapshot.commit, name) for name in wanted if name in snapshot.names}
    weights = hub.get(repo, snapshot.commit, main)
    parts = shards(weights) if main == INDEX_NAME else []
    for part in parts:
        hub.get(repo, snapshot.commit, part)
    if source["tokenizer"]:
        (out / "tokenizer.json").write_bytes(found["tokenizer.json"].read_bytes())
    if licence := next((name for name in LICENCE_NAMES if name in snapshot.names), None):
        (out / LICENCE_NAMES[0]).write_bytes(hub.get(repo, snapshot.commit, licence).read_bytes())
    pointer: dict[str, Json] = {"repo": repo, "commit": snapshot.commit, "weights": main, "files": parts}
    (out / POINTER).write_bytes(canonical(pointer))
    config = inputs.get("config") or found.get("config.json")
    return {"weights": weights, **({"config": config} if config else {})}, pointer


def _from_url(
    source: Mapping[str, Json], inputs: Mapping[str, Path], out: Path
) -> tuple[dict[str, Path], dict[str, Json]]:
    """Download the one file that the build needs; return it beside the config, and what was downloaded."""
    from sam3_build.weights import download
    from sam3_build.weights.pointer import POINTER

    url, sha256 = str(source["url"]), str(source["sha256"])
    weights = download.get(url, sha256)
    pointer: dict[str, Json] = {"url": url, "sha256": sha256, "weights": weights.name}
    (out / POINTER).write_bytes(canonical(pointer))
    return {**inputs, "weights": weights}, pointer


def _official_config(family: ModelFamily, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Json]:
    if family.official_config is None:
        raise BuildError(f"a checkpoint of {family.name} needs a config.json; name one with 'config:' in the manifest")
    return family.official_config(shapes)


def _resized(family: ModelFamily, config: Mapping[str, Json], size: tuple[int, int] | None) -> Mapping[str, Json]:
    """Return a complete config for pictures of another size, where one is asked for."""
    if size is None:
        return config
    if family.resized is None:
        raise BuildError(f"family {family.name!r} has one size of pictures; leave image_size out")
    return family.resized(config, size)


def _read_config(file: Path) -> dict[str, Json]:
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise BuildError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise BuildError(f"{file.name} should hold a model config, an object, but holds {str(config)[:60]!r}")
    return config


def _without_provenance(config: Mapping[str, Json]) -> dict[str, Json]:
    kept = {key: value for key, value in config.items() if key not in PROVENANCE}
    return {key: _without_provenance(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


STAGE = Stage(
    name="checkpoint",
    summary="List every tensor of the checkpoint with its digest",
    tools=("torch", "transformers"),
    run=run,
    memory=Memory(base=1_000_000_000),
    imports=TORCH,
)
