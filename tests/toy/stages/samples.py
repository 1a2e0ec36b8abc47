"""Toy: write the samples down."""

import json

from sam3_build.families.toy.prompts import words

from sam3_build.spec import Stage


def run(params, inputs, out):
    """Write the toy output."""
    (out / "cases.json").write_text(json.dumps([words(s) for s in params["samples"]]))
    return {}


STAGE = Stage("samples", "Toy: write the samples down.", ("pillow",), run)
