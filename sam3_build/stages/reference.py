"""Takes recorded inputs and a component's weights, returns its inputs and outputs in PyTorch, FP32, for every case."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.digest import canonical
from sam3_build.errors import BuildError
from sam3_build.params import ReferenceParams
from sam3_build.pipeline import chain
from sam3_build.pipeline.cases import CASES, listed_cases, write_recorded
from sam3_build.plugins import TORCH, Memory, Stage
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<case>.npz` with arrays `inputs/<name>` and `outputs/<name>`, and `cases.json`, the list of these cases.

    A case that lacks one of the component's inputs (no boxes for the geometry encoder) has no file; that no case at
    all runs the component is an error of verify's alone, since others may need nothing from it.

    document: ReferenceParams
    """

    from sam3_build.stages._torch import open_network
    from sam3_build.torch_modules.assemble import compute

    params = ReferenceParams.of(document)
    model = open_network(registry.family_code(params.family), params, inputs)

    names, results = ([t.name for t in tensors] for tensors in (params.spec.inputs, params.spec.outputs))
    recorded: list[str] = []
    cases = (run for case in listed_cases(inputs[chain.GIVEN]) for run in case.runs(params.per))
    for name, files in cases:
        arrays = chain.gather(names, params.feeds, chain.in_files(inputs, *files))
        if arrays is None:
            logging.getLogger(__name__).info("%s: does not run %s", name, params.component)
            continue
        outputs = compute(model, arrays, results)
        require_finite(name, outputs)
        write_recorded(out / f"{name}.npz", arrays, outputs)
        logging.getLogger(__name__).info("%s: %s", name, {n: list(a.shape) for n, a in outputs.items()})
        recorded.append(name)
    (out / CASES).write_bytes(canonical(sorted(recorded)))
    return {"cases": sorted(recorded)}


def require_finite(case: str, outputs: Mapping[str, Array], loop: str | None = None) -> None:
    """Refuse NaN and infinity: what is compared with them says nothing. loop: what returned them, of finite calls."""
    import numpy as np

    for name, array in outputs.items():
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            giver, cause = ("PyTorch", "the weights and the model config")
            if loop:
                giver, cause = f"loop {loop}", f"{loop} in loops.py of the family"
            raise BuildError(
                f"case {case!r}: {giver} itself gives {wrong} NaN or infinite values (of {array.size}) in {name!r}, "
                f"and nothing can be measured against those; look at {cause}"
            )


STAGE = Stage(
    name="reference",
    summary="Run components in PyTorch as the reference",
    tools=("torch", "transformers", "numpy"),
    run=run,
    memory=Memory(base=900_000_000, weights=1.0, activations=2.2),
    imports=TORCH,
)
