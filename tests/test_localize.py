"""`sam3-build localize` on the miniature: what it prints, writes, and says when there is nothing that it could do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import miniature
import pytest
from gpus import RTX_4090

from sam3_build.diagnose.localize import action_of, comparison_of, localize
from sam3_build.errors import BuildError
from sam3_build.execution.session import open_session
from sam3_build.plan.make import make_plan

ROOT = Path(__file__).parents[1]


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sam3_build", "localize", *args], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_healthy_miniature_is_told_in_a_table_in_json_and_as_a_picture_and_measured_once() -> None:
    miniature.folder("verify:text_encoder.fp16")
    done = command("text_encoder")
    assert done.returncode == 0, done.stderr
    label, head, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"onnxruntime fp32 vs onnxruntime fp16.* \(range parity\)", label)
    assert head.split() == ["block", "error/gate", "max", "abs/std", "cosine", "node"]
    blocks = [line.split()[0] for line in lines[: lines.index("")]]
    layers = [f"text_encoder.text_model.encoder.layers.{i}" for i in range(2)]
    stem, norm = "text_encoder.text_model.embeddings", "text_encoder.text_model.final_layer_norm"
    assert blocks == [stem, *layers, norm, "text_projection"]
    assert lines[-1] == "text_encoder.fp16: no block introduces an error: the values of every output pass their gates"

    again = command("text_encoder", "--json")
    assert (again.returncode, again.stderr) == (0, ""), "nothing ran"
    told = json.loads(again.stdout)
    assert [row["block"] for row in told["blocks"]] == blocks
    assert [row["output"] for row in told["outputs"]] == ["text_features", "text_mask"]
    assert (told["parts"], told["outputs"][1]["whole"]) == (None, 0)
    folder = ROOT / "artifacts" / miniature.MANIFEST / "localize"
    assert json.loads((folder / "text_encoder.fp16.json").read_text()) == told
    assert ElementTree.fromstring((folder / "text_encoder.fp16.svg").read_text()).tag.endswith("svg")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("decodr", "fp16", None), "manifest 'sam3_mini' has no component 'decodr'; did you mean 'decoder'?"),
        (("decoder", "fp61", None), "manifest 'sam3_mini' has no precision 'fp61'; did you mean 'fp16'?"),
        (("decoder", "fp16", "adda"), "manifest 'sam3_mini' has no target 'adda'; did you mean 'ada'?"),
        (("decoder", "fp16", "cpu"), "cpu runs the graph itself: leave --target out"),
        (
            ("decoder", "fp32", None),
            "decoder.fp32 is what others are compared with: name another --precision, or a --target",
        ),
    ],
)
def test_what_cannot_be_localized_is_said_with_what_can(asked: tuple[str, str, str | None], said: str) -> None:
    session = open_session(ROOT, miniature.MANIFEST, os.environ)
    with pytest.raises(BuildError) as error:
        localize(session, *asked, lambda action: pytest.fail(f"{action} ran"))
    assert str(error.value) == said


def test_an_engine_that_this_machine_cannot_run_is_refused_with_the_reason() -> None:
    session = open_session(ROOT, miniature.MANIFEST, os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    with pytest.raises(BuildError, match=r"ada cannot be measured on this machine: running .* needs a CUDA GPU"):
        localize(session, "decoder", "fp16", "ada", lambda action: pytest.fail(f"{action} ran"))


def test_an_engine_is_measured_where_it_runs_and_built_as_it_was_built() -> None:
    session = open_session(ROOT, miniature.MANIFEST, os.environ)
    session = replace(session, plan=make_plan(session.manifest, RTX_4090, ""))
    asked = comparison_of(session, "decoder", "fp16", "ada")
    action, build = action_of(session, asked), session.plan.action("build:decoder.fp16.ada")
    assert (action.name, action.gpu) == ("localize:decoder.fp16.ada", RTX_4090.uuid)
    assert {name: action.params[name] for name in ("backend", "options", "profiles")} == {
        name: build.params[name] for name in ("backend", "options", "profiles")
    }
    assert {role: source.action for role, source in action.inputs.items()} == {
        "fp32": "precision:decoder.fp32",
        "onnx": "precision:decoder.fp16",
        "reference": "reference:decoder",
    }
    assert {"stages.localize", "backends.tensorrt_rtx", "precisions.fp16"} <= set(action.recipe)
    assert "stages.verify" not in action.recipe
    verified = session.plan.action("verify:decoder.fp16.ada")
    assert (action.device, action.env) == (verified.device, verified.env) and action.env and action.device
    assert set(verified.tools) < set(action.tools)
