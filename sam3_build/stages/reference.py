"""Recorded inputs and a component's weights in; its inputs and outputs in PyTorch, FP32, for every case out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.spec import Json, ModelFamily, Stage

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<case>.npz` with arrays `inputs/<name>` and `outputs/<name>`.

    A case that lacks one of the component's inputs (no boxes for the geometry encoder) has no file.
    """
    import numpy as np
    import torch

    component, family = str(params["component"]), registry.family(str(params["family"]))
    package = f"sam3_build.families.{family.name}"
    config = json.loads(inputs["config"].read_bytes())
    tensors = import_module(f"{package}.weights").load(component, params["source"], config, inputs.get("weights"))
    model: torch.nn.Module = import_module(f"{package}.forward").assemble(component, config, tensors)

    recorded: list[Json] = []
    for case in json.loads((inputs["samples"] / "cases.json").read_bytes()):
        file = f"{case['name']}.npz"
        arrays = gather(family, component, inputs, file)
        if arrays is None:
            logging.getLogger(__name__).info("%s: does not run %s", case["name"], component)
            continue
        with torch.no_grad():
            results = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        names = [f"outputs/{tensor.name}" for tensor in family.component(component).outputs]
        outputs: dict[str, Array] = {n: r.numpy() for n, r in zip(names, results, strict=True)}
        with (out / file).open("xb") as stream:
            np.savez(stream, allow_pickle=False, **{f"inputs/{n}": a for n, a in arrays.items()}, **outputs)
        logging.getLogger(__name__).info("%s: %s", case["name"], {n: list(a.shape) for n, a in outputs.items()})
        recorded.append(case["name"])
    return {"cases": recorded}


def gather(family: ModelFamily, component: str, folders: Mapping[str, Path], file: str) -> dict[str, Array] | None:
    """Return the component's inputs in the case that `file` names, or None when the case lacks one.

    `folders` holds the samples and, by component, upstream references. A fed input is the join of its sources, without
    those whose component did not run in this case; every other input comes from the samples.
    """
    import numpy as np

    feeds = {feed.input: feed for feed in family.feeds if feed.component == component}
    gathered: dict[str, Array] = {}
    for tensor in family.component(component).inputs:
        feed = feeds.get(tensor.name)
        sources = [(c, f"outputs/{output}") for c, output in feed.sources] if feed else [("samples", tensor.name)]
        parts = [array for folder, key in sources if (array := _array(folders[folder] / file, key)) is not None]
        if not parts:
            return None
        gathered[tensor.name] = np.concatenate(parts, axis=feed.axis) if feed and len(parts) > 1 else parts[0]
    return gathered


def _array(path: Path, key: str) -> Array | None:
    import numpy as np

    if not path.exists():
        return None
    with np.load(path) as arrays:
        found: Array | None = arrays.get(key)
    return found


STAGE = Stage("reference", "run a component in PyTorch", ("torch", "transformers", "safetensors", "numpy"), run)
