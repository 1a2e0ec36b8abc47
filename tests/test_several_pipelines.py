"""Several pipelines in one plan: whatever of them is built and shown, names are unique and lead somewhere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

from sam3_build import registry
from sam3_build.family_checks import problems
from sam3_build.manifest.types import Checkpoint, Component, Manifest, Sample, Target
from sam3_build.pipeline.prompts import Point
from sam3_build.plan.make import make_plan
from sam3_build.spec import ComponentSpec, Feed, Layout, Loop, ModelFamily, Per, Pipeline, Plan, Step, TensorSpec


@dataclass(frozen=True)
class OnFrame:
    """A prompt on a frame."""

    frame: int
    object: int | None = None
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class ClipPrompts:
    """What may be asked of a clip."""

    prompts: tuple[OnFrame, ...] = ()


@dataclass(frozen=True)
class ImagePrompts:
    """What may be asked of a picture."""

    points: tuple[Point, ...] = ()


def component(name: str, taken: str, given: str) -> ComponentSpec:
    """Return a component of one input and one output."""
    inputs, outputs = (TensorSpec(tensor, "float32", ("batch", 3)) for tensor in (taken, given))
    return ComponentSpec(name, (inputs,), (outputs,), ())


FEATURES = Feed("features", (("enc", "features"),))
IMAGE = Pipeline(
    "image", ImagePrompts, ("images",), (Step("enc"), Step("dec", (Feed("x", FEATURES.sources),))), result="instances"
)
# A loop in the middle, that shares a component with the other pipeline.
VIDEO = Pipeline(
    "video",
    ClipPrompts,
    ("images",),
    (
        Step("enc", per=Per.FRAME),
        Loop("track", ("dec", "mem"), ("masks",), feeds=(FEATURES,), frames=("features",)),
        Step("refine", (Feed("masks", (("track", "masks"),)),)),
    ),
    result="tracks",
)
COMPONENTS = (
    component("enc", "images", "features"),
    component("dec", "x", "y"),
    component("mem", "m", "n"),
    component("refine", "masks", "out"),
)
FAMILY = ModelFamily(
    name="fake",
    layouts={"v1": Layout(COMPONENTS, (IMAGE, VIDEO), ("batch",))},
    references={"own": ""},
    static_dims=lambda config: {},
    largest_tensor=lambda name, config: 0,
)
ON_FRAME = {"frame": 0, "object": 1}
SAMPLES = {
    "image": Sample("image", (Path("a.png"),), {}),
    "video": Sample("video", (Path("b.png"),), {"prompts": [ON_FRAME]}, video=Path("v"), frames=1),
}
CHOICES = [choice for number in range(1, 5) for choice in combinations([c.name for c in COMPONENTS], number)]


@pytest.fixture(autouse=True)
def family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry know the family."""
    monkeypatch.setattr(registry, "family", lambda name: FAMILY)


def planned(samples: tuple[str, ...], built: tuple[str, ...]) -> Plan:
    """Return the plan of a manifest that shows and builds these."""
    precisions = ("fp32", "fp16")
    return make_plan(
        Manifest(
            name="m",
            path=Path("m.yaml"),
            family="fake",
            layout="v1",
            checkpoint=Checkpoint(1, None, None, None, {"config": Path("config.json")}),
            reference="own",
            tokenizer=None,
            opset=20,
            components={name: Component(None, (), {}) for name in built},
            shape_profiles={},
            precisions=precisions,
            targets={"cpu": Target("onnxruntime", (), {}, precisions)},
            samples=tuple(SAMPLES[name] for name in samples),
            score_threshold=0.5,
            tolerances={},
            files=(),
        )
    )


def test_the_family_is_sound() -> None:
    assert problems(FAMILY) == []


@pytest.mark.parametrize("samples", [("image",), ("video",), ("image", "video"), ("video", "image")])
@pytest.mark.parametrize("built", CHOICES, ids="+".join)
def test_names_are_unique_and_lead_to_what_comes_before(samples: tuple[str, ...], built: tuple[str, ...]) -> None:
    plan = planned(samples, built)
    seen: set[str] = set()
    for action in plan.actions:
        assert action.name not in seen
        assert {source.action for source in action.inputs.values()} | {*action.after} <= seen, action.name
        seen.add(action.name)
    names = [comparison.name for comparison in plan.comparisons]
    assert len(set(names)) == len(names)
    for comparison in plan.comparisons:
        assert comparison.action is None or comparison.action in seen
        assert {*comparison.depends_on} <= {*names}, comparison.name


def test_a_pipeline_of_whose_loop_nothing_is_built_says_so() -> None:
    (not_run,) = {c.not_run for c in planned(("video",), ("enc", "refine")).comparisons if c.component == "video"}
    assert not_run == "the manifest does not build dec, mem"


def test_a_shared_component_is_measured_on_what_each_pipeline_records() -> None:
    plan = planned(("image", "video"), tuple(c.name for c in COMPONENTS))
    assert plan.action("verify:dec.fp16").inputs["reference"].action == "reference:dec"
    recorded = plan.action("verify:dec.fp16@video").inputs["reference"]
    assert (recorded.action, recorded.folder) == ("reference:track", "dec")
