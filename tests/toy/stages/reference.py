"""Toy: what PyTorch would say."""

from sam3_build.families.toy.modules import FORWARD

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    said = [params["component"], FORWARD[params["component"]], inputs["tensors"].read_text()]
    said += [
        (p / "cases.json").read_text() if r == "samples" else (p / "case.txt").read_text()
        for r, p in inputs.items()
        if r in ("samples", "encoder")
    ]
    (out / "case.txt").write_text("\n".join(said))
    return {}


STAGE = Stage(
    name="reference", summary="Toy: what PyTorch would say.", tools=("torch",), run=run, memory=Memory(base=1)
)
