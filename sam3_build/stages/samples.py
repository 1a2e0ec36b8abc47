"""Takes pictures, words and boxes; returns the inputs of the whole network for every case that is compared."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from sam3_build.digest import canonical
from sam3_build.params import SamplesParams
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import Json


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `cases.json`, a list of `{"name", "samples"}`, and `<case>.npz` with its input arrays.

    document: SamplesParams
    """
    import numpy as np

    params = SamplesParams.of(document)
    family = import_module(f"sam3_build.families.{params.family}.prompts")
    config = json.loads(inputs["config"].read_bytes())
    cases = family.make_cases(
        params.reference,
        [sample.document() for sample in params.samples],
        inputs["tokenizer"],
        inputs,
        config,
        params.layout,
        params.padding,
    )
    for case in cases:
        np.savez(out / f"{case.name}.npz", **case.arrays)
        shapes = {name: list(array.shape) for name, array in case.arrays.items()}
        logging.getLogger(__name__).info("%s: samples %s, %s", case.name, list(case.samples), shapes)
    listed: list[Json] = [{"name": case.name, "samples": list(case.samples)} for case in cases]
    (out / "cases.json").write_bytes(canonical(listed))
    return {"cases": [case.name for case in cases], "rows": max((len(case.samples) for case in cases), default=0)}


STAGE = Stage(
    name="samples",
    summary="Turn samples into network inputs",
    tools=("numpy", "pillow", "tokenizers"),
    run=run,
    memory=Memory(base=300_000_000),
)
