"""Takes cases and what ran before a loop, returns what the loop gives in PyTorch, FP32, and calls of its components."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.digest import canonical
from sam3_build.family_code import FamilyCode
from sam3_build.params import ReferenceLoopParams, TorchParams
from sam3_build.pipeline import chain, loop
from sam3_build.pipeline.cases import CASES, listed_cases, write_recorded
from sam3_build.plugins import TORCH, Memory, Stage
from sam3_build.spec import Json
from sam3_build.stages._torch import open_network
from sam3_build.stages.reference import require_finite
from sam3_build.torch_modules.assemble import compute

if TYPE_CHECKING:
    from sam3_build.pipeline.chain import Arrays


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<case>.npz` with arrays `outputs/<name>`, what the loop returns, and `cases.json`, the list of cases.

    Of each component `<component>/<case>.<call>.npz`, with arrays `inputs/<name>` and `outputs/<name>` of some calls
    (`pipeline/loop.Recorder`), and `<component>/cases.json`, their list: that no call at all runs a component is an
    error of verify's alone. A case that only has its objects in another order is not run: what was built is.

    document: ReferenceLoopParams
    inputs: config, samples, tensors_<component>, and by name what each step before the loop computed
    """
    params = ReferenceLoopParams.of(document)
    code = registry.family_code(params.family)
    run_loop = code.loop(params.loop.name)
    networks = {one.component: loop.Recorder(one.component, _network(code, one, inputs)) for one in params.networks}
    cases: list[str] = []
    calls: dict[str, list[str]] = {name: [] for name in networks}
    for case in listed_cases(inputs[chain.GIVEN]):
        if case.like:
            continue
        given, frames = loop.given(case, params.loop, inputs), loop.Frames(case, params.loop, inputs)
        found = loop.returned(params.loop, run_loop(networks, given, frames))
        require_finite(case.name, found, params.loop.name)
        write_recorded(out / f"{case.name}.npz", {}, found)
        for name, network in networks.items():
            calls[name] += network.write(out / name, case.name)
        logging.getLogger(__name__).info("%s: %s", case.name, {n: list(a.shape) for n, a in found.items()})
        cases.append(case.name)
    (out / CASES).write_bytes(canonical(sorted(cases)))
    for name, recorded in calls.items():
        (out / name).mkdir(exist_ok=True)
        (out / name / CASES).write_bytes(canonical(recorded))
    return {"cases": sorted(cases), "calls": {name: len(recorded) for name, recorded in calls.items()}}


def _network(code: FamilyCode, params: TorchParams, inputs: Mapping[str, Path]) -> loop.LoopNetwork:
    """Return what runs a component of the loop in PyTorch; its outputs are finite."""
    own = {role: path for role, path in inputs.items() if not role.startswith("tensors_")}
    model = open_network(code, params, {**own, "tensors": inputs[f"tensors_{params.component}"]})
    inputs_of, results = {t.name: t for t in params.spec.inputs}, [t.name for t in params.spec.outputs]

    def run(arrays: Arrays, kind: str = "") -> Arrays:
        loop.check(params.component, arrays, inputs_of)
        outputs = compute(model, {name: arrays[name] for name in inputs_of}, results)
        require_finite(f"a call of {params.component}", outputs)
        return outputs

    return run


STAGE = Stage(
    name="reference_loop",
    summary="Run a loop in PyTorch as the reference",
    tools=("torch", "transformers", "numpy"),
    run=run,
    memory=Memory(base=900_000_000, weights=1.0, activations=2.2),
    imports=TORCH,
)
