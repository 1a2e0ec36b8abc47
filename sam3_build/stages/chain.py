"""Takes a component's ONNX and what those before it computed, returns its outputs for every case. Judges nothing.

`verify` feeds each component with what PyTorch recorded, so that its error is its own. Here it gets what a user's would
get: outputs of the same precision and runtime, errors and all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from sam3_build.digest import canonical
from sam3_build.params import ChainParams
from sam3_build.pipeline import chain
from sam3_build.pipeline.cases import CASES, listed_cases, skipped_in, write_skipped
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import Json


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<case>.npz` with arrays `<name>`, and `cases.json`, the list of the cases that run the component.

    A case that fits no shape profile of an engine, or of one before it, is listed in `skipped.json`.

    document: ChainParams
    inputs: onnx, the folder that holds `<component>.<precision>.onnx`; built (with a backend), what its build wrote
            samples; and, by component, a folder of `<case>.npz` with what each before it computed
    """
    import numpy as np

    from sam3_build.stages._networks import open_network

    params, ran = ChainParams.of(document), []
    # What one before it was not fed, nothing further on can be: a join would take it for one that does not run.
    skipped = {case: why for folder in inputs.values() for case, why in skipped_in(folder).items()}
    with open_network(params, inputs) as network:
        for name, files in (run for case in listed_cases(inputs[chain.GIVEN]) for run in case.runs(params.per)):
            find = chain.in_files(inputs, *files)
            feed = None if skipped.keys() & set(files) else chain.gather(params.inputs, params.feeds, find)
            if feed is None:
                continue
            if why := network.misfit(feed):
                skipped[name] = why
                continue
            outputs = network.run(feed, name)
            np.savez(out / f"{name}.npz", allow_pickle=False, **dict(outputs.items()))
            logging.getLogger(__name__).info("%s: %s", name, {n: list(a.shape) for n, a in outputs.items()})
            ran.append(name)
    (out / CASES).write_bytes(canonical(sorted(ran)))
    write_skipped(out, skipped)
    return {"cases": len(ran)}


STAGE = Stage(
    name="chain",
    summary="Run components one after another",
    tools=("onnxruntime", "numpy", "onnx", "onnx-ir"),
    run=run,
    memory=Memory(base=300_000_000, weights=3.9, activations=2.6),
    imports=ONNX,
)
