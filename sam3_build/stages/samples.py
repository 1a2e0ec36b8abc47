"""Takes a pipeline's samples, pictures or clips and prompts; returns what each of its cases is given, as arrays."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from sam3_build import registry
from sam3_build.params import SampleParams, SamplesParams
from sam3_build.pipeline.cases import PromptRequest, write_cases
from sam3_build.plugins import Memory, Stage
from sam3_build.spec import Json


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> dict[str, Json]:
    """Write the cases of one pipeline, as `pipeline/cases.py` says.

    document: SamplesParams
    inputs: config, tokenizer where the family has one, and the samples' files by role
    """
    params = SamplesParams.of(document)
    request = PromptRequest(
        layout=params.layout,
        pipeline=params.pipeline,
        reference=params.reference,
        samples=params.samples,
        tokenizer=inputs.get("tokenizer"),
        files=inputs,
        config=json.loads(inputs["config"].read_bytes()),
        padding=params.padding,
    )
    code = registry.family_code(params.family)
    listed = write_cases(code.prompts.make_cases(request), out)
    for case in listed:
        logging.getLogger(__name__).info("%s: samples %s, %s frames", case.name, list(case.samples), case.frames)
    rows = max((len(case.samples) for case in listed), default=0)
    return {"cases": [case.name for case in listed], "rows": max(rows, *map(_objects, params.samples))}


def _objects(sample: SampleParams) -> int:
    """Return how many objects the prompts of a clip name: so many rows a loop runs at once."""
    prompts = sample.prompts.get("prompts")
    listed = prompts if isinstance(prompts, list | tuple) else ()
    return len({prompt.get("object") for prompt in listed if isinstance(prompt, Mapping)} - {None})


STAGE = Stage(
    name="samples",
    summary="Turn samples into network inputs",
    tools=("numpy", "pillow", "tokenizers"),
    run=run,
    memory=Memory(base=300_000_000),
)
