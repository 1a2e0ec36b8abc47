"""Takes recorded cases, returns how far off their outputs are when they are fed as another reference does.

No gate judges it. Code bases feed some prompts differently, and by how much that matters is worth knowing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.params import ReferenceGapParams
from sam3_build.pipeline import chain
from sam3_build.pipeline.cases import OUTPUTS, listed_cases, opened
from sam3_build.plugins import TORCH, Memory, Stage
from sam3_build.spec import Json
from sam3_build.stages.reference import require_finite


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `statistics.json`, per output over all cases that hold one of the samples concerned and nothing else.

    document: ReferenceGapParams. The network feeds itself as the other reference does; spec and feeds are its own
    inputs: config, samples, an upstream reference for each feed, recorded: this component's own reference, and
            tensors*: the inventories of all components whose weights the network takes
    """
    import numpy as np

    from sam3_build.compare.statistics import OutputStatistics
    from sam3_build.stages._torch import open_network
    from sam3_build.torch_modules.assemble import compute

    params = ReferenceGapParams.of(document)
    model = open_network(registry.family_code(params.family), params, inputs)
    names, results = ([t.name for t in tensors] for tensors in (params.spec.inputs, params.spec.outputs))
    dtypes = {tensor.name: tensor.dtype for tensor in params.spec.inputs}
    absent = {name: np.array([row], dtypes[name]) for name, row in params.absent.items()}

    statistics = {tensor.name: OutputStatistics(tensor.dtype) for tensor in params.spec.outputs}
    cases: list[Json] = []
    for case in listed_cases(inputs[chain.GIVEN]):
        if len(case.samples) != 1 or case.samples[0] not in params.samples:
            continue
        name = case.name
        arrays = chain.gather(names, params.feeds, chain.in_files(inputs, name), absent)
        assert arrays is not None, f"{name} lacks an input of {params.network}"
        outputs = compute(model, arrays, results)
        require_finite(name, outputs)
        with opened(inputs["recorded"] / f"{name}.npz") as recorded:
            for key, array in outputs.items():
                statistics[key].add(name, array, recorded[f"{OUTPUTS}{key}"])
        cases.append(name)
    if not cases:
        raise BuildError("no case holds one of the samples concerned alone, so there is nothing to measure")
    measured: dict[str, Json] = {name: found.summary() for name, found in statistics.items()}
    summary: dict[str, Json] = {"component": params.component, "cases": cases, "outputs": measured}
    (out / "statistics.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for name, found in statistics.items():
        logging.getLogger(__name__).info("%s: %s", name, found.metrics())
    return {"cases": len(cases)}


STAGE = Stage(
    name="reference_gap",
    summary="Measure what another reference changes",
    tools=("torch", "transformers", "numpy"),
    run=run,
    memory=Memory(base=900_000_000, weights=1.0, activations=2.2),
    imports=TORCH,
)
