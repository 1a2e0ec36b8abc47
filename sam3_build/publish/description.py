"""What makes a published folder run alone: takes a candidate, returns model.json, verdicts.json, tokenizer, licence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sam3_build import registry
from sam3_build.model_format import MODEL, TOKENIZER, VERDICTS, ModelFile, text_of, verdicts_text
from sam3_build.params import ModelParams
from sam3_build.plan.model import NAME
from sam3_build.publish.checks import Candidate
from sam3_build.publish.items import shown
from sam3_build.publish.licence import LICENCE
from sam3_build.publish.reasons import Reason
from sam3_build.report.file_verdicts import verdicts_of


def description(candidate: Candidate, withheld: Mapping[str, Sequence[Reason]]) -> dict[str, Path | bytes]:
    """Return name -> content of the files by which the published ones can be run, and of the weights' licence.

    withheld: what the folder leaves out, and why
    """
    session = candidate.session
    licences: dict[str, Path | bytes] = {LICENCE: candidate.licence} if candidate.licence else {}
    action = next((action for action in session.plan.actions if action.name == NAME), None)
    if action is None:
        return licences  # a model that nobody can run
    params = action.arguments
    assert isinstance(params, ModelParams)
    checkpoint = candidate.record("checkpoint")
    assert checkpoint, "a record that leads to no checkpoint was refused"
    made = session.resolver.folder(checkpoint)
    config = json.loads((made / "config.json").read_bytes())
    names = {part.pipeline.name for part in candidate.parts}
    pipelines = tuple(pipeline for pipeline in params.pipelines if pipeline.name in names)
    run = {component for pipeline in pipelines for component in pipeline.components}
    tokenizer = action.files.get("tokenizer") or (made / TOKENIZER if "tokenizer" in action.inputs else None)
    files = _files(candidate, params)
    described = replace(
        params.description(config, registry.family(params.family).static_dims(config), files, tokenizer is not None),
        pipelines=pipelines,
        components=tuple(component for component in params.components if component.name in run),
        withheld={name: "; ".join(dict.fromkeys(map(_words, reasons))) for name, reasons in withheld.items()},
    )
    digests = {file.sha256 for file in files}
    verdicts = {sha256: sides for sha256, sides in verdicts_of(session, candidate.found).items() if sha256 in digests}
    return {
        MODEL: text_of(described),
        VERDICTS: verdicts_text(verdicts),
        **({TOKENIZER: tokenizer} if tokenizer else {}),
        **licences,
    }


def _files(candidate: Candidate, params: ModelParams) -> tuple[ModelFile, ...]:
    """Return the published files as model.json lists them: all beside it."""
    by_name = {(file.component, file.precision): file for file in params.files if file.target == candidate.name}
    found = []
    for item in candidate.items:
        record = candidate.record(item.source.name)
        assert record, "what is missing was refused"
        (main, *others), file = shown(item, record), by_name[item.component, item.precision]
        beside = {other.name: other.sha256 for other in others}
        found.append(replace(file, path=main.name, sha256=main.sha256, companions=beside))
    return tuple(found)


def _words(reason: Reason) -> str:
    return f"{reason.what}: {reason.kind.words}: {reason.why}"
