"""Toy: list the tensors by component."""

import json

from sam3_build.families.toy.keys import tensors

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    found = tensors(params["source"], inputs)
    (out / "config.json").write_bytes(inputs["config"].read_bytes())
    for component in ("encoder", "head"):
        mine = {n: d for n, d in found.items() if n.startswith(component)}
        (out / f"{component}.json").write_text(json.dumps(mine))
    return {"tensors": len(found)}


STAGE = Stage(
    name="checkpoint", summary="Toy: list the tensors by component.", tools=(), run=run, memory=Memory(base=1)
)
