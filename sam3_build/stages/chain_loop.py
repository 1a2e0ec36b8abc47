"""Takes the ONNX files of a loop's components and what ran before it, returns what the loop gives. Judges nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.digest import canonical
from sam3_build.errors import BuildError
from sam3_build.params import ChainLoopParams, NetworkParams
from sam3_build.pipeline import chain, loop
from sam3_build.pipeline.cases import CASES, listed_cases, skipped_in, write_skipped
from sam3_build.pipeline.network import Network
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import Json
from sam3_build.stages._networks import open_network

if TYPE_CHECKING:
    from sam3_build.pipeline.chain import Arrays


class _MisfitError(BuildError):
    """A call fits no shape profile of an engine, so that its case cannot be run to the end."""


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write `<case>.npz` with arrays `<name>`, what the loop returns, and `cases.json`, the list of the cases.

    A case of which a call fits no shape profile of an engine, or whose frames one before it did not take, is listed in
    `skipped.json`.

    document: ChainLoopParams
    inputs: samples; onnx_<component> and, with a backend, built_<component>; by name, what each step before computed
    """
    import numpy as np

    params = ChainLoopParams.of(document)
    code = registry.family_code(params.family)
    run_loop = code.loop(params.loop.name)
    before = {case: why for folder in inputs.values() for case, why in skipped_in(folder).items()}
    skipped, ran = {}, []
    with ExitStack() as stack:
        networks = {}
        for one in params.networks:
            roles = {role: f"{role}_{one.component}" for role in ("onnx", "built")}
            own = {role: inputs[name] for role, name in roles.items() if name in inputs}
            networks[one.component] = _network(one, stack.enter_context(open_network(one, own)))
        for case in listed_cases(inputs[chain.GIVEN]):
            frames = [case.frame(i) for i in range(case.frames)]
            if unread := before.keys() & {case.name, *frames}:
                skipped[case.name] = before[min(unread)]
                continue
            try:
                given, of_frames = loop.given(case, params.loop, inputs), loop.Frames(case, params.loop, inputs)
                found = loop.returned(params.loop, run_loop(networks, given, of_frames))
            except _MisfitError as misfit:
                skipped[case.name] = str(misfit)
                continue
            np.savez(out / f"{case.name}.npz", allow_pickle=False, **dict(found))
            logging.getLogger(__name__).info("%s: %s", case.name, {n: list(a.shape) for n, a in found.items()})
            ran.append(case.name)
    (out / CASES).write_bytes(canonical(sorted(ran)))
    write_skipped(out, skipped)
    return {"cases": len(ran)}


def _network(params: NetworkParams, network: Network) -> loop.LoopNetwork:
    def run(arrays: Arrays, kind: str = "") -> Arrays:
        loop.check(params.component, arrays, network.session.inputs)
        if why := network.misfit(arrays):
            raise _MisfitError(f"{params.component}: {why}")
        return network.run(arrays, params.component)

    return run


STAGE = Stage(
    name="chain_loop",
    summary="Run a loop on what was built",
    tools=("onnxruntime", "numpy", "onnx", "onnx-ir"),
    run=run,
    memory=Memory(base=300_000_000, weights=3.9, activations=2.6),
    imports=ONNX,
)
