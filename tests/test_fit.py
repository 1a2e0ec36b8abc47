"""A manifest's samples against its shape profiles: what is said before anything is built, and what stays fresh."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import miniature
import numpy as np
import profiled_backend
import pytest
from sam3_cases import cases_of, prompts_of

from sam3_build import registry
from sam3_build.commands.doit_reporter import reporter as reporter_of
from sam3_build.documents import value_of
from sam3_build.errors import ManifestError
from sam3_build.execution.session import open_session
from sam3_build.manifest.load import load
from sam3_build.manifest.types import Manifest
from sam3_build.pipeline.concept_cases import ImagePrompts, case_shapes
from sam3_build.plan.make import make_plan
from sam3_build.spec import CaseRequest, Plan

ROOT = Path(__file__).parents[1]
MINI = ROOT / "manifests" / "sam3_mini"
SCENE = ROOT / "manifests" / "samples" / "scene1.png"


def boxes(count: int) -> str:
    return ";".join(["pos:10,10,30,30"] * count)


def loaded(folder: Path, text: str, *samples: int) -> Manifest:
    """Load the miniature's manifest with other text, and samples of so many boxes where there are any."""
    listed = "".join(f'\n  - {{image: {SCENE}, boxes: "{boxes(n)}"}}' for n in samples)
    path = folder / "m.yaml"
    path.write_text(
        f"extends: {ROOT / 'manifests' / 'sam3_mini.yaml'}\n{text}" + (f"samples:{listed}\n" if listed else "")
    )
    return load(str(path), ROOT)


def planned(folder: Path, text: str, *samples: int) -> Plan:
    return make_plan(loaded(folder, text, *samples))


def profile(batch: object = (1, 1, 8), num_boxes: object = (1, 8, 20), prompt_len: object = (1, 34, 60)) -> str:
    spans = {"batch": batch, "num_boxes": num_boxes, "prompt_len": prompt_len}
    ranges = ", ".join(f"{d}: {list(r) if isinstance(r, tuple) else r}" for d, r in spans.items())
    return f"shape_profiles: {{default: {{{ranges}}}}}\n"


def test_the_usual_batch_of_one_loads_and_its_engines_are_verified_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled_backend.install(monkeypatch)
    plan = planned(tmp_path, profile(batch=1) + "targets: {edge: {backend: profiled}}\n")
    verify = plan.action("verify:decoder.fp16.edge").params
    assert (verify["row_dim"], verify["profiles"]) == ("batch", [{"batch": [1, 1, 1], "prompt_len": [1, 34, 60]}])
    chain = plan.action("chain:decoder.fp16.edge").params
    assert (chain["row_dim"], chain["profiles"]) == (verify["row_dim"], verify["profiles"])
    engine = next(c for c in plan.comparisons if c.name == "decoder.fp16.edge")
    assert engine.informs["rows"] == "not applicable: edge's shape profiles allow one row at a time"


def test_a_profile_reruns_builds_and_what_is_measured_on_them_and_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled_backend.install(monkeypatch)
    edge = "targets: {edge: {backend: profiled}, ada: null, ampere: null, blackwell: null, openvino: null}\n"
    before, after = (planned(tmp_path, profile(batch=batch) + edge) for batch in (1, 4))
    changed = {a.name for a, b in zip(before.actions, after.actions, strict=True) if a != b}
    assert all(name.endswith(".edge") for name in changed - {"model"}), "model.json says what an engine takes"
    assert {name.partition(":")[0] for name in changed} == {"build", "verify", "chain", "model"}


@pytest.mark.parametrize(
    ("num_boxes", "prompt_len", "padding"), [(21, 60, 1), (20, 60, 0), (60, 53, 0), (60, 54, 1), (19, 60, 1)]
)
def test_a_batch_is_padded_as_far_as_every_target_takes_it(
    tmp_path: Path, num_boxes: int, prompt_len: int, padding: int
) -> None:
    """Twenty boxes are 53 tokens. Where they fit no padding at all, padding is no matter."""
    plan = planned(tmp_path, profile(num_boxes=(1, 8, num_boxes), prompt_len=(1, 34, prompt_len)), 20, 1)
    assert plan.action("samples").params["padding"] == padding


def test_a_sample_that_fits_no_profile_is_told_with_dimension_profile_and_target(tmp_path: Path) -> None:
    manifest = loaded(tmp_path, "", 25, 2)
    targets = ", ".join(name for name, t in manifest.targets.items() if t.backend != "onnxruntime")
    (note,) = manifest.notes
    assert note.endswith(
        "m.yaml:3: samples[0]: num_boxes is 25, and shape profile 'default' takes 1 to 20: "
        f"target {targets} is built, and not compared on this sample"
    )


@pytest.mark.parametrize(
    ("text", "counts", "why"),
    [
        ("", (25,), "num_boxes is 25, and shape profile 'default' takes 1 to 20"),
        (profile(prompt_len=(1, 20, 30)), (1, 2), "prompt_len is 34, and shape profile 'default' takes 1 to 30"),
        (profile(prompt_len=50), (1, 2), "prompt_len is 34, and shape profile 'default' takes 50"),
    ],
)
def test_a_target_that_no_case_fits_is_an_error(tmp_path: Path, text: str, counts: tuple[int, ...], why: str) -> None:
    with pytest.raises(ManifestError) as error:
        loaded(tmp_path, text, *counts)
    assert f"none of the samples fits its shape profiles, so that it could never be verified: {why}" in str(error.value)
    assert any("targets.ada:" in line for line in error.value.problems)


def test_what_hangs_on_no_config_is_an_error_before_the_model_is_downloaded_too(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="num_boxes is 25, and shape profile 'default' takes 1 to 20"):
        loaded(tmp_path, "checkpoint: {path: null, hub: facebook/sam3}\n", 25)


def test_sizes_of_a_model_that_was_not_downloaded_yet_are_assumed_and_refuse_nothing(tmp_path: Path) -> None:
    hub = "checkpoint: {path: null, hub: facebook/sam3}\n"
    manifest = loaded(tmp_path, hub + profile(prompt_len=(1, 20, 30)), 1)
    assert any("prompt_len is 34" in note for note in manifest.notes)
    assert not loaded(tmp_path, hub, 1).notes


@pytest.mark.parametrize("layout", ["v1", "v2", "two_files"])
@pytest.mark.parametrize("reference", ["meta", "hf"])
@pytest.mark.parametrize("padding", [0, 1])
def test_shapes_of_cases_are_those_of_their_arrays(layout: str, reference: str, padding: int) -> None:
    config = json.loads((MINI / "config.json").read_bytes())
    counts = (0, 2, 1, 0, 3)
    samples = [
        {"image": "p", "text": "red circle", "boxes": [{"label": 1, "xywh": (10, 10, 30, 30)}] * n} for n in counts
    ]
    cases = cases_of(reference, samples, MINI / "tokenizer.json", {"p": SCENE}, config, layout, padding)
    static = registry.family("sam3_image").static_dims(config)
    prompts = [prompts_of(sample) for sample in samples]
    shapes = case_shapes(CaseRequest(layout, "image", reference, prompts, range(len(counts)), padding, static))
    assert [(case.name, case.samples) for case in cases] == [(shape.name, shape.samples) for shape in shapes]
    for case, shape in zip(cases, shapes, strict=True):
        assert len(case.arrays["images"]) == shape.sizes["batch"]
        assert np.shape(case.arrays.get("input_boxes", np.empty((0, 0))))[1] == shape.sizes.get("num_boxes", 0)


def test_plan_and_the_first_action_of_a_run_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (note,) = loaded(tmp_path, "", 25, 2).notes
    from sam3_build.commands.building import plan

    plan(str(tmp_path / "m.yaml"))
    assert f"note: {note}\n" in capsys.readouterr().err
    session = open_session(ROOT, str(tmp_path / "m.yaml"), {"SAM3_STORE": str(tmp_path / "store")})
    out = io.StringIO()
    reporter = reporter_of(session, {})(out, {"show_out": True, "failure_verbosity": 0})
    for action in ("checkpoint", "samples"):
        reporter.execute_task(SimpleNamespace(name=action))
    assert out.getvalue().startswith(f"note: {note}\n  run       checkpoint ")
    assert out.getvalue().count("note: ") == 1


def test_the_prompt_of_a_case_is_as_long_as_the_one_that_pytorch_recorded() -> None:
    static = registry.family("sam3_image").static_dims(json.loads((MINI / "config.json").read_bytes()))
    manifest = load("sam3_mini", ROOT)
    prompts = [value_of(ImagePrompts, sample.prompts) for sample in manifest.samples]
    recorded = miniature.folder("reference:decoder")
    numbers = range(len(prompts))
    request = CaseRequest(manifest.layout, "image", manifest.reference, prompts, numbers, manifest.padding, static)
    shapes = case_shapes(request)
    assert len(shapes) == len(list(recorded.glob("*.npz")))
    for shape in shapes:
        with np.load(recorded / f"{shape.name}.npz") as arrays:
            assert arrays["inputs/prompt_features"].shape[:2] == (shape.sizes["batch"], shape.sizes["prompt_len"])
