"""Toy: write the samples down."""

import json

from sam3_build.families.toy.prompts import problems, words

from sam3_build.errors import InputError
from sam3_build.params import SampleParams
from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    samples = [SampleParams.of(sample) for sample in params["samples"]]
    if wrong := problems([(params["pipeline"], s) for s in samples], inputs["tokenizer"], inputs, {}):
        raise InputError(wrong)
    (out / "cases.json").write_text(json.dumps([words(s) for s in samples]))
    return {}


STAGE = Stage(name="samples", summary="Toy: write the samples down.", tools=("pillow",), run=run, memory=Memory(base=1))
